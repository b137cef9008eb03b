"""A base in a store, read straight into tensors, is the one that is loaded from a folder; and none of its weights come onto the disk."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import nn

from examples.demo import BASE_MODEL
from lorafleet.catalog import FAMILIES
from lorafleet.spec import BaseModelSpec
from tests.trainer.families.rows import ROWS, VARIANTS
from tests.trainer.in_store import uploaded, without_node_cache
from trainer.families import _arriving
from trainer.families.protocol import Loading
from trainer.frozen_base import FrozenBase
from trainer.prepare import base_model
from trainer.storage import Folder

pytestmark = pytest.mark.timeout(300)
Of = Callable[[str], dict[str, Path]]
CPU = torch.device("cpu")
PRECISIONS = ("fp32", "bf16", "int8", "nf4")
EVERY = [(precision, family, variant) for family, variant in (("sd1", ""), *VARIANTS) for precision in PRECISIONS]
QUICK = {
    ("fp32", "sd1", ""),
    ("nf4", "sd3", "sd3"),
    *(("int8" if name == "flux" else "bf16", name, row.variants[0]) for name, row in ROWS.items()),
}
CASES = [pytest.param(*case, marks=() if case in QUICK else pytest.mark.proof) for case in EVERY]


@pytest.fixture(autouse=True)
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return without_node_cache(tmp_path / "disk", monkeypatch)


def loaded(uri: str, tmp_path: Path, precision: str) -> FrozenBase:
    found = base_model.inspect(BaseModelSpec(uri=uri), Folder((tmp_path / "facts").as_uri()))
    return FrozenBase(found, precision, CPU)


def state_of(part: nn.Module) -> dict[str, torch.Tensor]:
    """What it computes with: also what no file holds."""
    return {**part.state_dict(), **dict(part.named_parameters()), **dict(part.named_buffers())}


def assert_the_same(one: FrozenBase, other: FrozenBase) -> None:
    facts = FAMILIES.get(one.base.family)
    ours, theirs = one.for_encoding(), other.for_encoding()
    for name in (part.name for part in facts.without(one.base.absent).parts if part.weights_name):
        mine, wanted = state_of(ours[name]), state_of(theirs[name])
        assert mine.keys() == wanted.keys(), name
        for key, tensor in wanted.items():
            assert mine[key].dtype == tensor.dtype, f"{name}.{key}"
            assert torch.equal(mine[key], tensor), f"{name}.{key}"
        assert type(ours[name]) is type(theirs[name])
        assert not ours[name].training
        assert not any(each.requires_grad for each in ours[name].parameters())


def weights_on(disk: Path) -> list[Path]:
    files = [path for path in disk.rglob("*") if path.is_file() and not path.is_symlink()]
    return [path for path in files if path.suffix == ".safetensors" or path.stat().st_size > 2**20]


@pytest.mark.parametrize(("precision", "family", "variant"), CASES)
def test_it_is_the_base_that_a_folder_holds(
    precision: str, family: str, variant: str, bases_of: Of, tmp_path: Path, s3: dict[str, str], disk: Path
):
    folder = bases_of(family)[variant] if variant else BASE_MODEL
    streamed = loaded(uploaded(folder), tmp_path, precision)
    of_folder = loaded(folder.as_uri(), tmp_path, precision)
    assert streamed.base.digest == of_folder.base.digest
    assert_the_same(streamed, of_folder)
    assert weights_on(disk) == []


@pytest.mark.parametrize("part", ["text_encoder", "text_encoder_2"])
def test_a_text_encoder_takes_the_very_tensors_that_come(part: str, bases_of: Of):
    """Copies of T5's would be ten gigabytes more."""
    folder = bases_of("flux")["dev"] / part
    files = {path: tensor for file in folder.glob("*.safetensors") for path, tensor in load_file(file).items()}
    given = {name: tensor.to(torch.bfloat16) for name, tensor in files.items()}
    how = Loading(77, torch.bfloat16, weights=given.items())
    kind = getattr(transformers, FAMILIES.get("flux").part(part).classes[0])
    loaded, _ = _arriving.of_transformers(kind, folder, how)
    assert {each.data_ptr() for each in loaded.parameters()} <= {tensor.data_ptr() for tensor in given.values()}
