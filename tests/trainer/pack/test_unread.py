"""Losses that are read steps later, as on a GPU: every style is told the same, and one that went wrong leaves as it would at once."""

import math
from typing import Any

import pytest
import torch

from lorafleet.errors import RunFailed
from tests.trainer.packs import Packs, Recorder, job_of
from trainer.group import Group
from trainer.pack import unread
from trainer.pack.run import PackRun
from trainer.pack.unread import MOST_S, Launched, Unread

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory, group: Group) -> Packs:
    return Packs(tmp_path_factory.mktemp("styles"), group)


class Curves(Recorder):
    """Remembers each loss with its step, as it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[int, float, float]] = []

    def progress(self, job: str, **changes: Any) -> None:
        super().progress(job, **changes)
        if "loss" in changes:
            self.told.append((changes["step"], changes["loss"], changes["learning_rate"]))


def late(packs: Packs, recorder: Recorder, *names: str, most_steps: int = 4, **parts: dict[str, Any]) -> PackRun:
    run = packs.pack(*(packs.style(name, **parts) for name in names), recorder=recorder)
    run.unread.most_steps = most_steps
    return run


@pytest.mark.proof
def test_what_is_read_late_is_told_as_it_would_have_been_at_once(packs: Packs):
    at_once, later = Curves(), Curves()
    parts: dict[str, Any] = {"training": {"max_steps": 7}, "checkpointing": {"every_steps": 5}}
    packs.train(packs.style("at-once", **parts), recorder=at_once)
    late(packs, later, "later", **parts).train()
    assert later.endings == {job_of("later"): "succeeded"}
    assert [step for step, _, _ in later.told] == list(range(1, 8))
    assert later.told == at_once.told
    assert packs.saved("later").progress == packs.saved("at-once").progress
    for name, tensor in packs.adapter("at-once").items():
        assert torch.equal(packs.adapter("later")[name], tensor), name


def test_the_host_reads_nothing_between_two_readings(packs: Packs, monkeypatch: pytest.MonkeyPatch):
    run, read = late(packs, Recorder(), "seldom-read", training={"max_steps": 7}, checkpointing={"every_steps": 5}), list[int]()
    reads = run.unread.read

    def counting(group: Group):
        found = reads(group)
        read.extend(len(steps) for steps in found.values())
        return found

    monkeypatch.setattr(run.unread, "read", counting)
    monkeypatch.setattr(unread, "MOST_S", math.inf)  # on a busy machine four steps take longer
    run.train()
    assert read == [4, 1, 2]  # full, before a checkpoint, at the end


def test_a_style_that_went_wrong_is_told_by_its_step_and_changes_no_bit_of_its_neighbour(packs: Packs):
    parts: dict[str, Any] = {"checkpointing": {"every_steps": 2}}
    packs.train(packs.style("neighbour-unharmed", **parts), packs.style("of-no-matter", **parts))
    recorder = Recorder()
    run = late(packs, recorder, "neighbour", "wrong", most_steps=100, **parts)
    steps, train_step = 0, run._train_step

    def poisoned() -> None:
        nonlocal steps
        steps += 1
        if steps == 3:
            bank, slot = run.pack.place(run.members[1])
            run.engine.banks[bank].flat.data[slot] = float("nan")
        train_step()

    run._train_step = poisoned
    run.train()
    ended = recorder.endings[job_of("wrong")]
    assert isinstance(ended, RunFailed)
    assert ended.reason == "LOSS_NOT_FINITE"
    assert "the training loss is nan at step 3; the checkpoint of step 2 is kept" in ended.message
    assert recorder.failed_after == {job_of("wrong"): 2}
    assert recorder.endings[job_of("neighbour")] == "succeeded"
    for name, tensor in packs.adapter("neighbour-unharmed").items():
        assert torch.equal(packs.adapter("neighbour")[name], tensor), name


def test_a_style_that_is_told_to_stop_saves_all_its_steps(packs: Packs):
    recorder = Recorder()
    run = late(packs, recorder, "stops", most_steps=100, training={"max_steps": 50}, checkpointing={"every_steps": 40})
    steps, train_step = 0, run._train_step

    def counted() -> None:
        nonlocal steps
        train_step()
        steps += 1
        if steps == 3:
            recorder.stop_at, recorder.steps = {job_of("stops"): 0}, {job_of("stops"): 0}

    run._train_step = counted
    run.train()
    assert recorder.endings == {job_of("stops"): "stopped"}
    assert [step for step, _ in packs.saved("stops").progress.losses] == [1, 2, 3]


def test_a_step_that_takes_long_is_not_kept_from_those_who_watch():
    now = 0.0
    unread = Unread(torch.device("meta"), lambda: now)
    assert not unread.is_old
    unread.add(Launched(parts=[], passes=[], finite=[], began_s=now))
    assert not unread.is_full
    assert not unread.is_old
    now = MOST_S
    assert unread.is_old
