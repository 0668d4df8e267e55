"""Which examples form the batch of a step: pure functions of (labels, seed, step).

Nothing is kept between steps, so a resumed run needs the step number alone, and any
batch can be made again at any time. All of this runs on the host, in NumPy. Functions
that draw by class take a table, made once by `class_table` or `group_table`: a batch
then costs about 0.1 ms for any number of examples.

| batch | function |
|---|---|
| every example once in each epoch | `shuffled_batch` |
| P classes with K examples each | `pk_batch` |
| the same, all classes of one group, examples of distinct contexts | \
`grouped_pk_batch` |
| pairs, half of the same class | `pair_batch` |
| one N-way K-shot episode | `episode_batch` |

Random numbers come from one Philox generator per purpose and step: the seed is its
key, the step its counter (Salmon et al., "Parallel random numbers: as easy as 1, 2,
3", SC 2011).
"""

from metricjax.samplers._classes import ClassTable, class_table, pk_batch
from metricjax.samplers._episodes import Episode, episode_batch
from metricjax.samplers._group_table import GroupTable, group_table
from metricjax.samplers._groups import grouped_pk_batch
from metricjax.samplers._pairs import PairBatch, pair_batch
from metricjax.samplers._shuffled import shuffled_batch, steps_per_epoch

__all__ = [
    "ClassTable",
    "Episode",
    "GroupTable",
    "PairBatch",
    "class_table",
    "episode_batch",
    "group_table",
    "grouped_pk_batch",
    "pair_batch",
    "pk_batch",
    "shuffled_batch",
    "steps_per_epoch",
]
