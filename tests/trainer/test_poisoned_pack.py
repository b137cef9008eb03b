"""A pack with styles that break in every place where a style acts: each ends alone, and the good ones in the same attempt."""

import dataclasses
import json
from typing import Any

import pytest
import torch

from lorafleet.contract.layout import MANIFEST
from lorafleet.errors import RunFailed
from tests.trainer.packs import Packs, Recorder, job_of
from tests.trainer.poisons import Poisons
from trainer import artifact
from trainer.group import Group
from trainer.pack import evaluation
from trainer.prepare.style import PreparedStyle

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory, group: Group) -> Packs:
    return Packs(tmp_path_factory.mktemp("styles"), group)


@pytest.fixture(scope="module")
def few(packs: Packs) -> Poisons:
    """Styles of four small pictures."""
    return Poisons(packs, packs.folder / "poisons")


def with_checkpoint(packs: Packs, name: str, manifest: str) -> None:
    """What whoever may write to the output's folder can leave there."""
    folder = packs.folder / name / "checkpoints" / "step-00000001"
    folder.mkdir(parents=True)
    (folder / MANIFEST).write_text(manifest)


def test_whatever_breaks_where_ends_its_style_alone(packs: Packs, few: Poisons, monkeypatch: pytest.MonkeyPatch):
    names = ("good", "joins", "evaluates", "exports", "records", "resumes", "forgets")
    styles = {name: few.good(name) for name in names} | {"good": few.good("good", training={"max_steps": 5})}
    with_checkpoint(packs, "resumes", "[" * 100_000)
    with_checkpoint(packs, "joins", json.dumps({"format": "lorafleet-checkpoint-1", "files": {}}))
    ready = {name: packs.ready(style) for name, style in styles.items() if name != "joins"}
    ready["forgets"] = dataclasses.replace(ready["forgets"], output_uri="nowhere")  # no address at all
    _break(monkeypatch, ready)

    recorder = Recorder()
    recorder.joins_at = {1: styles["joins"]}
    packs.run(list(ready.values()), recorder=recorder).train()

    assert recorder.endings.pop(job_of("good")) == "succeeded"
    assert set(recorder.endings) == {job_of(name) for name in styles if name != "good"}
    said = {job.rpartition("/")[2]: error for job, error in recorder.endings.items()}
    assert all(isinstance(error, RunFailed) and not error.retryable for error in said.values()), said
    for name, words in {
        "evaluates": "RecursionError: too deep",
        "exports": "OverflowError: too large",
        "records": "MemoryError",
        "resumes": "manifest.json is nested 100000 levels deep",
        "joins": "manifest.json names other files than a checkpoint has",
    }.items():
        assert words in str(said[name]), name


def _break(monkeypatch: pytest.MonkeyPatch, ready: dict[str, PreparedStyle]) -> None:
    """Faults in the middle of collective work, which no input that we know of can cause."""
    evaluating, committing = evaluation.held_out_loss, artifact.commit

    def evaluates(*args: Any, **named: Any) -> Any:
        if args[1].job == job_of("evaluates"):
            raise RecursionError("too deep")
        return evaluating(*args, **named)

    def commits(style: PreparedStyle, *args: Any) -> Any:
        if style.job == job_of("exports"):
            raise OverflowError("too large")
        return committing(style, *args)

    monkeypatch.setattr(evaluation, "held_out_loss", evaluates)
    monkeypatch.setattr(artifact, "commit", commits)
    from trainer.pack.member import Member

    drawing = Member.draw

    def draws(member: Member, **where: int) -> None:
        if member.job == job_of("records"):
            raise MemoryError
        drawing(member, **where)

    monkeypatch.setattr(Member, "draw", draws)


def test_a_base_that_cannot_be_loaded_fails_each_style_by_its_own_address(packs: Packs, few: Poisons, monkeypatch: pytest.MonkeyPatch):
    from trainer.frozen_base import FrozenBase
    from trainer.loop import WarmWorker

    def breaks(_base: FrozenBase, **_how: bool) -> None:
        raise ValueError("odd weights")

    monkeypatch.setattr(FrozenBase, "load", breaks)
    mine, theirs = packs.ready(few.good("mine")), packs.ready(few.good("theirs"))
    theirs = dataclasses.replace(theirs, base=dataclasses.replace(theirs.base, uri="s3://theirs/base"))
    recorder: Any = Recorder()
    assert WarmWorker(packs.group)._base([mine, theirs], torch.device("cpu"), recorder) is None
    assert str(recorder.endings[job_of("theirs")]).startswith("loading base_model.uri: s3://theirs/base: ValueError: odd weights")
    assert "s3://theirs" not in str(recorder.endings[job_of("mine")])
