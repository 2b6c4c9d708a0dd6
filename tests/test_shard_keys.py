"""Shards are dealt out to workers evenly: Bytewax gives a key to a worker by its hash, and ours are chosen for that."""

import threading
from typing import Any

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.operators import StatefulBatchLogic
from bytewax.testing import TestingSink, TestingSource, cluster_main

from dataflows.lift import shard_key


class _Where(StatefulBatchLogic[int, tuple[int, int], None]):
    def on_batch(self, values: list[int]) -> tuple[list[tuple[int, int]], bool]:
        return [(value, threading.get_ident()) for value in values], False

    def snapshot(self) -> None:
        return None


@pytest.mark.parametrize("workers", [2, 3, 4, 8])
def test_each_worker_has_as_many_shards_as_the_others(workers: int) -> None:
    found: list[Any] = []
    flow = Dataflow("spread")
    given = op.input("in", flow, TestingSource([(shard_key(k), k) for k in range(workers)]))
    op.output("out", op.stateful_batch("where", given, lambda _: _Where()), TestingSink(found))
    cluster_main(flow, [], 0, worker_count_per_proc=workers)  # type: ignore[no-untyped-call]
    assert sorted(shard for _, (shard, _) in found) == list(range(workers))
    assert len({thread for _, (_, thread) in found}) == workers


def test_keys_are_different() -> None:
    assert len({shard_key(k) for k in range(200)}) == 200
