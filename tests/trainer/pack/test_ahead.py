"""Steps that a thread makes ahead, as on a GPU: the same bits, each error its style's, little memory, and no thread that stays."""

import threading
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from lorafleet.errors import RunFailed
from tests.trainer.pack.test_pack_run import assert_same_bits
from tests.trainer.packs import Packs, Recorder, job_of
from trainer.group import Group
from trainer.objectives.draws import Draw
from trainer.pack import ahead
from trainer.pack.batch import gathered
from trainer.pack.member import Member
from trainer.pack.run import PackRun

pytestmark = pytest.mark.timeout(600)
PARTS: dict[str, Any] = {"training": {"max_steps": 5}, "dataset": {"validation_fraction": 0.0}}


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory, group: Group) -> Packs:
    return Packs(tmp_path_factory.mktemp("ahead"), group)


@pytest.fixture
def run(packs: Packs) -> PackRun:
    accumulating = {"training": {"max_steps": 5, "gradient_accumulation_steps": 6}, "dataset": {"validation_fraction": 0.0}}
    run = packs.pack(packs.style("one", **accumulating), packs.style("other", **accumulating))
    assert not run.ahead.is_on, "on a CPU the thread would take what the step computes with"
    run.ahead.is_on = True
    return run


def has_thread() -> bool:
    return any(thread.name.startswith("ahead") for thread in threading.enumerate())


def fails(member: Member, monkeypatch: pytest.MonkeyPatch, *, from_step: int = 0) -> None:
    noised = member.noised

    def broken(examples: Sequence[Draw]) -> Any:
        if examples[0].step >= from_step:
            raise ValueError("no such latents")
        return noised(examples)

    monkeypatch.setattr(member, "noised", broken)


def test_what_was_made_ahead_is_what_the_foreground_makes_and_few_passes_are_held(run: PackRun):
    seats = run._seats(run.members, steps_later=1)
    run.ahead.begin(seats)
    staged = run.ahead.take(seats)
    run.ahead.close()
    assert not has_thread()
    assert staged is not None
    assert len(staged.batches) == ahead.MOST_PASSES < len(staged.plan)
    for member in run.members:
        member.drawn = list(member.draws(member.step + 1, rank=0, world_size=1))
    for each, batch in zip(run._passes(run.members), staged.batches, strict=False):
        expected = gathered(each, run.members, run.base.family)
        assert batch.captions == expected.captions
        assert all(torch.equal(batch.tensors[name], tensor) for name, tensor in expected.tensors.items())


def test_what_was_made_for_others_is_not_taken_and_a_last_step_has_none_after_it(run: PackRun):
    run.ahead.begin(run._seats(run.members))
    assert run.ahead.take(run._seats(run.members[:1])) is None, "one has left meanwhile"
    assert run.ahead.take(run._seats(run.members)) is None, "it is there once"
    run.ahead.begin(run._seats(run.members, steps_later=5))
    assert not has_thread() or run.ahead.take(run._seats(run.members, steps_later=5)) is None
    run.ahead.close()


def test_an_error_of_the_thread_is_of_the_style_whose_rows_it_drew(run: PackRun, monkeypatch: pytest.MonkeyPatch):
    one, other = run.members
    fails(other, monkeypatch)
    run.ahead.begin(run._seats(run.members))
    staged = run.ahead.take(run._seats(run.members))
    run.ahead.close()
    assert staged is not None
    staged.give(one)
    with pytest.raises(ValueError, match="no such latents"):
        staged.give(other)


@pytest.mark.proof
def test_with_steps_made_ahead_a_style_has_the_same_bits_also_when_others_stop_and_fail(packs: Packs, monkeypatch: pytest.MonkeyPatch):
    names, recorder = ("stays", "stops", "fails"), Recorder()
    recorder.stop_at[job_of("stops")] = 2
    run = packs.pack(*(packs.style(name, **PARTS) for name in names), recorder=recorder)
    run.ahead.is_on = True
    taken = []
    take = run.ahead.take
    monkeypatch.setattr(run.ahead, "take", lambda seats: taken.append(take(seats)) or taken[-1])
    fails(run.members[2], monkeypatch, from_step=3)
    run.train()
    assert not has_thread()
    assert sum(each is not None for each in taken) >= 3
    ended = recorder.endings
    assert (ended[job_of("stays")], ended[job_of("stops")]) == ("succeeded", "stopped")
    assert isinstance(ended[job_of("fails")], RunFailed)
    assert recorder.failed_after[job_of("fails")] == 3
    packs.train(packs.style("alone", **PARTS), batch_invariant=True)
    assert_same_bits(packs.saved("stays"), packs.saved("alone"))
