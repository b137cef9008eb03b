"""What the memory model says of the largest denoisers, counted tensor by tensor: on the meta device, of the published shapes.

Nobody has the memory to load them in a test. So what one quantised layer really holds is checked on small ones, by its tensors, and
then counted for every layer of the large.
"""

from math import ceil, prod

import pytest
import torch
from torch import nn

from lorafleet.catalog import PRECISIONS
from lorafleet.catalog.precision import is_quantised
from tests.trainer.families.rows import REAL
from trainer.quantisation import QUANTISATIONS

LARGE = {"flux": 11.9e9, "qwen_image": 20.4e9}  # numbers: FLUX.1 dev's and Qwen-Image's
GIB = 2**30
# As docs/families.md tells them.
TOLD_GIB = {
    ("flux", "bf16"): 22.2,
    ("flux", "int8"): 11.2,
    ("flux", "nf4"): 5.8,
    ("qwen_image", "bf16"): 38.1,
    ("qwen_image", "int8"): 19.1,
    ("qwen_image", "nf4"): 9.9,
}


def layer_bytes(precision: str, num_outputs: int, num_inputs: int) -> int:
    """Of a linear layer's weight, with what it is scaled by, and without its bias."""
    numbers = num_outputs * num_inputs
    match precision:
        case "int8":
            return numbers + 2 * num_outputs
        case "nf4":
            blocks = ceil(numbers / 64)
            return ceil(numbers / 2) + blocks + 4 * ceil(blocks / 256)
        case _:
            return 2 * numbers


def really_held(precision: str, num_outputs: int, num_inputs: int) -> int:
    small = QUANTISATIONS.get(precision)(nn.Linear(num_inputs, num_outputs, bias=False, dtype=torch.bfloat16).requires_grad_(False))
    held = [*small.parameters(), *small.buffers()]
    state = getattr(small.weight, "quant_state", None)
    return sum(each.nbytes for each in held) + (state.absmax.nbytes + state.state2.absmax.nbytes if state is not None else 0)


@pytest.mark.parametrize("precision", ["int8", "nf4"])
@pytest.mark.parametrize(("num_outputs", "num_inputs"), [(256, 128), (3072, 64), (96, 80), (1024, 1536)])
def test_a_quantised_layer_holds_what_is_counted(precision: str, num_outputs: int, num_inputs: int):
    assert really_held(precision, num_outputs, num_inputs) == pytest.approx(layer_bytes(precision, num_outputs, num_inputs), rel=0.001)


@pytest.mark.parametrize("family", LARGE)
def test_the_memory_model_counts_what_the_published_shapes_take(family: str):
    denoiser = REAL[family].denoiser()
    shapes = {name: tuple(each.shape) for name, each in denoiser.named_parameters()}
    num_params = sum(map(prod, shapes.values()))
    assert num_params == pytest.approx(LARGE[family], rel=0.01)
    layers = {name.removesuffix(".weight"): shape for name, shape in shapes.items() if name.endswith(".weight") and len(shape) == 2}
    for precision in ("bf16", "int8", "nf4"):
        counted = _counted(denoiser, precision)
        assert PRECISIONS.get(precision).held_bytes(num_params, layers) == pytest.approx(counted, rel=0.01)
        assert counted / GIB == pytest.approx(TOLD_GIB[family, precision], abs=0.05)


def _counted(denoiser: nn.Module, precision: str) -> int:
    """Layer by layer."""
    total = 0
    for path, module in denoiser.named_modules():
        for name, each in module.named_parameters(recurse=False):
            quantised = isinstance(module, nn.Linear) and name == "weight" and is_quantised(path, tuple(each.shape))
            total += layer_bytes(precision, *each.shape) if quantised else 2 * each.numel()
    return total
