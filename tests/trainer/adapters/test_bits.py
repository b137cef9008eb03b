"""A slot's outputs and gradients have the same bits whoever is in the batch with it, by every method, on every kind of layer."""

import pytest
import torch
from torch import Tensor

from lorafleet import catalog, spec
from tests.trainer.adapters.test_adapters import model_of
from tests.trainer.adapters.test_lycoris import Net, adapter
from trainer.adapters.bank import ActiveSlots, Bank
from trainer.adapters.layout import Kind, initial_row, scaling
from trainer.keyed import Key

ROWS_EACH = 4
NAMES = [name for name in catalog.METHODS.names() if not name.startswith("toy")]


def wide() -> Net:
    """Of sides that fill whole cache lines, as published models have them: of others not even LoRA's gradients are so."""
    torch.manual_seed(0)
    return Net(16, 48, 32, 64, 80).requires_grad_(False)


def rows_of(bank: Bank, layers: dict[str, torch.nn.Linear | torch.nn.Conv2d], asked: spec.AdapterSpec, count: int) -> None:
    for number in range(count):
        row = initial_row(bank.layout, bank.method, Key(number, "style"), layers)
        bank.add_style(row + 0.1 * torch.randn(row.shape, generator=torch.Generator().manual_seed(number)), scaling(asked))


def computed(asked: spec.AdapterSpec, slots: list[int], x: Tensor, idle: tuple[int, ...] = ()) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs of these slots of a bank of five, each with its own rows of `x`, and gradients of theirs and of idle ones."""
    model = model_of(wide())
    kind = Kind.of(asked, "adamw")
    bank = model.add_bank(kind, 5, batch_invariant=True)
    rows_of(bank, model.layers_of(kind), asked, 5)
    mine = torch.cat([x[slot * ROWS_EACH : (slot + 1) * ROWS_EACH] for slot in slots])
    padded = torch.cat([mine, mine[:1].expand(max(16 - len(mine), -len(mine) % 4), *mine.shape[1:])])
    with model.serving([ActiveSlots(bank, [*slots, *idle], 0, ROWS_EACH, is_paired=bool(idle))]):
        out = model.get_submodule("unet")(padded, timestep=torch.arange(len(padded)) % ROWS_EACH * 250)
    out[: len(mine)].sin().sum().backward()
    assert bank.flat.grad is not None
    return list(out[: len(mine)].detach().split(ROWS_EACH)), [bank.flat.grad[slot] for slot in (*slots, *idle)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rank", [1, 2, 5])
def test_a_slot_computes_the_same_bits_in_any_company(name: str, rank: int):
    asked = adapter(name, rank)
    x = torch.randn(5 * ROWS_EACH, 16, 16, 16, generator=torch.Generator().manual_seed(9))
    known = computed(asked, [0, 1, 2, 3, 4], x)
    for slots in ([0, 1], [1, 2], [2, 3, 4], [4, 1]):
        found = computed(asked, slots, x)
        for place, slot in enumerate(slots):
            assert torch.equal(found[0][place], known[0][slot]), (slots, slot, "outputs")
            assert torch.equal(found[1][place], known[1][slot]), (slots, slot, "gradient")


@pytest.mark.parametrize("name", NAMES)
def test_a_slot_paired_in_the_layer_computes_the_same_bits_as_in_company(name: str):
    """Of its rows alone, at once with whoever else is in the batch: what it is paired with has no rows there, and learns nothing."""
    asked = adapter(name, 4)
    x = torch.randn(5 * ROWS_EACH, 16, 16, 16, generator=torch.Generator().manual_seed(9))
    known = computed(asked, [0, 1, 2, 3, 4], x)
    for slot, idle in ((0, 1), (3, 2)):
        (output,), (gradient, none) = computed(asked, [slot], x, idle=(idle,))
        assert torch.equal(output, known[0][slot]), (slot, "outputs")
        assert torch.equal(gradient, known[1][slot]), (slot, "gradient")
        assert not none.any(), "the idle slot may be another style's"


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_number_in_a_paired_slot_does_not_enter_the_idle_one(name: str):
    x = torch.full((5 * ROWS_EACH, 16, 16, 16), torch.nan)
    _, (_, none) = computed(adapter(name, 4), [0], x, idle=(1,))
    assert not none.any()
