"""fp16: passes in half precision under a loss scale that each style has for itself; what overflows is skipped, counted, and given up."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from lorafleet import spec
from lorafleet.errors import InvalidSpec, RunFailed
from tests.trainer.families.styles import Families
from tests.trainer.pack.test_pack_run import Killed, assert_same_bits, dies_at
from tests.trainer.packs import Recorder, job_of
from trainer import loss_scale
from trainer.loss_scale import MOST_SKIPPED, LossScale
from trainer.pack import member

pytestmark = pytest.mark.timeout(300)
FP16: dict[str, Any] = {"precision": "fp16"}
TOO_LARGE = 2.0**30  # of a scale: gradients overflow at it, and at a few halves of it
Of = Callable[[str], Families]


@pytest.fixture(scope="module")
def packs(families: Of) -> Families:
    """Of small linear layers alone: there fp16 is not slow on a CPU."""
    return families("flux")


@pytest.fixture
def too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Styles begin with a scale at which their first steps overflow."""
    monkeypatch.setattr(member, "LossScale", lambda: LossScale(scale=TOO_LARGE))


def scale_of(packs: Families, name: str) -> LossScale:
    found = packs.saved(name).progress.loss_scale
    assert found is not None
    return found


def mean_gradient(packs: Families, name: str) -> float:
    """Its norm."""
    moments = packs.saved(name).moments
    return torch.cat([moments[key].flatten() for key in sorted(moments) if key.startswith("exp_avg.")]).norm().item()


def test_its_arithmetic_is_torchs_own(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loss_scale, "GROWTH_INTERVAL", 3)
    weight = nn.Parameter(torch.zeros(1))
    optimizer, scaler = torch.optim.SGD([weight]), torch.amp.GradScaler("cpu", init_scale=2.0**16, growth_interval=3)
    ours, draw = LossScale(), random.Random(16)
    for _ in range(60):
        overflows = draw.random() < 0.25
        scaler.scale(weight.sum() * (float("inf") if overflows else 1.0)).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        ours = ours.overflowed() if overflows else ours.stepped()
        assert ours.scale == scaler.get_scale()
    assert ours.skipped > 5


def test_it_trains_an_fp32_adapter_over_an_fp16_base_nearly_as_in_full_precision(packs: Families):
    drawn: dict[str, Any] = {"validation": {"prompts": ["red thing"], "num_inference_steps": 2}}
    run = packs.pack(packs.style("half", training={**FP16, "max_steps": 3}, **drawn))
    kinds = {(parameter.requires_grad, parameter.dtype) for parameter in run.model.parameters()}
    assert kinds == {(True, torch.float32), (False, torch.float16)}
    run.train()
    packs.alone("whole", training={"max_steps": 3}, **drawn)
    assert packs.losses("half") == pytest.approx(packs.losses("whole"), rel=0.01)
    assert packs.losses("half") != packs.losses("whole")
    assert scale_of(packs, "half") == LossScale(good_steps=3)
    assert mean_gradient(packs, "half") == pytest.approx(mean_gradient(packs, "whole"), rel=0.05), "unscaled: Adam hides it"
    assert len(packs.pictures("half", 3)[0]) > 0.5 * len(packs.pictures("whole", 3)[0]), "not a picture of nothing"


@pytest.mark.usefixtures("too_large")
def test_steps_that_overflow_are_skipped_and_counted_at_half_the_scale_each(packs: Families, caplog: pytest.LogCaptureFixture):
    packs.alone("skips", training={**FP16, "max_steps": 16})
    scale = scale_of(packs, "skips")
    assert 0 < scale.skipped < 16
    assert scale == LossScale(scale=TOO_LARGE / 2**scale.skipped, good_steps=16 - scale.skipped, skipped=scale.skipped)
    assert [step for step, _ in packs.saved("skips").progress.losses] == list(range(scale.skipped + 1, 17)), (
        "those of skipped steps are none"
    )
    assert sum("overflowed at a loss scale of" in record.message for record in caplog.records) == scale.skipped


@pytest.mark.usefixtures("too_large")
def test_a_skipped_step_changes_nothing_of_the_style(packs: Families):
    run = packs.pack(packs.style("skips-one", training={**FP16, "max_steps": 16}, checkpointing={"every_steps": 1000}))
    before = run.engine.weights(0, 0).clone()
    run._train_step()
    (only,) = run.members
    assert only.step == 1
    assert torch.equal(run.engine.weights(0, 0), before)
    assert all(not kept.any() for kept in run.engine.moments(0, 0).values())
    assert only.update.steps_done == 0, "the optimizer has made none"


@pytest.mark.usefixtures("too_large")
def test_a_killed_run_resumes_bit_for_bit_with_its_scale(packs: Families):
    parts: dict[str, Any] = {"training": {**FP16, "max_steps": 14}, "checkpointing": {"every_steps": 4}}
    packs.alone("straight", **parts)
    with pytest.raises(Killed):
        packs.train(packs.style("killed", **parts), recorder=dies_at(job_of("killed"), 6))
    assert packs.alone("killed", **parts).resumed_from == {job_of("killed"): 4}
    assert_same_bits(packs.saved("straight"), packs.saved("killed"))


def test_one_that_overflows_for_good_fails_by_name_and_changes_no_bit_of_another(packs: Families):
    def company(how: str, *, other: int) -> tuple[Any, Any]:
        steps = {"beside": 3, "other": other}
        return tuple(packs.style(f"{how}-{name}", training={**FP16, "max_steps": last, "seed": len(name)}) for name, last in steps.items())  # pyright: ignore[reportReturnType]

    recorder = Recorder()
    lost = company("lost", other=MOST_SKIPPED + 5)
    run = packs.pack(*lost, recorder=recorder)
    run.members[1]._scale = LossScale(scale=2.0**100)
    run.train()
    packs.train(*company("calm", other=4))
    beside, failed = (recorder.endings[style.job] for style in lost)
    assert beside == "succeeded"
    assert isinstance(failed, RunFailed)
    assert failed.reason == "FP16_OVERFLOW"
    assert f"fp16 overflowed in each of {MOST_SKIPPED} steps" in failed.message
    assert "use training.precision bf16" in failed.message
    assert_same_bits(packs.saved("calm-beside"), packs.saved("lost-beside"))


def test_one_whose_every_step_overflowed_is_no_success(packs: Families):
    recorder = Recorder()
    run = packs.pack(packs.style("never", training={**FP16, "max_steps": 2}), recorder=recorder)
    run.members[0]._scale = LossScale(scale=2.0**100)
    run.train()
    assert "in each of 2 steps" in str(recorder.endings[job_of("never")])


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"cluster": {"zero_stage": 1}}, "cluster.zero_stage 1 cuts them; use bf16"),
        ({"base_model": {"family": "zimage"}}, "activations of zimage are beyond the range of fp16; use bf16"),
        ({"base_model": {"family": "qwen_image"}}, "activations of qwen_image are beyond the range of fp16; use bf16"),
    ],
    ids=["zero", "zimage", "qwen_image"],
)
def test_what_cannot_be_trained_in_it_is_refused_where_the_spec_is_read(parts: dict[str, Any], told: str):
    fields = {"base_model": {"uri": "file:///base"}, "dataset": {"uri": "file:///data"}}
    with pytest.raises(InvalidSpec) as refused:
        spec.parse({**fields, "training": FP16, **{key: {**fields.get(key, {}), **part} for key, part in parts.items()}})
    (violation,) = refused.value.violations
    assert violation.field == "training.precision"
    assert told in violation.message
