"""What warm workers may keep, and which styles train under one engine."""

from types import SimpleNamespace
from typing import Any

import pytest

from lorafleet import spec
from trainer.loop import _is_within_its_memory, trainable_together


def style(job: str, digest: str = "base", **parts: Any) -> Any:
    fields = {"base_model": {"uri": "file:///b"}, "dataset": {"uri": "file:///d"}, **parts}
    return SimpleNamespace(job=job, spec=spec.parse(fields), base=SimpleNamespace(digest=digest))


@pytest.mark.parametrize(("reserved_gib", "stays"), [(None, True), (0.001, False), (10_000.0, True)])
def test_workers_that_hold_more_than_they_reserved_do_not_wait(reserved_gib: float | None, stays: bool):
    plan: Any = SimpleNamespace(pack=[style("a", cluster={"memory_gib_per_worker": reserved_gib} if reserved_gib else {})])
    assert _is_within_its_memory(plan) is stays


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
    ]
    assert [[each.job for each in pack] for pack in trainable_together(styles)] == [["a", "c", "h"], ["b"], ["d"], ["e"], ["f"], ["g"]]
