"""Which passes go by graphs: none on a CPU, which is said; elsewhere those of few shapes, each from its second pass on."""

import logging

import pytest
import torch

from lorafleet.spec import AdapterSpec
from trainer.adapters.bank import ActiveSlots, Bank
from trainer.adapters.layout import Kind, Layout
from trainer.compilation.choice import compiled
from trainer.compilation.shapes import KnownShapes, PassShape, on_device


def shape(rows: int = 4, side: int = 8, slots: tuple[int, ...] = (0, 1), bank: Bank | None = None, tokens: int = 77) -> PassShape:
    active = ActiveSlots(bank or bank_of(), slots, 0, rows // len(slots))
    return PassShape.of([active], torch.empty(rows, 4, side, side), {"text": torch.empty(rows, tokens, 3)})


def bank_of(capacity: int = 4) -> Bank:
    return Bank(Kind.of(AdapterSpec(), "adamw"), Layout(()), capacity, batch_invariant=False)


@pytest.mark.parametrize("asked", ["blocks", "graph"])
def test_on_a_cpu_it_is_off_and_that_is_said(asked: str):
    chosen, said = on_device(asked, "cpu")  # pyright: ignore[reportArgumentType]
    assert chosen == "none"
    assert asked in said
    assert "CPU" in said
    assert compiled(chosen, torch.nn.Linear(1, 1)) is None
    assert on_device(asked, "cuda") == (asked, "")  # pyright: ignore[reportArgumentType]
    assert on_device("none", "cpu") == ("none", "")


def test_passes_of_one_shape_differ_in_numbers_alone():
    bank = bank_of()
    known = shape(bank=bank)
    assert known == shape(bank=bank, slots=(2, 3)), "which slots they are is read on the device"
    others = [shape(rows=8, bank=bank), shape(side=16, bank=bank), shape(bank=bank, tokens=154), shape(), shape(bank=bank, slots=(0,))]
    assert known not in others
    assert shape(bank=bank, slots=(0, 1, 2, 3)) != shape(bank=bank, slots=(3, 2, 1, 0)), "all, in their order, are read where they lie"


def test_a_shape_has_a_graph_from_its_second_pass_on_and_few_have_one(caplog: pytest.LogCaptureFixture):
    shapes, bank = KnownShapes(most=2), bank_of()
    first, second, third = (shape(side=side, bank=bank) for side in (8, 16, 24))
    with caplog.at_level(logging.WARNING):
        assert [shapes.takes(each) for each in (first, second, first, second, first)] == [False, False, True, True, True]
        assert not caplog.messages
        assert not any(shapes.takes(third) for _ in range(3))
    assert len(caplog.messages) == 1, "it is said once"
    shapes.forget()
    assert [shapes.takes(third) for _ in range(2)] == [False, True]
