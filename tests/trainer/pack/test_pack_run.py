"""Packs on one worker, in this process: real model, real DeepSpeed, no Ray. Resume, isolation, NaN, precision, text encoder."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from examples.demo import PICTURES
from lorafleet.contract.layout import JobLayout
from lorafleet.errors import RunFailed
from tests.trainer.packs import Packs, Recorder, job_of
from trainer import artifact, checkpoint, eviction
from trainer.group import Group
from trainer.storage import Folder

pytestmark = pytest.mark.timeout(300)
proof = pytest.mark.proof  # equal bits in one more company, at one more stage, by one more method


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory, group: Group) -> Packs:
    return Packs(tmp_path_factory.mktemp("styles"), group)


class Killed(BaseException):
    """kill -9 in mid-run, as far as the store can tell: nothing runs after it."""


def dies_at(job: str, step: int) -> Recorder:
    recorder = Recorder()

    def die(told: str, reached: int) -> None:
        if (told, reached) == (job, step):
            raise Killed

    recorder.on_step = die
    return recorder


def assert_same_bits(ours: checkpoint.Checkpoint, theirs: checkpoint.Checkpoint) -> None:
    assert ours.progress == theirs.progress
    for mine, other in ((ours.weights, theirs.weights), (ours.moments, theirs.moments)):
        assert mine.keys() == other.keys()
        for name, tensor in mine.items():
            assert torch.equal(tensor, other[name]), name


# Alone


def test_a_pod_that_must_go_has_every_style_saved_and_resumed_elsewhere(packs: Packs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The specs' own checkpoints are far away: only what the notice makes them save can be gone on from."""
    monkeypatch.setenv("LORAFLEET_POD_DIR", str(tmp_path))
    names, parts = ("leaving-a", "leaving-b"), {"checkpointing": {"every_steps": 1000}}
    recorder = Recorder()

    def leave(_job: str, step: int) -> None:
        if step == 2:
            (tmp_path / eviction.NOTICE).touch()

    recorder.on_step = leave
    run = packs.pack(*(packs.style(name, **parts) for name in names), recorder=recorder)
    run.train()
    assert run.must_leave
    assert recorder.endings == {job_of(name): "stopped" for name in names}
    (tmp_path / eviction.NOTICE).unlink()
    resumed = packs.train(*(packs.style(name, **parts) for name in names))
    assert set(resumed.resumed_from) == {job_of(name) for name in names}
    assert all(step >= 2 for step in resumed.resumed_from.values())
    assert resumed.endings == {job_of(name): "succeeded" for name in names}


@pytest.mark.parametrize("zero_stage", [0, pytest.param(2, marks=proof), pytest.param(3, marks=proof)])
def test_a_killed_run_resumes_bit_for_bit(packs: Packs, zero_stage: int):
    parts: dict[str, Any] = {"cluster": {"zero_stage": zero_stage}, "adapter": {"dropout": 0.1}, "training": {"caption_dropout": 0.3}}
    straight, killed = f"straight-{zero_stage}", f"killed-{zero_stage}"
    packs.alone(straight, **parts)
    with pytest.raises(Killed):
        packs.train(packs.style(killed, **parts), recorder=dies_at(job_of(killed), 5))
    resumed = packs.alone(killed, **parts)
    assert resumed.resumed_from == {job_of(killed): 3}
    assert resumed.endings == {job_of(killed): "succeeded"}
    assert_same_bits(packs.saved(straight), packs.saved(killed))


def test_a_style_trains_where_no_worker_holds_its_row(packs: Packs):
    ended = packs.alone("partitioned", cluster={"zero_stage": 3}, training={"max_steps": 1})
    assert ended.endings == {job_of("partitioned"): "succeeded"}


@proof
@pytest.mark.timeout(1200)  # three trainings
@pytest.mark.parametrize("zero_stage", [2, 3])
def test_offloading_to_the_cpu_trains_alike_and_resumes_bit_for_bit(packs: Packs, zero_stage: int):
    short: dict[str, Any] = {"training": {"max_steps": 4}, "checkpointing": {"every_steps": 2}}
    parts: dict[str, Any] = {"cluster": {"zero_stage": zero_stage, "offload": "cpu"}, **short}
    kept, straight, killed = (f"{name}-offloaded-{zero_stage}" for name in ("never", "straight", "killed"))
    packs.alone(kept, cluster={"zero_stage": zero_stage}, **short)
    packs.alone(straight, **parts)
    assert packs.losses(straight) == pytest.approx(packs.losses(kept), rel=1e-5)
    with pytest.raises(Killed):
        packs.train(packs.style(killed, **parts), recorder=dies_at(job_of(killed), 3))
    assert packs.alone(killed, **parts).resumed_from == {job_of(killed): 2}
    assert_same_bits(packs.saved(straight), packs.saved(killed))


@proof
def test_a_checkpoint_of_one_zero_stage_resumes_under_another(packs: Packs):
    packs.alone("stays")
    with pytest.raises(Killed):
        packs.train(packs.style("moves", cluster={"zero_stage": 3}), recorder=dies_at(job_of("moves"), 4))
    packs.alone("moves", cluster={"zero_stage": 1})
    assert packs.losses("moves") == pytest.approx(packs.losses("stays"))


def test_weights_that_are_no_numbers_are_never_saved(packs: Packs):
    """A rate that makes the weights overflow in one step; ZeRO 1 sees no gradient of whole rows, so only they tell."""
    parts: dict[str, Any] = {"training": {"learning_rate": 10.0, "weight_decay": 3e38, "max_steps": 4}, "checkpointing": {"every_steps": 1}}
    ended = packs.alone("overflows", cluster={"zero_stage": 1}, **parts).endings[job_of("overflows")]
    assert isinstance(ended, RunFailed)
    assert ended.reason == "LOSS_NOT_FINITE"
    assert "after step 1; no checkpoint was saved before it" in ended.message
    assert checkpoint.newest(Folder(JobLayout(f"file://{packs.folder}/overflows").checkpoints), job=job_of("overflows")) is None


@pytest.mark.parametrize(
    ("poisoned_at", "every_steps", "told", "kept"),
    [
        (4, 3, "the training loss is nan at step 5; the checkpoint of step 3 is kept", 3),
        (3, 1, "the adapter's weights are not finite after step 3; the checkpoint of step 2 is kept", 2),
    ],
    ids=["between-checkpoints", "at-a-checkpoint"],
)
def test_weights_that_turn_into_no_numbers_end_the_style_and_keep_its_last_good_checkpoint(
    packs: Packs, poisoned_at: int, every_steps: int, told: str, kept: int
):
    name, recorder = f"poisoned-at-{poisoned_at}", Recorder()
    run = packs.pack(packs.style(name, checkpointing={"every_steps": every_steps}), recorder=recorder)

    def poison(_job: str, step: int) -> None:
        if step == poisoned_at:
            run.engine.banks[0].flat.data.fill_(float("nan"))

    recorder.on_step = poison
    run.train()
    ended = recorder.endings[job_of(name)]
    assert isinstance(ended, RunFailed)
    assert told in ended.message
    assert packs.saved(name).progress.step == kept
    assert all(tensor.isfinite().all() for tensor in packs.saved(name).weights.values())
    assert packs.alone(name).resumed_from == {job_of(name): kept}


@pytest.mark.proof
def test_pictures_are_drawn_under_zero_3_also_when_the_texts_were_cached(packs: Packs):
    prompts = {"prompts": ["an emoji of owl"], "num_inference_steps": 2}
    parts: dict[str, Any] = {"cluster": {"zero_stage": 3}, "validation": prompts, "training": {"max_steps": 1, "precision": "bf16"}}
    packs.alone("draws", **parts)
    packs.alone("draws-again", **parts)
    assert packs.pictures("draws", 1) == packs.pictures("draws-again", 1)
    assert len(packs.pictures("draws", 1)) == 1


def test_a_checkpoint_holds_the_trainable_state_only(packs: Packs):
    packs.alone("small", adapter={"text_encoder": True})
    saved = packs.saved("small")
    parts = {name.split(".")[0] for name in saved.weights}
    assert parts == {"unet", "text_encoder"}
    assert {".".join(name.split(".")[-2:]) for name in saved.weights} == {"lora_A.weight", "lora_B.weight"}
    assert set(saved.moments) == {f"{key}.{name}" for key in ("exp_avg", "exp_avg_sq") for name in saved.weights}


def test_bf16_trains_an_fp32_adapter_over_a_bf16_base(packs: Packs):
    run = packs.pack(packs.style("half", training={"precision": "bf16"}))
    kinds = {(parameter.requires_grad, parameter.dtype) for parameter in run.model.parameters()}
    assert kinds == {(True, torch.float32), (False, torch.bfloat16)}
    run.train()
    packs.alone("whole")
    assert packs.losses("half") == pytest.approx(packs.losses("whole"), rel=0.05)
    assert packs.losses("half") != packs.losses("whole")


def test_gradient_accumulation_is_a_larger_batch(packs: Packs):
    packs.alone("accumulated", training={"micro_batch_size": 1, "gradient_accumulation_steps": 2})
    packs.alone("at-once", training={"micro_batch_size": 2})
    assert packs.losses("accumulated") == pytest.approx(packs.losses("at-once"), rel=1e-4)


def test_a_run_that_died_after_its_commit_finds_its_artifact(packs: Packs):
    packs.alone("done")
    ready = packs.ready(packs.style("done"))
    found = artifact.existing(ready)
    assert found is not None
    assert packs.alone("done").endings == {job_of("done"): "succeeded"}
    assert artifact.existing(ready) == found, "the first commit stands"
    folder = packs.folder / "done" / "adapter"
    for path, facts in json.loads((folder / "manifest.json").read_text())["files"].items():
        assert hashlib.sha256((folder / path).read_bytes()).hexdigest() == facts["sha256"], path


def test_the_artifact_of_another_job_is_never_overwritten(packs: Packs):
    packs.alone("owner")
    other = dataclasses.replace(packs.ready(packs.style("owner")), job=job_of("thief"))
    with pytest.raises(RunFailed, match="already is the artifact of another job"):
        artifact.existing(other)


def test_a_style_stops_early_once_its_held_out_loss_has_no_new_lowest(packs: Packs):
    patient: dict[str, Any] = {
        "validation": {"every_steps": 1, "early_stopping_patience": 2},
        "training": {"learning_rate": 1e-9, "max_steps": 50},
    }
    ended = packs.alone("impatient", **patient)
    assert ended.endings == {job_of("impatient"): "succeeded"}
    assert packs.saved("impatient").progress.step < 50
    assert artifact.existing(packs.ready(packs.style("impatient", **patient))) is not None


# In company


def company(packs: Packs, prefix: str) -> list[Any]:
    """Four styles that differ in everything that may differ inside a pack."""
    return [
        packs.style(f"{prefix}-plain", training={"seed": 1}),
        packs.style(
            f"{prefix}-big", training={"seed": 2, "micro_batch_size": 3, "max_steps": 9, "learning_rate": 3e-3, "min_snr_gamma": 5.0}
        ),
        packs.style(f"{prefix}-ranked", training={"seed": 3, "lr_scheduler": "constant", "max_grad_norm": 0.01}, adapter={"rank": 1}),
        packs.style(
            f"{prefix}-dropped", training={"seed": 4, "gradient_accumulation_steps": 2, "caption_dropout": 0.5}, adapter={"dropout": 0.2}
        ),
    ]


NAMES = ("plain", "big", "ranked", "dropped")


def test_a_style_in_a_pack_learns_what_it_would_alone(packs: Packs):
    assert set(packs.train(*company(packs, "together")).endings.values()) == {"succeeded"}
    for style in company(packs, "apart"):
        packs.train(style)
    for name in NAMES:
        assert packs.losses(f"together-{name}") == pytest.approx(packs.losses(f"apart-{name}"), rel=1e-5)
        ours, theirs = (
            torch.cat([t.flatten() for _, t in sorted(packs.adapter(f"{how}-{name}").items())]) for how in ("together", "apart")
        )
        assert torch.cosine_similarity(ours, theirs, dim=0) > 0.99999


def test_styles_of_one_kind_have_their_own_dropout_whatever_their_micro_batches(packs: Packs):
    """They share a bank, but lie in different places of a pass."""
    sizes = {1: 2, 4: 1}
    styles = {
        how: [
            packs.style(
                f"dropout-{how}-{seed}", training={"seed": seed, "micro_batch_size": size, "max_steps": 1}, adapter={"dropout": 0.3}
            )
            for seed, size in sizes.items()
        ]
        for how in ("pack", "alone")
    }
    assert set(packs.train(*styles["pack"]).endings.values()) == {"succeeded"}
    for style in styles["alone"]:
        packs.train(style)
    for seed in sizes:
        assert packs.losses(f"dropout-pack-{seed}") == pytest.approx(packs.losses(f"dropout-alone-{seed}"), rel=1e-5)


@proof
def test_in_company_a_style_has_the_same_bits_whoever_is_with_it(packs: Packs):
    packs.train(*company(packs, "all"))
    pairs = company(packs, "pair")
    packs.train(pairs[0], pairs[3])
    packs.train(pairs[1], batch_invariant=True)
    packs.train(pairs[2], batch_invariant=True)
    for name in NAMES:
        assert_same_bits(packs.saved(f"all-{name}"), packs.saved(f"pair-{name}"))


def test_what_ends_one_style_changes_no_bit_of_another(packs: Packs):
    """One diverges, one has a folder of another job, one is cancelled, one ends early; then the driver is killed."""
    packs.train(*company(packs, "calm"))
    troubled = [
        *company(packs, "storm"),
        packs.style("storm-nan", training={"learning_rate": 10.0, "weight_decay": 3e38, "max_grad_norm": 0.0}),
        packs.style("storm-cancelled", training={"seed": 7}),
        packs.style("storm-early", training={"seed": 8, "max_steps": 2}),
    ]
    killed = dies_at(job_of("storm-big"), 8)
    killed.stop_at = {job_of("storm-cancelled"): 4}
    with pytest.raises(Killed):
        packs.train(*troubled, recorder=killed)
    assert killed.endings[job_of("storm-early")] == "succeeded"
    assert killed.endings[job_of("storm-cancelled")] == "stopped"
    nan = killed.endings[job_of("storm-nan")]
    assert isinstance(nan, RunFailed)
    assert nan.reason == "LOSS_NOT_FINITE"
    assert packs.saved("storm-cancelled").progress.step == 4

    unfinished = [style for style in troubled[:4] if killed.endings.get(style.job) != "succeeded"]
    assert unfinished
    assert set(packs.train(*unfinished, batch_invariant=True).endings.values()) == {"succeeded"}
    for name in NAMES:
        assert_same_bits(packs.saved(f"calm-{name}"), packs.saved(f"storm-{name}"))


@proof
def test_a_style_that_joins_later_trains_as_if_it_had_been_there(packs: Packs):
    first = company(packs, "joined")
    recorder = Recorder()
    recorder.joins_at = {3: first[3]}
    assert set(packs.train(*first[:3], recorder=recorder).endings) == {style.job for style in first}
    packs.train(*company(packs, "present"))
    for name in NAMES:
        assert_same_bits(packs.saved(f"joined-{name}"), packs.saved(f"present-{name}"))


def test_a_style_whose_pictures_go_away_leaves_before_the_first_step(packs: Packs, tmp_path: Path):
    rows = (PICTURES / "metadata.jsonl").read_text().splitlines()[:8]
    (tmp_path / "metadata.jsonl").write_text("\n".join(rows))
    names = [json.loads(row)["file_name"] for row in rows]
    for name in names:
        (tmp_path / name).write_bytes((PICTURES / name).read_bytes())
    good, bad = packs.style("keeps"), packs.style("spoilt", dataset={"uri": f"file://{tmp_path}"})
    ready = [packs.ready(good), packs.ready(bad)]
    (tmp_path / names[3]).unlink()  # between its preparation and its encoding
    recorder = Recorder()
    packs.run(ready, recorder=recorder).train()
    assert recorder.endings[good.job] == "succeeded"
    assert isinstance(recorder.endings[bad.job], RunFailed)


@proof
def test_warm_parts_serve_the_next_pack_as_if_new(packs: Packs):
    packs.train(packs.style("cold"))
    run = packs.pack(packs.style("first", adapter={"method": "dora", "target_modules": ["to_k", "conv1"]}))
    run.train()
    packs.train(packs.style("warm"), base=run.base)
    assert_same_bits(packs.saved("cold"), packs.saved("warm"))
