"""Packs with `training.compile`: off on a CPU, and that is said; compiled they learn what they would eagerly, resume, stop and join."""

import logging
from typing import Any

import pytest
from torch._dynamo.testing import CompileCounterWithBackend

from tests.trainer.pack.test_pack_run import Killed, dies_at
from tests.trainer.packs import Packs, Recorder, job_of
from trainer.compilation.blocks import CompiledBlocks
from trainer.compilation.shapes import KnownShapes
from trainer.group import Group
from trainer.pack import state

pytestmark = pytest.mark.timeout(1800)
SHORT: dict[str, Any] = {"dataset": {"validation_fraction": 0.0}, "checkpointing": {"every_steps": 2}}


@pytest.fixture
def packs(tmp_path: Any, group: Group) -> Packs:
    return Packs(tmp_path, group)


def test_on_a_cpu_passes_run_eagerly_and_the_log_says_so(packs: Packs, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, logger="lorafleet.pack"):
        run = packs.pack(packs.style("a", training={"compile": "graph"}, **SHORT))
    assert run.model.compiled is None
    assert ["on a CPU" in message for message in caplog.messages if "training.compile" in message] == [True]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> CompileCounterWithBackend:
    """Compiles as on a GPU, but for the code."""
    counter = CompileCounterWithBackend("aot_eager")

    def compiled(chosen: str, denoiser: Any) -> CompiledBlocks | None:
        return None if chosen == "none" else CompiledBlocks(denoiser, KnownShapes(), counter)

    monkeypatch.setattr(state, "compiled", compiled)
    monkeypatch.setattr("trainer.pack.run.on_device", lambda asked, _: (asked, ""))
    return counter


@pytest.mark.proof
@pytest.mark.parametrize("more", [{}, {"gradient_checkpointing": True}, {"precision": "int8"}, {"precision": "nf4"}])
def test_methods_learn_in_a_compiled_pack_what_they_do_eagerly(packs: Packs, counted: CompileCounterWithBackend, more: dict[str, Any]):
    names = ("lora", "lokr", "oft", "tlora") if "precision" in more else ("lora", "dora", "loha", "oft", "tlora")
    for how in ("none", "blocks"):
        adapters: list[dict[str, Any]] = [{"method": name, "rank": 4, "target_modules": ["to_q", "conv1"]} for name in names]
        training = {"max_steps": 4, "compile": how, **more}
        company = [packs.style(f"{how}-{each['method']}", adapter=each, training=training, **SHORT) for each in adapters]
        assert set(packs.train(*company).endings.values()) == {"succeeded"}
    assert counted.frame_count
    tolerance = 1e-2 if "precision" in more else 1e-5  # in bf16
    for name in names:
        assert packs.losses(f"blocks-{name}") == pytest.approx(packs.losses(f"none-{name}"), rel=tolerance)


@pytest.mark.proof
def test_compiled_styles_train_text_are_killed_and_resume(packs: Packs, counted: CompileCounterWithBackend):
    parts: dict[str, Any] = {"adapter": {"text_encoder": True}, "training": {"max_steps": 6, "compile": "blocks"}, **SHORT}
    packs.train(packs.style("whole", **parts))
    with pytest.raises(Killed):
        packs.train(packs.style("killed", **parts), recorder=dies_at(job_of("killed"), 5))
    assert packs.train(packs.style("killed", **parts)).resumed_from == {job_of("killed"): 4}
    # Not to the bit: the first pass of each shape is eager, after a resume as well, and compiled ones round otherwise.
    assert packs.losses("killed") == pytest.approx(packs.losses("whole"), rel=1e-5)
    assert counted.frame_count


@pytest.mark.proof
def test_compiled_styles_stop_and_join(packs: Packs, counted: CompileCounterWithBackend):
    training = {"max_steps": 6, "compile": "blocks"}
    recorder = Recorder()
    recorder.stop_at[job_of("stops")] = 3
    recorder.joins_at[4] = packs.style("joins", training=training, **SHORT)
    packs.train(*(packs.style(name, training=training, **SHORT) for name in ("stays", "stops")), recorder=recorder)
    assert recorder.endings == {job_of("stops"): "stopped", job_of("stays"): "succeeded", job_of("joins"): "succeeded"}
    packs.train(packs.style("alone", training={"max_steps": 6}, **SHORT), batch_invariant=True)
    assert packs.losses("stays") == pytest.approx(packs.losses("alone"), rel=1e-5)
    assert counted.frame_count
