"""`lorafleet merge` and `extract-adapter`: whole files or none, what diffusers and PEFT compute, and errors that say what to do."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from safetensors.torch import load_file, safe_open, save_file

from examples.demo import BASE_MODEL
from lorafleet.commands import Format
from lorafleet.errors import InvalidInput
from trainer.adapters.files import updates
from trainer.adapters.files.contents import AdapterFile, Module
from trainer.adapters.files.reading import read_path
from trainer.adapters.files.sources import Unreadable
from trainer.adapters.files.writing import write
from trainer.commands.convert import Precision, To
from trainer.commands.extract_adapter import extract_adapter
from trainer.commands.merge import Kind, merge

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def shapes() -> dict[str, tuple[int, ...]]:
    """Of some layers of the demo's base, linear ones and convolutions."""
    ends = ("attn1.to_q.weight", "resnets.0.conv1.weight", "attn2.to_v.weight")
    tensors = load_file(BASE_MODEL / UNET)
    return {f"unet.{name.removesuffix('.weight')}": tuple(each.shape) for name, each in tensors.items() if name.endswith(ends)}


def adapter(shapes: dict[str, tuple[int, ...]], seed: int, rank: int = 4, **metadata: str) -> AdapterFile:
    draws = torch.Generator().manual_seed(seed)
    modules: list[Module] = []
    for path, (outputs, *inputs) in shapes.items():
        a = torch.randn(rank, *inputs, generator=draws) / 10
        b = torch.randn(outputs, rank, *[1] * (len(inputs) - 1), generator=draws) / 10
        modules.append(Module(paths=(path,), method="lora", tensors={"A": a, "B": b}, rank=rank, alpha=rank / 2))
    return AdapterFile(format="kohya", families=("sd1",), modules=tuple(modules), metadata=metadata)


@pytest.fixture
def files(tmp_path: Path, shapes: dict[str, tuple[int, ...]]) -> tuple[Path, Path]:
    found = tmp_path / "a.safetensors", tmp_path / "b=2.safetensors"
    for seed, path in enumerate(found):
        path.write_bytes(write(adapter(shapes, seed, rank=4 + seed), "kohya").files[""])
    return found


def everything(path: Path) -> dict[str, torch.Tensor]:
    return {module.paths[0]: updates.update(module) for module in read_path(path).modules}


def test_a_weighted_sum_is_written_and_told(files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out.safetensors"
    merge([f"{files[0]}=0.7", f"{files[1]}=-0.5"], out)
    first, second, found = everything(files[0]), everything(files[1]), everything(out)
    assert all(torch.allclose(found[path], 0.7 * first[path] - 0.5 * second[path], atol=1e-6) for path in first)
    told = capsys.readouterr().out
    assert f"out.safetensors: kohya, sd1, {len(first)} modules, rank 9" in told
    assert "from the weighted sum its weights differ by" in told


def test_a_name_with_an_equals_sign_is_itself(files: tuple[Path, Path], tmp_path: Path):
    merge([str(files[1])], tmp_path / "out.safetensors")
    first, found = everything(files[1]), everything(tmp_path / "out.safetensors")
    assert all(torch.allclose(found[path], first[path], atol=1e-6) for path in first)


def test_the_result_says_what_it_was_made_of(files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out.safetensors"
    merge([f"{files[0]}=0.7", str(files[1])], out, kind=Kind.SVD, rank=3, output=Format.JSON)
    told = json.loads(capsys.readouterr().out)
    with safe_open(out, "pt") as file:
        kept = json.loads(file.metadata()["lorafleet.merge"])
    assert [(each["name"], each["weight"]) for each in kept["parents"]] == [("a.safetensors", 0.7), ("b=2.safetensors", 1.0)]
    assert all(len(each["sha256"]) == 64 for each in kept["parents"])
    assert (kept["kind"], kept["rank"], kept["weight_error"]) == ("svd", 3, told["weight_error"])
    assert 0 < told["weight_error"] < 1


def test_every_format_holds_a_sum(files: tuple[Path, Path], tmp_path: Path):
    for to in To:
        out = tmp_path / ("out" if to is To.PEFT else f"{to}.safetensors")
        merge([str(files[0]), str(files[1])], out, to=to)
        assert read_path(out).format == to


def test_fused_weights_are_those_of_diffusers(files: tuple[Path, Path], tmp_path: Path):
    """In single precision: diffusers' fuse_lora of the same file into the same base."""
    base = tmp_path / "base"
    pipeline: Any = StableDiffusionPipeline.from_pretrained(BASE_MODEL, torch_dtype=torch.float32)
    pipeline.save_pretrained(base)
    merge([f"{files[0]}=0.5"], tmp_path / "fused", into=base)
    pipeline.load_lora_weights(files[0])
    pipeline.fuse_lora(lora_scale=0.5)
    pipeline.unload_lora_weights()
    theirs = pipeline.unet.state_dict()
    ours = load_file(tmp_path / "fused" / UNET)
    before = load_file(base / UNET)
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in ours)
    changed = {name for name in ours if not torch.equal(ours[name], before[name])}
    assert {f"unet.{name.removesuffix('.weight')}" for name in changed} == everything(files[0]).keys()
    kept = {path.relative_to(base) for path in base.rglob("*") if path.is_file()}
    assert kept == {path.relative_to(tmp_path / "fused") for path in (tmp_path / "fused").rglob("*") if path.is_file()}
    StableDiffusionPipeline.from_pretrained(tmp_path / "fused")


def test_what_was_fused_is_extracted_again(files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    base = tmp_path / "base"
    StableDiffusionPipeline.from_pretrained(BASE_MODEL, torch_dtype=torch.float32).save_pretrained(base)
    merge([str(files[0])], tmp_path / "fused", into=base)
    tensors = load_file(tmp_path / "fused" / UNET)
    tensors["conv_in.bias"] += 1
    save_file(tensors, tmp_path / "fused" / UNET)
    extract_adapter(tmp_path / "fused", base, tmp_path / "found.safetensors", rank=4)
    first, found = everything(files[0]), everything(tmp_path / "found.safetensors")
    assert found.keys() == first.keys()
    assert all(torch.allclose(found[path], first[path], atol=1e-5) for path in first)
    assert "1 tensors changed that no adapter sits on, such as unet/conv_in.bias" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"sources": ["a.safetensors=x"]}, "x is no weight"),
        ({"sources": ["a.safetensors=nan"]}, "nan is no weight"),
        ({"blocks": ["unet"]}, "unet is no PATTERN=WEIGHT"),
        ({"rank": 4}, "--rank: cat is exact"),
        ({"kind": Kind.TIES, "density": 2.0}, "--density: 2 is no share"),
        ({"into": "base", "kind": Kind.SVD}, "--into: weights of a base hold the sum itself"),
        ({"into": "base", "precision": Precision.FP16}, "--into: the folder has its base's layout"),
        ({"into": "base"}, "is no base in diffusers' layout"),
    ],
)
def test_what_cannot_be_done_is_told_and_leaves_nothing(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], told: str
):
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    into = {"into": Path(options["into"])} if "into" in options else {}
    out = Path("out") if into else Path("out.safetensors")
    with pytest.raises(InvalidInput, match=told):
        merge(**{"sources": ["a.safetensors"], "out": out, **options, **into})
    assert set(tmp_path.iterdir()) == before


def test_a_base_of_other_layers_is_refused_and_leaves_nothing(files: tuple[Path, Path], tmp_path: Path):
    base = tmp_path / "base"
    (base / "unet").mkdir(parents=True)
    (base / "model_index.json").write_text("{}")
    save_file({"mid_block.other.weight": torch.ones(2, 2)}, base / "unet" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(InvalidInput, match="has no weights of unet"):
        merge([str(files[0])], tmp_path / "fused", into=base)
    assert not (tmp_path / "fused").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_adapters_of_different_bases_are_not_fused_unasked(tmp_path: Path, shapes: dict[str, tuple[int, ...]]):
    names = [str(tmp_path / f"{base}.safetensors") for base in ("one", "other")]
    for seed, name in enumerate(names):
        Path(name).write_bytes(write(adapter(shapes, seed, **{"lorafleet.base_digest": Path(name).stem}), "kohya").files[""])
    with pytest.raises(InvalidInput, match="trained on different bases"):
        merge(names, tmp_path / "fused", into=BASE_MODEL)
    merge(names, tmp_path / "fused", into=BASE_MODEL, force=True)
    assert (tmp_path / "fused" / UNET).exists()


def test_half_a_file_is_no_ingredient(files: tuple[Path, Path], tmp_path: Path):
    (tmp_path / "half.safetensors").write_bytes(files[0].read_bytes()[:1000])
    with pytest.raises(Unreadable, match="cut short"):
        merge([str(files[0]), str(tmp_path / "half.safetensors")], tmp_path / "out.safetensors")
