"""A base of a flow transformer in one file is its base's folder: loaded whole, digested alike, trained alike; or refused by name."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lorafleet.catalog import FAMILIES, single_file
from lorafleet.catalog.part import PartKind
from lorafleet.errors import RunFailed
from lorafleet.spec import BaseModelSpec
from tests.trainer.families import one_file
from tests.trainer.families.rows import REAL, ROWS, VARIANTS
from tests.trainer.families.styles import Families
from tests.trainer.prepare.test_single_file import same
from trainer.families import _single_file
from trainer.frozen_base import FrozenBase
from trainer.prepare import base_model
from trainer.prepare import single_file as preparing
from trainer.storage import Folder

pytestmark = pytest.mark.timeout(300)
CPU = torch.device("cpu")
Of = Callable[[str], Families]
TAKEN = tuple(one_file.NAMES)


@pytest.fixture(autouse=True)
def node_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LORAFLEET_NODE_CACHE", str(tmp_path / "node"))


@pytest.fixture
def as_tiny(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """The published configs are of models that are larger: in their place those of a tiny folder, but for what the file tells."""

    def of(base: Path) -> None:
        def configs(family: str) -> dict[str, dict[str, Any]]:
            parts = {part.name: base / part.config for part in FAMILIES.get(family).parts}
            found = {name: json.loads(path.read_text()) for name, path in parts.items() if path.exists()}
            transformer = found["transformer"]
            told = layout(family).read(tensors_of(base, family)).get("transformer", {})
            return {**found, "transformer": {name: value for name, value in transformer.items() if name not in told}}

        monkeypatch.setattr(preparing, "configs", configs)

    return of


def layout(family: str) -> single_file.SingleFile:
    found = FAMILIES.get(family).single_file
    assert found is not None
    return found


def tensors_of(base: Path, family: str) -> dict[str, tuple[int, ...]]:
    return {name: tuple(each.shape) for name, each in one_file.transformer(family, one_file.weights(base / "transformer")).items()}


def given(base: Path, family: str, beside: tuple[str, ...]) -> dict[str, str]:
    """What a file with those parts lacks."""
    parts = FAMILIES.get(family).parts
    needed = [part.name for part in parts if part.kind is not PartKind.SCHEDULER or layout(family).lacks_scheduler]
    return {name: f"file://{base / name}" for name in needed if name not in ("transformer", *beside) and (base / name).exists()}


SAYS_NOT_WHETHER_DISTILLED = ("flux2",)
PUBLISHED: dict[str, dict[str, Any]] = {"zimage": {"axes_lens": (1536, 512, 512)}}  # what is not its class's own default
FILES = {"as published": ("", False), "with everything": ("model.diffusion_model.", True)}


# Each variant once, and each kind of file that a family has.
CASES = [
    (family, variant, kind)
    for family, variant in VARIANTS
    for kind in FILES
    if family in TAKEN
    if (kind == "with everything") == bool(one_file.BESIDE[family]) or (family, variant) == ("flux", "dev")
]


@pytest.mark.parametrize(("family", "variant", "kind"), CASES)
def test_it_is_the_folder_that_it_was_made_from(
    families: Of, tmp_path: Path, as_tiny: Callable[[Path], None], family: str, variant: str, kind: str
):
    prefix, is_whole = FILES[kind]
    base = families(family).bases[variant]
    as_tiny(base)
    beside = tuple(part for part in one_file.BESIDE[family] if (base / part).exists()) if is_whole else ()
    file = one_file.write(base, family, tmp_path / "one.safetensors", prefix=prefix, beside=beside)
    cache = Folder(f"file://{tmp_path}/cache")
    found = base_model.inspect(BaseModelSpec(uri=f"file://{file}", parts=given(base, family, beside)), cache)
    folder = base_model.inspect(BaseModelSpec(uri=f"file://{base}"), cache)
    assert (found.family, found.digest, found.trainable) == (family, folder.digest, folder.trainable)
    assert found.absent == folder.absent
    cautions = folder.facts.cautions if family not in SAYS_NOT_WHETHER_DISTILLED else found.facts.cautions
    assert found.facts == replace(folder.facts, cautions=cautions)
    assert any("distilled" in caution for caution in cautions) or variant not in ROWS[family].distilled
    ours, theirs = FrozenBase(found, "fp32", CPU), FrozenBase(folder, "fp32", CPU)
    for part in FAMILIES.get(family).without(folder.absent).parts:
        if part.weights_name:
            mine, its = ours.for_encoding()[part.name], theirs.for_encoding()[part.name]
            assert same(mine, its), part.name
            assert _says(mine) == _says(its), part.name


def _says(model: Any) -> dict[str, Any]:
    return {
        name: value
        for name, value in dict(model.config.to_dict() if hasattr(model.config, "to_dict") else model.config).items()
        if name[0] != "_"
    }


@pytest.mark.parametrize("family", TAKEN)
def test_it_trains_to_the_same_bits(families: Of, tmp_path: Path, as_tiny: Callable[[Path], None], family: str):
    packs = families(family)
    base = packs.bases[packs.row.variants[0]]
    as_tiny(base)
    file = one_file.write(base, family, tmp_path / "one.safetensors", prefix="transformer.")
    once: dict[str, Any] = {"training": {"max_steps": 1}}
    of_folder = packs.style("of-folder", **once)
    of_file = packs.style_on(file, "of-file", base_model={"parts": given(base, family, ())}, **once)
    assert packs.train(of_folder).endings == {of_folder.job: "succeeded"}
    assert packs.train(of_file).endings == {of_file.job: "succeeded"}
    assert packs.losses("of-file") == packs.losses("of-folder")
    ours, theirs = packs.adapter("of-file"), packs.adapter("of-folder")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def published(family: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The published transformer without its weights: by diffusers' names, and in the published layout."""
    ours = REAL[family].denoiser().state_dict()
    return ours, one_file.transformer(family, ours)


@pytest.mark.parametrize("family", TAKEN)
def test_the_published_names_become_all_of_diffusers_and_no_others(family: str):
    ours, theirs = published(family)
    shapes = {f"model.diffusion_model.{name}": tuple(tensor.shape) for name, tensor in theirs.items()}
    told = single_file.told({family: layout(family)}, shapes)
    found = told.rows(layout(family))
    assert found is not None
    assert {name: each.shape for name, each in found.items()} == {name: tuple(tensor.shape) for name, tensor in ours.items()}
    config = {**single_file.configs(family)["transformer"], **layout(family).read(told.tensors["transformer"])["transformer"]}
    built: Any = REAL[family].denoiser()
    expected = {name: _plain(value) for name, value in {**built.config, **PUBLISHED.get(family, {})}.items()}
    assert {name: _plain(value) for name, value in config.items() if name != "_class_name"}.items() <= expected.items()


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("family", TAKEN)
def test_published_configs_are_of_their_family(family: str):
    facts, known = FAMILIES.get(family), single_file.configs(family)
    shapes = {name: tuple(tensor.shape) for name, tensor in published(family)[1].items()}
    known["transformer"] |= layout(family).read(shapes)["transformer"]
    there = {name: known[name] for name in ("transformer", "scheduler", *one_file.BESIDE[family]) if name in known}
    assert facts.is_it(there)
    assert list(facts.misfits(there)) == []
    assert [problem for part in facts.parts if part.name in there for problem in part.problems(there[part.name], family)] == []


# As the published parts are counted, of which one in diffusers' folder has as many.
NUM_PARAMS = {
    "AutoencoderKL": 83_819_683,
    "CLIPTextModel": 123_060_480,
    "T5EncoderModel": 4_762_310_656,
    "Qwen3Model": 4_022_468_096,
}
OF_PROJECTION = {"text_encoder": 123_650_304, "text_encoder_2": 694_659_840}  # of Stable Diffusion 3


@pytest.mark.parametrize(("family", "part"), [(family, part) for family in TAKEN for part in one_file.BESIDE[family]])
def test_parts_beside_a_transformer_are_as_large_as_published(family: str, part: str):
    kind = FAMILIES.get(family).part(part).classes[0]
    shapes = _single_file._expected(kind, single_file.configs(family)[part])
    assert sum(shape.numel() for shape in shapes.values()) == NUM_PARAMS.get(kind, OF_PROJECTION.get(part))


def row_numbers(shapes: dict[str, Any]) -> dict[str, Tensor]:
    """In place of each tensor the numbers of its rows, which no other tensor has."""
    found: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        start = int(next(reversed(found.values()))[-1]) + 1 if found else 0
        found[name] = torch.arange(start, start + shape[0])
    return found


@pytest.mark.parametrize("family", [name for name in TAKEN if name in one_file.CONVERTERS])
def test_each_row_comes_to_lie_where_diffusers_puts_it(family: str):
    """Its converters know the published sizes alone."""
    _, theirs = published(family)
    shapes = {name: tuple(tensor.shape) for name, tensor in theirs.items()}
    rows = single_file.told({family: layout(family)}, shapes).rows(layout(family))
    assert rows is not None
    numbers = row_numbers(shapes)
    expected = one_file.CONVERTERS[family](dict(numbers))
    assert rows.keys() == expected.keys()
    for name, each in rows.items():
        source = numbers[each.source]
        taken = torch.cat([source[start:stop] for start, stop in each.ranges]) if each.ranges else source
        assert torch.equal(taken, expected[name]), name


def refusal(file: Path, tmp_path: Path, **fields: Any) -> RunFailed:
    with pytest.raises(RunFailed) as caught:
        base_model.inspect(BaseModelSpec(uri=f"file://{file}", **fields), Folder(f"file://{tmp_path}/cache"))
    assert caught.value.message.startswith(f"base_model.uri: file://{file} ")
    return caught.value


@pytest.fixture
def tensors(families: Of) -> dict[str, Tensor]:
    """Of a tiny FLUX.1 in one file."""
    return one_file.transformer("flux", one_file.weights(families("flux").bases["dev"] / "transformer"))


def test_all_that_it_lacks_is_named_at_once_with_the_field_to_give_it_by(tensors: dict[str, Tensor], tmp_path: Path):
    save_file(tensors, tmp_path / "flux.safetensors")
    error = refusal(tmp_path / "flux.safetensors", tmp_path)
    assert error.reason == "BASE_MODEL_INCOMPLETE"
    lacks = [part.name for part in FAMILIES.get("flux").parts if part.kind is not PartKind.SCHEDULER and part.name != "transformer"]
    assert len(lacks) == 5
    assert all(f"name its folder in base_model.parts.{part}" in error.message for part in lacks)


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        ("scaled_fp8", (2,), "is quantised (scaled fp8)"),
        ("double_blocks.0.img_attn.qkv.scale_weight", (1,), "is quantised (scaled fp8)"),
        ("double_blocks.0.img_attn.qkv.weight.absmax", (8,), "is quantised (bitsandbytes' 4 or 8 bits)"),
        ("img_in.weight", (32, 96), "takes 96 channels and gives 16, as FLUX.1 Fill, Canny and Depth do"),
        (
            "double_blocks.0.img_attn.qkv.weight",
            (60, 32),
            "has a transformer of another size: double_blocks.0.img_attn.qkv.weight is [60, 32]",
        ),
        ("double_blocks.0.img_attn.extra.weight", (4, 4), "none of its transformer, such as double_blocks.0.img_attn.extra.weight"),
        ("img_in.bias", (31,), "has a transformer of another size: x_embedder.bias is (31,), not (32,)"),
    ],
)
def test_what_is_none_to_train_is_told(
    tensors: dict[str, Tensor], families: Of, tmp_path: Path, as_tiny: Callable[[Path], None], name: str, shape: tuple[int, ...], said: str
):
    base = families("flux").bases["dev"]
    as_tiny(base)
    save_file({**tensors, name: torch.zeros(shape)}, tmp_path / "flux.safetensors")
    assert said in refusal(tmp_path / "flux.safetensors", tmp_path, parts=given(base, "flux", ())).message


def test_a_tensor_that_is_gone_is_named(tensors: dict[str, Tensor], families: Of, tmp_path: Path, as_tiny: Callable[[Path], None]):
    base = families("flux").bases["dev"]
    as_tiny(base)
    del tensors["single_blocks.0.linear2.weight"]
    save_file(tensors, tmp_path / "flux.safetensors")
    said = refusal(tmp_path / "flux.safetensors", tmp_path, parts=given(base, "flux", ())).message
    assert "lacks 1 tensors of its transformer, such as single_transformer_blocks.0.proj_out.weight" in said


def test_weights_in_eight_bits_load_as_the_numbers_that_they_are(families: Of, tmp_path: Path, as_tiny: Callable[[Path], None]):
    """A checkpoint of ComfyUI's that was cast as a whole."""
    base, beside = families("flux").bases["dev"], tuple(one_file.BESIDE["flux"])
    as_tiny(base)
    file = one_file.write(base, "flux", tmp_path / "flux.safetensors", prefix="model.diffusion_model.", beside=beside)
    eight = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in load_file(file).items()}
    save_file(eight, file)
    spec = BaseModelSpec(uri=f"file://{file}", parts=given(base, "flux", beside))
    loaded = FrozenBase(base_model.inspect(spec, Folder(f"file://{tmp_path}/cache")), "fp32", CPU).for_encoding()
    fused = eight["model.diffusion_model.double_blocks.0.img_attn.qkv.weight"].float()
    assert torch.equal(loaded["transformer"].transformer_blocks[0].attn.to_k.weight, fused[32:64])
    for part, name in (("text_encoder_2", "shared.weight"), ("text_encoder", "text_model.embeddings.token_embedding.weight")):
        embedding = loaded[part].get_input_embeddings().weight
        assert embedding.dtype == torch.float32
        assert torch.equal(embedding, eight[f"{one_file.BESIDE['flux'][part]}{name}"].float()), part
