"""`lorafleet convert` writes whole files or none, says what is rounded, and refuses what a format cannot hold."""

from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from safetensors.torch import load_file, save, save_file

from lorafleet.errors import InvalidInput
from tests.trainer.adapters.files import made
from trainer.adapters.files.reading import read_path
from trainer.adapters.files.sources import Unreadable
from trainer.commands.convert import Precision, To, convert

PATH = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
FLAT = f"lora_unet_{PATH.replace('.', '_')}"


@pytest.fixture
def kohya(tmp_path: Path) -> Path:
    path = tmp_path / "kohya.safetensors"
    path.write_bytes(made.kohya("flux", made.weights("flux"), alpha=1.0))
    return path


def written(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"kohya.safetensors"}


@pytest.mark.parametrize("to", To)
def test_every_format_is_written_and_read_again(tmp_path: Path, kohya: Path, to: To, capsys: pytest.CaptureFixture[str]):
    name = "out" if to is To.PEFT else "out.safetensors"
    convert(kohya, tmp_path / name, to)
    assert written(tmp_path) == {name}
    assert made.same(made.named(read_path(tmp_path / name, "flux")), made.weights("flux"))
    told = capsys.readouterr()
    assert told.out.strip().endswith(f"{name}: {to}, flux, {len(made.weights('flux')) // 2} modules, lora")
    assert told.err == ""


def test_rounding_is_told(tmp_path: Path, kohya: Path, capsys: pytest.CaptureFixture[str]):
    convert(kohya, tmp_path / "half.safetensors", To.KOHYA, precision=Precision.BF16)
    assert "note: numbers are rounded to bf16" in capsys.readouterr().err
    assert read_path(tmp_path / "half.safetensors").dtypes == ("bfloat16",)


def test_a_disk_that_is_full_leaves_no_half_a_file_and_keeps_what_was_there(tmp_path: Path, kohya: Path):
    target = tmp_path / "out"
    convert(kohya, target, To.PEFT)
    before = {path: path.read_bytes() for path in target.rglob("*") if path.is_file()}
    with patch("os.fsync", side_effect=[None, OSError(28, "No space left on device")]), pytest.raises(OSError, match="No space"):
        convert(kohya, target, To.PEFT, force=True)
    assert {path: path.read_bytes() for path in target.rglob("*") if path.is_file()} == before
    assert written(tmp_path) == {"out"}


def test_nothing_is_replaced_unasked(tmp_path: Path, kohya: Path):
    target = tmp_path / "out.safetensors"
    target.write_text("mine")
    with pytest.raises(InvalidInput, match="is there already; --force replaces it"):
        convert(kohya, target, To.DIFFUSERS)
    assert target.read_text() == "mine"
    convert(kohya, target, To.DIFFUSERS, force=True)
    assert read_path(target, "flux").format == "diffusers"
    convert(kohya, tmp_path / "folder", To.PEFT)
    convert(kohya, tmp_path / "folder", To.PEFT, force=True)
    assert read_path(tmp_path / "folder", "flux").format == "peft"


@pytest.mark.parametrize(
    ("target", "to", "said"),
    [
        ("away/out.safetensors", To.KOHYA, "there is no folder"),
        ("out.bin", To.KOHYA, "name a file that ends in .safetensors"),
    ],
)
def test_where_a_file_cannot_go_is_said_before_anything_is_read(tmp_path: Path, target: str, to: To, said: str):
    with pytest.raises(InvalidInput, match=said):
        convert(tmp_path / "missing.safetensors", tmp_path / target, to)


def test_a_file_that_is_cut_short_is_not_converted(tmp_path: Path, kohya: Path):
    kohya.write_bytes(kohya.read_bytes()[:-4])
    with pytest.raises(Unreadable, match=r"kohya\.safetensors is cut short"):
        convert(kohya, tmp_path / "out.safetensors", To.DIFFUSERS)
    assert written(tmp_path) == set()


def test_a_family_that_is_none_is_refused_by_name(tmp_path: Path, kohya: Path):
    with pytest.raises(InvalidInput, match="--family: there is no 'sdx'; there is "):
        convert(kohya, tmp_path / "out.safetensors", To.DIFFUSERS, family="sdx")


def test_families_that_call_a_module_otherwise_must_be_told_apart(tmp_path: Path):
    path = tmp_path / "unet.safetensors"
    path.write_bytes(save({f"unet.{PATH}.lora_A.weight": torch.ones(2, 8), f"unet.{PATH}.lora_B.weight": torch.ones(8, 2)}))
    with pytest.raises(InvalidInput, match="may be of sd1 or sd2 or sdxl, which have other names there: say which with --family"):
        convert(path, tmp_path / "out.safetensors", To.KOHYA)
    convert(path, tmp_path / "out.safetensors", To.KOHYA, family="sdxl")
    assert "lora_unet_middle_block_1_transformer_blocks_0_attn1_to_q.alpha" in load_file(tmp_path / "out.safetensors")
    convert(path, tmp_path / "plain.safetensors", To.DIFFUSERS)


def test_another_method_is_written_as_the_nearest_lora_with_its_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    first, second = torch.randn(2, 2), torch.randn(4, 4)
    path = tmp_path / "lokr.safetensors"
    save_file({f"{FLAT}.lokr_w1": first, f"{FLAT}.lokr_w2": second, f"{FLAT}.alpha": torch.tensor(1.0)}, path)
    with pytest.raises(InvalidInput, match=r"is LoKr .* hold LoRA and DoRA alone; --as-lora RANK writes the nearest plain LoRA"):
        convert(path, tmp_path / "out.safetensors", To.DIFFUSERS, family="sd1")
    convert(path, tmp_path / "out.safetensors", To.DIFFUSERS, family="sd1", as_lora=3)
    found = load_file(tmp_path / "out.safetensors")
    whole = torch.kron(first, second)
    nearest = found[f"unet.{PATH}.lora_B.weight"] @ found[f"unet.{PATH}.lora_A.weight"]
    values = torch.linalg.svdvals(whole)
    error = float(torch.linalg.norm(whole - nearest) / torch.linalg.norm(whole))
    assert error == pytest.approx(float(values[3:].norm() / values.norm()), rel=1e-4)
    assert f"as LoRA of rank 3: {100 * error:.3g} % of the update is left out" in capsys.readouterr().err


def test_a_dora_as_lora_needs_the_weights_of_its_base(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    weight, a, b, magnitude = torch.randn(8, 8), torch.randn(2, 8), torch.randn(8, 2), torch.rand(8) + 0.5
    path, base = tmp_path / "dora.safetensors", tmp_path / "base"
    save_file({f"{FLAT}.lora_down.weight": a, f"{FLAT}.lora_up.weight": b, f"{FLAT}.dora_scale": magnitude[:, None]}, path)
    (base / "unet").mkdir(parents=True)
    save_file({f"{PATH}.weight": weight}, base / "unet" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(InvalidInput, match="made of the base's weights"):
        convert(path, tmp_path / "out.safetensors", To.KOHYA, family="sd1", as_lora=8)
    with pytest.raises(InvalidInput, match=r"has no weights of unet\.mid_block"):
        convert(path, tmp_path / "out.safetensors", To.KOHYA, family="sd1", as_lora=8, base=tmp_path)
    convert(path, tmp_path / "out.safetensors", To.KOHYA, family="sd1", as_lora=8, base=base)
    found = load_file(tmp_path / "out.safetensors")
    direction = weight + b @ a
    merged = direction * (magnitude / direction.norm(dim=1))[:, None]
    ours = weight + found[f"{FLAT}.lora_up.weight"] @ found[f"{FLAT}.lora_down.weight"]
    assert torch.allclose(ours, merged, atol=1e-5)
    assert f"{FLAT}.dora_scale" not in found
