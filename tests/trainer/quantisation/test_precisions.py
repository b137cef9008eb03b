"""Precisions of the frozen denoiser: what is quantised, that adapters train through it, and that it takes what the memory model says."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from examples.demo import BASE_MODEL
from lorafleet.catalog import PRECISIONS
from lorafleet.catalog.precision import is_quantised
from lorafleet.errors import RunFailed
from tests.trainer.packs import Packs
from trainer.adapters.layout import weight_shape
from trainer.families import family
from trainer.families.protocol import Loading
from trainer.group import Group
from trainer.quantisation import QUANTISATIONS

QUANTISED = ["int8", "nf4"]
LOSS_ERRORS = {"int8": 0.02, "nf4": 0.2}  # of a small base, which has little to average over
ERRORS = {"int8": 0.01, "nf4": 0.12}  # of a layer with normal weights: 1 / 127 of the largest; QLoRA's table of quantiles


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory, group: Group) -> Packs:
    """With a style that trained in bf16."""
    packs = Packs(tmp_path_factory.mktemp("styles"), group)
    packs.alone("bf16", training={"max_steps": 3, "precision": "bf16"})
    return packs


def test_every_precision_that_quantises_has_its_quantisation():
    assert QUANTISATIONS.names() == tuple(facts.name for facts in PRECISIONS.all() if facts.quantised_bytes) == tuple(QUANTISED)


@pytest.mark.parametrize("name", QUANTISED)
def test_a_quantised_layer_is_nearly_the_layer_and_hands_gradients_on(name: str):
    torch.manual_seed(1)
    layer = nn.Linear(128, 256, dtype=torch.bfloat16).requires_grad_(False)
    nn.init.normal_(layer.weight)
    small = QUANTISATIONS.get(name)(copy.deepcopy(layer))
    assert weight_shape(small) == (256, 128)
    assert not any(each.requires_grad for each in small.parameters())
    (out, gradient), (expected, wanted) = _passed(small), _passed(layer)
    assert _error(out, expected) < ERRORS[name]
    assert _error(gradient, wanted) < ERRORS[name]
    assert not torch.equal(out, expected), "it is the layer itself"


def test_nf4_is_the_librarys_own_in_pieces(monkeypatch: pytest.MonkeyPatch):
    """To the bit, and never of more numbers at once than are said: of a large layer the library would hold several copies in fp32."""
    from bitsandbytes.nn.modules import LinearNF4, Params4bit

    from trainer.quantisation import nf4

    given: list[int] = []

    def counted(numbers: torch.Tensor, **how: Any) -> Any:
        given.append(numbers.numel())
        return quantize_4bit(numbers, **how)

    torch.manual_seed(1)
    layer = nn.Linear(1000, 520, dtype=torch.bfloat16).requires_grad_(False)
    whole: Any = LinearNF4(1000, 520, compute_dtype=torch.bfloat16)
    whole.weight = Params4bit(layer.weight.detach().clone(), requires_grad=False, quant_type="nf4")  # pyright: ignore[reportCallIssue]
    whole = whole.to("cpu")
    quantize_4bit = nf4.quantize_4bit
    monkeypatch.setattr(nf4, "quantize_4bit", counted)
    monkeypatch.setattr(nf4, "NUMBERS_AT_ONCE", 2**17)
    pieces: Any = nf4.nf4(copy.deepcopy(layer))
    assert given == [2**17] * 3 + [520_000 - 3 * 2**17]
    assert torch.equal(pieces.weight.data, whole.weight.data)
    ours, theirs = (each.weight.quant_state.as_dict(packed=True) for each in (pieces, whole))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert torch.equal(pieces.weight.quant_state.absmax, whole.weight.quant_state.absmax)


@pytest.mark.parametrize("num_inputs", [32, 128], ids=["narrower than a block", "of two blocks"])
def test_nf4_computes_the_same_whether_or_not_a_gradient_is_asked_for(num_inputs: int):
    torch.manual_seed(2)
    layer = QUANTISATIONS.get("nf4")(nn.Linear(num_inputs, 48, dtype=torch.bfloat16).requires_grad_(False)).eval()
    x = torch.randn(4, num_inputs, dtype=torch.bfloat16)
    trained = layer(x.clone().requires_grad_(True))
    with torch.no_grad():
        judged = layer(x)
    assert torch.equal(trained, judged)
    assert torch.equal(layer(x.clone().requires_grad_(True)), trained)


def test_what_stands_alone_is_not_quantised():
    assert is_quantised("down_blocks.0.attentions.0.to_q", (8, 8))
    assert is_quantised("transformer_blocks.17.ff.net.0.proj", (8, 8))
    assert not is_quantised("time_embedding.linear_1", (8, 8))
    assert not is_quantised("proj_out", (8, 8))
    assert not is_quantised("down_blocks.0.resnets.0.conv1", (8, 8, 3, 3))


@pytest.mark.parametrize("name", QUANTISED)
def test_a_denoiser_takes_as_many_bytes_as_the_memory_model_says(name: str):
    unet = _unet(name)
    shapes = {key.removesuffix(".weight"): tuple(shape) for key, shape in _shapes().items() if key.endswith(".weight")}
    expected = PRECISIONS.get(name).held_bytes(sum(torch.Size(shape).numel() for shape in _shapes().values()), shapes)
    assert _bytes(unet) == pytest.approx(expected, rel=0.02)
    assert _bytes(unet) < 0.9 * _bytes(_unet("")), "of the demo's base most weights are of convolutions"


@pytest.mark.parametrize("name", QUANTISED)
def test_a_style_trains_on_a_quantised_base_nearly_as_on_the_whole_one(name: str, packs: Packs):
    recorder = packs.alone(name, training={"max_steps": 3, "precision": name})
    assert list(recorder.endings.values()) == ["succeeded"]
    assert packs.losses(name) == pytest.approx(packs.losses("bf16"), rel=LOSS_ERRORS[name])
    assert packs.losses(name) != packs.losses("bf16")


@pytest.mark.proof
def test_styles_on_a_quantised_base_are_the_same_in_a_pack(packs: Packs):
    fields: dict[str, Any] = {"training": {"max_steps": 2, "precision": "int8"}}
    packs.alone("alone", **fields)
    packs.train(packs.style("one", **fields), packs.style("two", training={**fields["training"], "seed": 7}))
    assert packs.losses("one") == pytest.approx(packs.losses("alone"), rel=1e-2)


def test_weights_that_are_missing_are_not_made_up(tmp_path: Path):
    base = _copied(tmp_path)
    path = next((base / "unet").glob("*.safetensors"))
    tensors = load_file(path)
    del tensors["conv_in.bias"]
    save_file(tensors, path)
    with pytest.raises(RunFailed, match=r"lack 1 of its weights, such as conv_in\.bias"):
        family("sd1").load("unet", base, Loading(77, torch.bfloat16, "nf4"))


def test_a_half_precision_file_is_no_reason_for_a_larger_model(tmp_path: Path):
    base = _copied(tmp_path)
    path = next((base / "unet").glob("*.safetensors"))
    save_file({name: tensor.half() for name, tensor in load_file(path).items()}, path)
    loaded = family("sd1").load("unet", base, Loading(77, torch.bfloat16, "int8"))
    assert {each.dtype for each in loaded.parameters()} == {torch.bfloat16}


def _copied(to: Path) -> Path:
    unet = to / "unet"
    unet.mkdir()
    for path in (BASE_MODEL / "unet").iterdir():
        (unet / path.name).write_bytes(path.read_bytes())
    return to


def _unet(quantised: str) -> nn.Module:
    return family("sd1").load("unet", BASE_MODEL, Loading(77, torch.bfloat16, quantised))


def _shapes() -> dict[str, list[int]]:
    data = next((BASE_MODEL / "unet").glob("*.safetensors")).read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return {name: found["shape"] for name, found in header.items() if name != "__metadata__"}


def _bytes(model: nn.Module) -> int:
    """Of all that its weights are held as: the numbers of a quantised one, and their scales."""
    return sum(each.numel() * each.element_size() for each in model.state_dict().values() if isinstance(each, Tensor))


def _passed(layer: nn.Module) -> tuple[Tensor, Tensor]:
    x = torch.randn(3, 7, 128, generator=torch.Generator().manual_seed(2)).to(torch.bfloat16).requires_grad_()
    out = layer(x)
    out.float().pow(2).sum().backward()
    assert x.grad is not None
    return out.float(), x.grad.float()


def _error(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()
