"""A grid in a folder: whole pictures that tell how they were drawn, a sheet, and nothing drawn twice."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lorafleet import generation_spec
from lorafleet.errors import InvalidInput
from tests.trainer.generation import made
from tests.trainer.generation.conftest import Loaded
from trainer.adapters.files.contents import AdapterFile
from trainer.adapters.files.writing import write
from trainer.generation import files, png_text
from trainer.generation import request as requests
from trainer.generation.drawing import Drawing
from trainer.generation.kept import KeptAdapters
from trainer.storage import Folder


def request(of: Loaded, out: Path, **fields: Any) -> requests.Request:
    quick = {"num_inference_steps": 1, "guidance_scale": 1.0, "prompts": ["an emoji of cat face"]}
    spec = generation_spec.parse({"base_model": {"uri": of.base.uri}, **quick, **fields})
    return requests.checked(spec, of.base, of.sampler, out.absolute().as_uri())


def drawing(of: Loaded, out: Path, **fields: Any) -> Drawing:
    return Drawing(request(of, out, **fields), of.sampler, Folder(out.absolute().as_uri()))


def kohya_bytes(family: str) -> bytes:
    layer = torch.nn.Linear(16, 16)
    paths = [f"transformer.transformer_blocks.{number}.attn.to_out.0" for number in range(2)]
    modules = tuple(made.module(path, layer, "lora", 1) for path in paths)
    return write(AdapterFile(format="kohya", families=(family,), modules=modules), "kohya").files[""]


def sets(of: Loaded, *names: str) -> list[list[dict[str, Any]]]:
    return [[{"uri": (of.adapters / f"{each}.safetensors").as_uri()} for each in name.split()] for name in names]


def pictures(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.glob("*.png") if not path.name.startswith("sheet")}


def test_a_grid_is_pictures_a_sheet_and_json_of_all(emoji: Loaded, tmp_path: Path):
    found = list(drawing(emoji, tmp_path, adapters=sets(emoji, "", "lora other"), weights=[0.5], seeds=[3, 4]).draw())
    answer = json.loads((tmp_path / "generation.json").read_text())
    assert [is_new for _, is_new in found] == [True] * 4
    assert (answer["num_pictures"], answer["num_missing"]) == (4, 0)
    for told in answer["pictures"]:
        data = (tmp_path / told["file"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == told["sha256"]
        parameters = png_text.parameters_in(data)
        assert parameters == {name: value for name, value in told.items() if name not in ("file", "sha256")}
    both = answer["pictures"][2]
    assert [(each["name"], each["weight"]) for each in both["adapters"]] == [("lora", 0.5), ("other", 0.5)]
    assert both["file"].startswith("lora-other-3-")
    with Image.open(tmp_path / both["file"]) as picture:
        lines = picture.info["parameters"].splitlines()
    assert lines[0] == "an emoji of cat face <lora:lora:0.5> <lora:other:0.5>"
    assert lines[1].startswith("Steps: 1, Sampler: DDIM, CFG scale: 1, Seed: 3, Size: 64x64, Model hash: ")
    assert Image.open(tmp_path / "sheet.png").width > 2 * 192
    assert str(tmp_path) not in json.dumps(answer["pictures"])


def test_what_is_there_is_not_drawn_again_and_what_is_not_whole_is(emoji: Loaded, tmp_path: Path):
    fields = {"adapters": sets(emoji, "", "lora"), "seeds": [1, 2]}
    list(drawing(emoji, tmp_path, **fields).draw())
    before = pictures(tmp_path)
    first, second, third, _ = sorted(before)
    (tmp_path / first).unlink()
    (tmp_path / second).write_bytes(before[second][:-100])  # half a file
    picture = png_text.picture_in(before[third])
    (tmp_path / third).write_bytes(png_text.encoded(picture, {**png_text.parameters_in(before[third]), "seed": 9}))  # another's
    (tmp_path / "sheet.png").unlink()
    again = drawing(emoji, tmp_path, **fields)
    assert sorted(is_new for _, is_new in again.draw()) == [False, True, True, True]
    assert pictures(tmp_path) == before  # to the bit
    assert (tmp_path / "sheet.png").exists()
    list(drawing(emoji, tmp_path, **{**fields, "seeds": [1, 2, 3]}).draw())
    assert before.items() < pictures(tmp_path).items()


def test_a_file_is_read_once_for_the_check_and_the_pictures(emoji: Loaded, tmp_path: Path):
    file = tmp_path / "once.safetensors"
    file.write_bytes((emoji.adapters / "lora.safetensors").read_bytes())
    spec = generation_spec.parse(
        {
            "base_model": {"uri": emoji.base.uri},
            "num_inference_steps": 1,
            "prompts": ["a cat"],
            "adapters": [[{"uri": file.as_uri()}]],
        }
    )
    kept = KeptAdapters()
    asked = requests.checked(spec, emoji.base, emoji.sampler, (tmp_path / "out").as_uri(), kept=kept)
    file.unlink()
    assert [is_new for _, is_new in Drawing(asked, emoji.sampler, Folder((tmp_path / "out").as_uri()), kept=kept).draw()] == [True]


def test_an_interrupted_grid_leaves_whole_pictures_and_goes_on(emoji: Loaded, tmp_path: Path):
    fields = {"adapters": sets(emoji, "lora"), "seeds": list(range(10))}
    going = drawing(emoji, tmp_path, **fields).draw()
    for _ in range(3):
        next(going)
    going.close()  # as Ctrl-C does
    there = pictures(tmp_path)
    assert len(there) == 3
    assert all(png_text.parameters_in(data) for data in there.values())
    assert {path.name for path in tmp_path.iterdir()} == {*there, "generation.json"}
    assert json.loads((tmp_path / "generation.json").read_text())["num_missing"] == 10
    assert sum(is_new for _, is_new in drawing(emoji, tmp_path, **fields).draw()) == 7


def test_all_that_does_not_go_with_the_base_is_told_at_once(emoji: Loaded, tmp_path: Path):
    whole = (emoji.adapters / "lora.safetensors").read_bytes()
    (tmp_path / "half.safetensors").write_bytes(whole[:-50])
    (tmp_path / "text.safetensors").write_text("no adapter at all")
    blocked = tmp_path / "file"
    blocked.write_text("")
    uses = [[{"uri": (tmp_path / name).as_uri()}] for name in ("half.safetensors", "text.safetensors", "missing.safetensors")]
    with pytest.raises(InvalidInput) as raised:
        request(emoji, blocked / "out", adapters=uses, width=60, height=64)
    told = str(raised.value).splitlines()
    assert len(told) == 5
    assert all(any(name in line for line in told) for name in ("half", "text", "missing"))
    assert "width: 60 is no multiple of 16, as this base needs; close: 48 or 64" in told
    assert f"out: {blocked} is a file; name a folder" in told


def test_an_adapter_of_another_base_needs_to_be_forced(emoji: Loaded, tmp_path: Path):
    layers = made.some(emoji.sampler.layers)
    other = made.file(tmp_path, "other-base", made.on(layers, "lora", 1, **{"lorafleet.base_digest": "ab" * 32}))
    own = made.file(tmp_path, "own-base", made.on(layers, "lora", 1, **{"lorafleet.base_digest": emoji.base.digest}))
    uris = [other.as_uri(), own.as_uri()]
    found, wrong = files.look(uris, emoji.base, emoji.sampler.layers)
    assert list(found) == [own.as_uri()]
    assert wrong == [
        f"{other.as_uri()} was trained on the base {'ab' * 32}, and {emoji.base.uri} is {emoji.base.digest}; "
        "--force draws with it all the same, where shapes fit"
    ]
    assert list(files.look(uris, emoji.base, emoji.sampler.layers, on_any_base=True)[0]) == uris


def test_an_adapter_of_another_family_is_refused_even_so(emoji: Loaded, tmp_path: Path):
    flux = tmp_path / "flux.safetensors"
    flux.write_bytes(kohya_bytes("flux"))
    found, wrong = files.look([flux.as_uri()], emoji.base, emoji.sampler.layers, on_any_base=True)
    assert not found
    assert wrong[0].startswith(f"{flux} is no adapter of sd1: its modules are those of ")


def test_nothing_but_zeros_is_said(emoji: Loaded, tmp_path: Path):
    asked = request(emoji, tmp_path, adapters=sets(emoji, "lora"), weights=[0.0, 1.0])
    assert list(asked.notes()) == ["set 1 of the grid has weights of zero alone: LoRA of weight 0 draws what the base draws"]


def test_a_sheet_has_pages_where_a_grid_is_large(emoji: Loaded, tmp_path: Path):
    from trainer.generation import sheets

    cells = request(emoji, tmp_path, seeds=list(range(30))).cells
    made = dict(sheets.pages(cells, lambda cell: Image.new("RGB", (8, 8), (cell.seed, 0, 0))))
    assert list(made) == ["sheet-001.png", "sheet-002.png", "sheet-003.png"]
    assert Image.open(io.BytesIO(made["sheet-001.png"])).width > Image.open(io.BytesIO(made["sheet-003.png"])).width
