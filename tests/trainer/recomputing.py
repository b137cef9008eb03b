"""Trains the same styles with their blocks recomputed and with all kept, for tests: both must end with the same bits."""

from collections.abc import Callable
from typing import Any

import pytest

from lorafleet.contract.run_manifest import Style
from tests.trainer.pack.test_pack_run import Killed, assert_same_bits, dies_at
from tests.trainer.packs import Packs, job_of
from trainer.adapters import recomputation

RECOMPUTES = {"gradient_checkpointing": True}
Styles = Callable[..., Style]  # (name, **parts of its spec)
# What a block must find as it was when it is computed again: whose rows are whose, dropout, several banks and passes.
DIFFERENT: tuple[dict[str, dict[str, Any]], ...] = (
    {"training": {"seed": 1}, "adapter": {"dropout": 0.3}},
    {"training": {"seed": 2, "micro_batch_size": 3, "gradient_accumulation_steps": 2}, "adapter": {"dropout": 0.3}},
    {"training": {"seed": 3, "caption_dropout": 0.5}, "adapter": {"rank": 3}},
)


def assert_same_in_a_pack(packs: Packs, style: Styles, monkeypatch: pytest.MonkeyPatch, *, steps: int = 2, **parts: Any) -> None:
    """`parts`: what else the styles have in common."""
    for how, chosen in (("kept", {}), ("recomputed", RECOMPUTES)):
        company = [
            style(f"{how}-{number}", **_merged(parts, each, {"training": {"max_steps": steps, **chosen}}))
            for number, each in enumerate(DIFFERENT)
        ]
        num_blocks = _counted(monkeypatch)
        assert set(packs.train(*company).endings.values()) == {"succeeded"}
        assert bool(num_blocks) == bool(chosen), "blocks are recomputed where that is asked for, and nowhere else"
    for number in range(len(DIFFERENT)):
        assert_same_bits(packs.saved(f"kept-{number}"), packs.saved(f"recomputed-{number}"))


def assert_resumes(packs: Packs, style: Styles, **parts: Any) -> None:
    """Killed while blocks were recomputed, and gone on with in either way, it ends as one that kept all and was never killed."""
    parts = _merged(parts, {"training": {"max_steps": 4}, "adapter": {"dropout": 0.1}, "checkpointing": {"every_steps": 2}})
    packs.train(style("straight", **parts))
    for name, then in (("killed", RECOMPUTES), ("killed-and-kept", {})):
        with pytest.raises(Killed):
            packs.train(style(name, **_merged(parts, {"training": RECOMPUTES})), recorder=dies_at(job_of(name), 3))
        assert packs.train(style(name, **_merged(parts, {"training": then}))).resumed_from == {job_of(name): 2}
        assert_same_bits(packs.saved("straight"), packs.saved(name))


def _counted(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Gets an entry for each block that is to be recomputed."""
    blocks: list[object] = []
    checkpoint = recomputation.checkpoint

    def counted(block: object, *inputs: Any, **how: Any) -> Any:
        blocks.append(block)
        return checkpoint(block, *inputs, **how)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(recomputation, "checkpoint", counted)
    return blocks


def _merged(*parts: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    names = {name for each in parts for name in each}
    return {name: {field: value for each in parts for field, value in each.get(name, {}).items()} for name in names}
