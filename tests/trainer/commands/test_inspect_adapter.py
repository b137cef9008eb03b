"""`lorafleet inspect-adapter` says what a file is: its numbers are those of the file, and its table stands in 80 columns."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

from lorafleet import terminal
from lorafleet.commands import Format
from lorafleet.errors import InvalidInput
from tests.trainer.adapters.files import made
from trainer.commands.inspect_adapter import inspect_adapter

PATH = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"


def told(path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    inspect_adapter(path, output=Format.JSON)
    return json.loads(capsys.readouterr().out)


def test_what_a_file_is_is_told_to_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    weights = made.weights("sdxl")
    path = tmp_path / "lora.safetensors"
    path.write_bytes(made.kohya("sdxl", weights, alpha=3.0))
    found = told(path, capsys)
    assert (found["format"], found["families"], found["methods"], found["dtypes"]) == ("kohya", ["sdxl"], ["lora"], ["float32"])
    assert found["ranks"] == [{"value": 2, "num_modules": len(weights) // 2}]
    assert found["scales"] == [{"value": 1.5, "num_modules": len(weights) // 2}]
    assert [part["part"] for part in found["parts"]] == ["unet", "text_encoder", "text_encoder_2"]  # pyright: ignore[reportIndexIssue, reportGeneralTypeIssues]
    assert [block["block"] for block in found["parts"][0]["blocks"]] == ["down_blocks.1", "mid_block", "time_embedding", "up_blocks.1"]  # pyright: ignore[reportIndexIssue, reportGeneralTypeIssues]
    assert found["num_parameters"] == sum(tensor.numel() for tensor in weights.values())
    modules = {name.rpartition(".lora_")[0] for name in weights}
    updates = [1.5 * weights[f"{name}.lora_B.weight"].flatten(1) @ weights[f"{name}.lora_A.weight"].flatten(1) for name in modules]
    assert found["norm"] == pytest.approx(float(torch.cat([update.flatten() for update in updates]).norm()), rel=1e-5)


def test_a_layer_in_the_middle_belongs_to_the_middle_block(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "lora.safetensors"
    save_file({f"{PATH}.lora_down.weight": torch.ones(2, 8), f"{PATH}.lora_up.weight": torch.ones(8, 2)}, path)
    assert [block["block"] for block in told(path, capsys)["parts"][0]["blocks"]] == ["mid_block"]  # pyright: ignore[reportIndexIssue, reportGeneralTypeIssues]


def shown(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    out = io.StringIO()
    monkeypatch.setattr(terminal, "stdout_console", lambda: Console(file=out, width=80, color_system=None))
    inspect_adapter(path)
    capsys.readouterr()
    return out.getvalue()


def test_its_table_stands_in_80_columns_with_values_that_are_long_and_odd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "lora.safetensors"
    file = {f"{PATH}.lora_down.weight": torch.ones(2, 8), f"{PATH}.lora_up.weight": torch.ones(8, 2)}
    odd = {"ss_tag_frequency": "x" * 5000, "modelspec.title": "[bold]水彩\x1b[31m\n", "k" * 200: "v"}
    save_file(file, path, metadata={**odd, **{f"ss_{number}": "1" for number in range(40)}})
    text = shown(path, monkeypatch, capsys)
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    assert "[bold]水彩" in text
    assert "more with -o json" in text
    assert "sd1 or sd2 or sdxl; say which with --family" in " ".join(text.split())


@pytest.mark.parametrize(
    ("end", "family", "verdicts"),
    [
        ({}, "sd1", {"diffusers, load_lora_weights": "yes", "ComfyUI": "yes", "AUTOMATIC1111": "yes", "PEFT, PeftModel": "no"}),
        ({"dora_scale": torch.ones(8, 1)}, "sd1", {"diffusers, load_lora_weights": "WRONG", "ComfyUI": "nearly", "AUTOMATIC1111": "WRONG"}),
    ],
)
def test_who_can_load_a_file_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], end: dict[str, torch.Tensor], family: str, verdicts: dict[str, str]
):
    path = tmp_path / "lora.safetensors"
    file = {f"{PATH}.lora_down.weight": torch.ones(2, 8), f"{PATH}.lora_up.weight": torch.ones(8, 2)}
    save_file({**file, **{f"{PATH}.{name}": tensor for name, tensor in end.items()}}, path)
    readers = {each["program"]: each["loads"] for each in told(path, capsys)["readers"]}  # pyright: ignore[reportGeneralTypeIssues]
    assert readers | verdicts == readers


@pytest.mark.parametrize(
    ("tensors", "metadata", "expected"),
    [
        ({"<s1>": torch.full((2, 768), 0.5)}, {}, (["sd1"], "<s1>", 2, "")),
        ({"emb_params": torch.full((1, 1024), 0.5)}, {}, (["sd2"], None, 1, "pass token=")),
        ({"<s1>": torch.full((8,), 0.5)}, {"lorafleet.family": "sd2", "lorafleet.token": "<s1>"}, (["sd2"], "<s1>", 1, "")),
        ({"clip_l": torch.ones(3, 768), "clip_g": torch.ones(3, 1280)}, {}, (["sdxl"], None, 3, "to its own")),
        ({"<s1>": torch.ones(1, 9)}, {}, ([], "<s1>", 1, "")),
    ],
)
def test_a_file_of_a_new_token_is_told_as_such(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tensors: dict[str, torch.Tensor],
    metadata: dict[str, str],
    expected: tuple[list[str], str | None, int, str],
):
    path = tmp_path / "s1.safetensors"
    save_file(tensors, path, metadata)
    found = told(path, capsys)
    assert (found["format"], found["families"], found["token"], found["num_vectors"]) == ("textual inversion", *expected[:3])
    readers: Any = found["readers"]
    assert expected[3] in readers[0]["why"]
    assert {each["loads"] for each in readers} == {"yes"}
    encoders: Any = found["text_encoders"]
    for each, tensor in zip(sorted(encoders, key=lambda each: each["name"]), (tensors[name] for name in sorted(tensors)), strict=True):
        assert each["norms"] == pytest.approx([float(vector.norm()) for vector in tensor.reshape(-1, tensor.shape[-1])], rel=1e-4)
    assert "textual inversion" in shown(path, monkeypatch, capsys)


def test_a_lone_tensor_of_an_adapters_name_is_half_an_adapter_and_no_token(tmp_path: Path):
    path = tmp_path / "half.safetensors"
    save_file({f"{PATH}.lora_down.weight": torch.ones(2, 8)}, path)
    with pytest.raises(InvalidInput, match="half an adapter"):
        inspect_adapter(path)
