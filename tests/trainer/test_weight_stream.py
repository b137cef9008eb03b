"""Tensors read from a store are those of their files, whatever their types and wherever ranges cut them; and a file that is not what it
was is told."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from lorafleet.errors import RunFailed
from tests.trainer.in_store import uploaded
from trainer import ranges
from trainer.ranges import Object
from trainer.storage import Folder
from trainer.untrusted import Refused
from trainer.weight_stream import DTYPES, WeightStream


def files_in(folder: Path) -> dict[str, Object]:
    store = Folder(folder.as_uri())
    return {entry.path: Object(folder=store, entry=entry) for entry in store.list()}


def streamed(folder: Path, **wrong: str) -> dict[str, Tensor]:
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    return dict(WeightStream(files_in(folder), {**digests, **{f"{name}.safetensors": digest for name, digest in wrong.items()}}))


def assert_equal(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert (ours[name].dtype, ours[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(ours[name].view(torch.uint8) if tensor.ndim else ours[name], tensor.view(torch.uint8) if tensor.ndim else tensor)


def raw_file(path: Path, entries: dict[str, Any], data: bytes) -> None:
    header = json.dumps(entries).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)


def entry(start: int, end: int) -> dict[str, Any]:
    return {"dtype": "U8", "shape": [end - start], "data_offsets": [start, end]}


@settings(max_examples=30)
@given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=8), range_bytes=st.integers(1, 200))
def test_ranges_may_cut_tensors_and_headers_anywhere(sizes: list[int], range_bytes: int, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("cut")
    draw = torch.Generator().manual_seed(sum(sizes))
    tensors = {f"{number}.weight": torch.randn(size, generator=draw) for number, size in enumerate(sizes)}
    save_file(tensors, folder / "one.safetensors")
    save_file({"other": torch.arange(7)}, folder / "two.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranges, "RANGE_BYTES", range_bytes)
        assert_equal(streamed(folder), {**tensors, "other": torch.arange(7)})


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES.keys())
def test_every_type_of_the_format_is_read(dtype: torch.dtype, tmp_path: Path):
    draw = torch.Generator().manual_seed(0)
    bits = torch.randint(0, 2 if dtype is torch.bool else 256, (3, 2, dtype.itemsize), generator=draw, dtype=torch.uint8)
    save_file({"x": bits.view(dtype).reshape(3, 2), "empty": torch.empty(0, 2, dtype=dtype)}, tmp_path / "x.safetensors")
    assert_equal(streamed(tmp_path), load_file(tmp_path / "x.safetensors"))


def test_a_single_number_keeps_its_shape(tmp_path: Path):
    save_file({"num_batches_tracked": torch.tensor(7)}, tmp_path / "x.safetensors")
    assert_equal(streamed(tmp_path), {"num_batches_tracked": torch.tensor(7)})


def test_bytes_between_tensors_are_passed_over(tmp_path: Path):
    raw_file(tmp_path / "x.safetensors", {"a": entry(0, 2), "b": entry(5, 6)}, b"abxxxc")
    assert {name: bytes(tensor.tolist()) for name, tensor in streamed(tmp_path).items()} == {"a": b"ab", "b": b"c"}


def test_tensors_that_lie_in_one_another_are_refused(tmp_path: Path):
    raw_file(tmp_path / "x.safetensors", {"a": entry(0, 4), "b": entry(2, 6)}, b"abcdef")
    with pytest.raises(Refused, match="lie in one another"):
        streamed(tmp_path)


def test_content_that_is_not_what_was_digested_is_told_with_both_digests(tmp_path: Path):
    for name in ("one", "two"):
        save_file({name: torch.ones(3)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(
        RunFailed, match=r"two.safetensors changed while it was read: its SHA-256 was abcd, now it is [0-9a-f]{64}"
    ) as caught:
        streamed(tmp_path, two="abcd")
    assert (caught.value.reason, caught.value.retryable) == ("BASE_MODEL_CHANGED", True)


def test_a_file_that_is_replaced_between_two_tensors_is_told(tmp_path: Path, s3: dict[str, str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ranges, "RANGE_BYTES", 256)
    save_file({f"{number}": torch.full((1000,), number, dtype=torch.float32) for number in range(4)}, tmp_path / "x.safetensors")
    folder = Folder(uploaded(tmp_path))
    files = {each.path: Object(folder=folder, entry=each) for each in folder.list()}
    tensors = iter(WeightStream(files, {}))
    next(tensors)
    save_file({f"{number}": torch.zeros(1000) for number in range(4)}, tmp_path / "x.safetensors")
    folder.put("x.safetensors", tmp_path / "x.safetensors")
    with pytest.raises(RunFailed, match=r"x\.safetensors changed while it was read") as caught:
        list(tensors)
    assert caught.value.reason == "OBJECT_CHANGED"
