import json
import struct

import pytest
from tensorboardX.crc32c import crc32c
from tensorboardX.proto import event_pb2

from metricjax.training import logs

EVENT = event_pb2.Event  # pyright: ignore[reportAttributeAccessIssue]


def masked(data):
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def events(path):
    """The events of a file, by TensorBoard's record format: length, crc, data, crc."""
    data, found = path.read_bytes(), []
    while data:
        length, length_crc = struct.unpack("<QI", data[:12])
        assert length_crc == masked(data[:8])
        (content_crc,) = struct.unpack("<I", data[12 + length : 16 + length])
        assert content_crc == masked(data[12 : 12 + length])
        found.append(EVENT.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return found


def scalars(folder):
    return [
        (value.tag, event.step, value.simple_value)
        for path in sorted((folder / "tensorboard").iterdir())
        for event in events(path)
        for value in event.summary.value
    ]


def test_lines_and_events_read_back(tmp_path):
    with logs.open_log(tmp_path) as write:
        write("train", 10, {"loss": 0.5, "active": 0.25})
        write("evaluation", 10, {"recall_at_1": 0.75})
    assert logs.read(tmp_path) == [
        {"group": "train", "step": 10, "loss": 0.5, "active": 0.25},
        {"group": "evaluation", "step": 10, "recall_at_1": 0.75},
    ]
    assert scalars(tmp_path) == [
        ("train/loss", 10, 0.5),
        ("train/active", 10, 0.25),
        ("evaluation/recall_at_1", 10, 0.75),
    ]


def test_a_line_is_on_disk_at_once(tmp_path):
    with logs.open_log(tmp_path) as write:
        write("train", 1, {"loss": 0.5})
        assert len(logs.read(tmp_path)) == 1


def test_a_resumed_log_drops_what_came_after_the_checkpoint(tmp_path):
    with logs.open_log(tmp_path) as write:
        for step in (10, 20, 30):
            write("train", step, {"loss": float(step)})
    with logs.open_log(tmp_path, step=20) as write:
        write("train", 30, {"loss": 99.0})
    assert [line["loss"] for line in logs.read(tmp_path)] == [10.0, 20.0, 99.0]
    assert [value for _, _, value in scalars(tmp_path)] == [10.0, 20.0, 99.0]


def test_events_lost_to_a_kill_are_written_again(tmp_path):
    with logs.open_log(tmp_path) as write:
        write("train", 1, {"loss": 0.5})
    (events_file,) = (tmp_path / "tensorboard").iterdir()
    events_file.write_bytes(events_file.read_bytes()[:50])
    with logs.open_log(tmp_path, step=1):
        pass
    assert scalars(tmp_path) == [("train/loss", 1, 0.5)]


@pytest.mark.parametrize("tail", ['{"group": "tra', '{"group": "train", "step": 2}'])
def test_a_line_cut_short_is_dropped(tmp_path, tail):
    (tmp_path / "metrics.jsonl").write_text(
        json.dumps({"group": "train", "step": 1}) + "\n" + tail
    )
    with logs.open_log(tmp_path, step=1):
        pass
    assert logs.read(tmp_path) == [{"group": "train", "step": 1}]
