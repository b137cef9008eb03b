"""The stacked adapters against PEFT's, one by one: same outputs and same gradients; and the optimizer against torch's."""

import itertools
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from lorafleet import spec
from trainer.adapters.bank import ActiveSlots, Bank
from trainer.adapters.layout import Kind, initial_row, scaling
from trainer.adapters.model import PackModel
from trainer.families import family
from trainer.keyed import Key
from trainer.optimizers.protocol import StyleUpdate
from trainer.optimizers.stacked import StackedOptimizer


class Net(nn.Module):
    """Every kind of layer that an adapter is put on."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.pointwise = nn.Conv2d(8, 6, 1, bias=False)
        self.linear = nn.Linear(6, 5)
        self.out = nn.Linear(5, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.pointwise(self.conv(x).relu()).flatten(2).mT  # (rows, tokens, 6)
        return self.out(self.linear(h).relu())


TARGETS = ("conv", "pointwise", "linear", "out")


def net() -> Net:
    torch.manual_seed(0)
    return Net().double().requires_grad_(False)


def model_of(unet: nn.Module) -> PackModel:
    return PackModel(family("sd1"), {"unet": unet}, trains_text=False)


def adapter(method: str, rank: int) -> spec.AdapterSpec:
    return spec.AdapterSpec(method=method, rank=rank, alpha=3.0, target_modules=TARGETS)  # pyright: ignore[reportArgumentType]


def filled_bank(model: PackModel, specs: list[spec.AdapterSpec]) -> tuple[Bank, list[Tensor]]:
    """A bank with random adapters, which are answered too."""
    kind = Kind.of(specs[0], "adamw")
    bank = model.add_bank(kind, len(specs), batch_invariant=False).double()
    rows = []
    for number, each in enumerate(specs):
        row = initial_row(bank.layout, bank.method, Key(number, "style"), model.layers_of(kind)).double()
        row = row + 0.1 * torch.randn(row.shape, generator=torch.Generator().manual_seed(number), dtype=torch.float64)
        bank.add_style(row, scaling(each))
        rows.append(row)
    return bank, rows


def pefts(method: str, rank: int, named: dict[str, Tensor], model: nn.Module | None = None) -> nn.Module:
    """PEFT's model with the same adapter."""
    config = LoraConfig(
        r=rank,
        lora_alpha=3,
        target_modules=list(TARGETS),
        use_rslora=method == "rslora",
        use_dora=method == "dora",
    )
    model = inject_adapter_in_model(config, net() if model is None else model).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                canonical = name.replace(".default", "")
                if "magnitude" in canonical:
                    canonical = canonical.removesuffix(".weight")
                parameter.copy_(named[f"unet.{canonical}"].view_as(parameter))
    return model


@pytest.mark.parametrize(("method", "rows_each"), itertools.product(["lora", "rslora", "dora"], [1, 3]))
def test_stacked_adapters_compute_what_peft_computes_one_by_one(method: str, rows_each: int):
    model = model_of(net()).double()
    bank, rows = filled_bank(model, [adapter(method, 2)] * 3)
    x = torch.randn(3 * rows_each + 1, 3, 8, 8, dtype=torch.float64)  # the last row is padding
    with model.serving([ActiveSlots(bank, [0, 1, 2], 0, rows_each)]):
        out = model.get_submodule("unet")(x)
    (out.pow(2).sum()).backward()
    assert torch.allclose(out[-1:], net()(x[-1:]))
    for slot, row in enumerate(rows):
        theirs = pefts(method, 2, bank.layout.named(row))
        mine = x[slot * rows_each : (slot + 1) * rows_each]
        expected = theirs(mine)
        expected.pow(2).sum().backward()
        assert torch.allclose(out[slot * rows_each : (slot + 1) * rows_each], expected)
        assert bank.flat.grad is not None
        gradient = bank.layout.named(bank.flat.grad[slot])
        for name, parameter in theirs.named_parameters():
            if parameter.requires_grad:
                canonical = f"unet.{name.replace('.default', '')}"
                canonical = canonical.removesuffix(".weight") if "magnitude" in canonical else canonical
                assert parameter.grad is not None
                assert torch.allclose(gradient[canonical].view_as(parameter.grad), parameter.grad), name


def test_banks_of_different_ranks_share_a_batch():
    model = model_of(net()).double()
    small, small_rows = filled_bank(model, [adapter("lora", 1)] * 2)
    large, large_rows = filled_bank(model, [adapter("dora", 3)])
    x = torch.randn(7, 3, 8, 8, dtype=torch.float64)
    with model.serving([ActiveSlots(small, [0, 1], 0, 2), ActiveSlots(large, [0], 4, 2)]):
        out = model.get_submodule("unet")(x)
    for start, method, rank, named in (
        (0, "lora", 1, small.layout.named(small_rows[0])),
        (2, "lora", 1, small.layout.named(small_rows[1])),
        (4, "dora", 3, large.layout.named(large_rows[0])),
    ):
        assert torch.allclose(out[start : start + 2], pefts(method, rank, named)(x[start : start + 2]))
    assert torch.allclose(out[6:], net()(x[6:]))


def test_a_new_adapter_is_the_base():
    model = model_of(net()).double()
    for method in ("lora", "rslora", "dora"):
        kind = Kind.of(adapter(method, 2), "adamw")
        bank = model.add_bank(kind, 1, batch_invariant=False).double()
        bank.add_style(initial_row(bank.layout, bank.method, Key(0, "s"), model.layers_of(kind)).double(), 1.0)
        x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
        with model.serving([ActiveSlots(bank, [0])]):
            assert torch.allclose(model.get_submodule("unet")(x), net()(x), atol=1e-6)  # DoRA's magnitude is the base's norm in float32
        assert torch.equal(model.get_submodule("unet")(x), net()(x)), "outside of a pass nobody is served"
    model.strip()
    assert [type(module) for module in model.get_submodule("unet").modules()] == [type(module) for module in net().modules()]


def test_an_adapted_layer_answers_as_the_frozen_one():
    """Pipelines ask layers of a UNet for their sizes."""
    model = model_of(net())
    model.add_bank(Kind.of(adapter("lora", 2), "adamw"), 1, batch_invariant=False)
    adapted: Any = model.get_submodule("unet")
    assert (adapted.linear.in_features, adapted.linear.out_features, adapted.conv.stride) == (6, 5, (2, 2))
    assert adapted.out.weight is adapted.out.base.weight
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = adapted.linear.no_such_thing


def test_each_row_is_updated_as_torchs_adamw_with_clipping_would():
    model = model_of(net().float())
    bank = model.add_bank(Kind.of(adapter("lora", 2), "adamw"), 2, batch_invariant=False)
    settings: list[dict[str, Any]] = [
        {"learning_rate": 1e-2, "max_grad_norm": 0.5, "weight_decay": 0.1},
        {"learning_rate": 3e-3, "max_grad_norm": 0.0, "adam_beta1": 0.5, "adam_epsilon": 1e-4},
    ]
    specs = [spec.OptimizationSpec(**each) for each in settings]
    rows = [torch.randn(bank.layout.size) for _ in specs]
    for row in rows:
        bank.add_style(row, 1.0)
    ours = StackedOptimizer([bank], clips=True)
    theirs = [nn.Parameter(row.clone()) for row in rows]
    optimizers = [
        torch.optim.AdamW([p], lr=s.learning_rate, betas=(s.adam_beta1, s.adam_beta2), eps=s.adam_epsilon, weight_decay=s.weight_decay)
        for p, s in zip(theirs, specs, strict=True)
    ]
    for step in range(4):
        bank.flat.grad = torch.randn(2, bank.layout.size)
        for slot, (parameter, each, optimizer) in enumerate(zip(theirs, specs, optimizers, strict=True)):
            parameter.grad = bank.flat.grad[slot].clone()
            if each.max_grad_norm:
                torch.nn.utils.clip_grad_norm_([parameter], each.max_grad_norm)
            optimizer.step()
        ours.param_groups[0]["updates"] = [StyleUpdate(each, each.learning_rate, step) for each in specs]
        ours.step()
        for slot, parameter in enumerate(theirs):
            assert torch.allclose(bank.flat[slot], parameter, rtol=1e-5, atol=1e-7)


def test_a_gradient_that_is_no_number_stays_in_its_row_and_moves_nothing():
    model = model_of(net().float())
    bank = model.add_bank(Kind.of(adapter("lora", 2), "adamw"), 2, batch_invariant=False)
    for _ in range(2):
        bank.add_style(torch.ones(bank.layout.size), 1.0)
    optimizer = StackedOptimizer([bank], clips=True)
    bank.flat.grad = torch.ones(2, bank.layout.size)
    bank.flat.grad[0, 3] = float("nan")
    optimizer.param_groups[0]["updates"] = [StyleUpdate(spec.OptimizationSpec(), 1e-2, 0)] * 2
    optimizer.step()
    assert optimizer.param_groups[0]["finite"].tolist() == [False, True]
    assert torch.equal(bank.flat[0], torch.ones(bank.layout.size))
    assert not torch.equal(bank.flat[1], torch.ones(bank.layout.size))
    assert bank.flat.isfinite().all()
