"""Speed and memory, side by side with the peers; see `python -m benchmarks --help`.

A case is one piece of work at one size; a contestant is a library that does it. Every
contestant runs in a process of its own, they take turns, and nothing is timed
before all of them have returned the same value.
"""
