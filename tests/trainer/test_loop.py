"""What warm workers may keep, and which styles train under one engine."""

from types import SimpleNamespace
from typing import Any

import pytest

from lorafleet import spec
from lorafleet.contract.run_manifest import Standby
from lorafleet.spec import ClusterSpec
from trainer.loop import _is_within_its_memory, trainable_together
from trainer.report import Address
from trainer.run_plan import RunPlan


def style(job: str, digest: str = "base", **parts: Any) -> Any:
    fields = {"base_model": {"uri": "file:///b"}, "dataset": {"uri": "file:///d"}, **parts}
    return SimpleNamespace(job=job, spec=spec.parse(fields), base=SimpleNamespace(identity=digest))


def plan(*pack: Any, standby: Standby | None = None) -> RunPlan:
    address = Address("run-1", "127.0.0.1:1", "token")
    return RunPlan(run="run-1", pack=pack, cache_uri="", batch_invariant=False, warm_idle_s=0.0, report_to=address, standby=standby)


@pytest.mark.parametrize(("reserved_gib", "stays"), [(None, True), (0.001, False), (10_000.0, True)])
def test_workers_that_hold_more_than_they_reserved_do_not_wait(reserved_gib: float | None, stays: bool):
    assert _is_within_its_memory(plan(style("a", cluster={"memory_gib_per_worker": reserved_gib} if reserved_gib else {}))) is stays


@pytest.mark.parametrize(("limit_gib", "stays"), [(0.001, False), (10_000.0, True)])
def test_nor_do_workers_that_stand_by_and_hold_more_than_they_may(limit_gib: float, stays: bool):
    assert _is_within_its_memory(plan(standby=Standby(cluster=ClusterSpec(), memory_gib=limit_gib))) is stays


def test_the_workers_to_start_are_those_of_the_pack_or_such_as_are_to_stand_by():
    asked = ClusterSpec(cpus_per_worker=2.0)
    assert plan(style("a", cluster={"cpus_per_worker": 2.0})).cluster == asked
    assert plan(standby=Standby(cluster=asked, memory_gib=1.0)).cluster == asked


def test_styles_that_one_engine_cannot_train_go_one_after_the_other():
    styles = [
        style("a"),
        style("b", cluster={"zero_stage": 1}),
        style("c"),
        style("d", adapter={"text_encoder": True}),
        style("e", digest="another"),
        style("f", cluster={"zero_stage": 1}),
        style("g", training={"precision": "bf16"}),
        style("h", adapter={"rank": 3, "method": "dora"}),
        style("i", training={"gradient_checkpointing": True}),
        style("j", training={"compile": "blocks"}),
    ]
    together = [[each.job for each in pack] for pack in trainable_together(styles)]
    assert together == [["a", "c", "d", "h"], ["b"], ["e"], ["f"], ["g"], ["i"], ["j"]]
