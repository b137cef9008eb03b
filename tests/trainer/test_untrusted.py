"""Whatever bytes lie where a config or a header should be: a bounded value comes out, or Refused. Never anything else."""

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from examples.demo import BASE_MODEL
from lorafleet.errors import RunFailed
from tests.trainer.prepare.test_base_model import inspect
from trainer import untrusted
from trainer.prepare.base_model import BaseModel
from trainer.untrusted import Refused

UNET = BASE_MODEL / "unet" / "diffusion_pytorch_model.safetensors"
ODD = [None, True, -1, 0, 2**62, 10**400, 1.5, "", "64", [], [[]], {}, [-1], [10**400], [True], [1] * 100, {"a": {}}]
VALUES = st.recursive(
    st.sampled_from(ODD) | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def header_of(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])


HEADER = header_of(UNET)
NUM_BYTES = max(entry["data_offsets"][1] for name, entry in HEADER.items() if name != "__metadata__")


def test_a_good_header_is_read():
    found = untrusted.tensors(json.dumps(HEADER).encode(), NUM_BYTES)
    assert found["conv_in.weight"].shape == (64, 4, 3, 3)


@given(st.binary(max_size=200) | st.text(alphabet='[]{}",:\\e0123456789.-nulltrueNaNInfinity ', max_size=200).map(str.encode))
def test_any_bytes_are_an_object_or_refused(text: bytes):
    with contextlib.suppress(Refused):
        assert isinstance(untrusted.json_object(text), dict)


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(["shape", "dtype", "data_offsets", ""]), VALUES)
def test_any_value_in_a_header_is_bounded_or_refused(field: str, value: Any):
    entry = HEADER["conv_in.weight"]
    changed = value if not field else {**entry, field: value}
    with contextlib.suppress(Refused):
        for stored in untrusted.tensors(json.dumps({**HEADER, "conv_in.weight": changed}).encode(), NUM_BYTES).values():
            assert len(stored.shape) <= 8
            assert stored.end <= NUM_BYTES


@pytest.mark.parametrize(
    "text", [b"[" * 10_000_000, b'{"a":' * 100_000, b'{"a": "' + b"[" * 100, b'"' * 1_000_001, b'{"a": 1e400}', b'{"a": -Infinity}']
)
def test_depth_and_size_are_known_before_parsing(text: bytes):
    with pytest.raises(Refused):
        untrusted.json_object(text, max_bytes=2**24)


@pytest.mark.parametrize("depth", [33, 10_000_000])
def test_nesting_is_refused_before_a_parser_recurses(depth: int):
    with pytest.raises(Refused, match=f"nested {depth} levels deep"):
        untrusted.json_object(b'{"a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}", max_bytes=2**25)


@pytest.mark.parametrize(("text", "depth"), [(b'{"a": "[[[["}', 1), (rb'{"a\"[[": [1, [2]]}', 3), (b"]]][[", 0), (b"", 0)])
def test_brackets_within_strings_are_not_nesting(text: bytes, depth: int):
    assert untrusted.nesting(text) == max(depth, 0)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(BASE_MODEL, tmp_path_factory.mktemp("fuzz") / "base"))


CONFIGS = ["model_index.json", "unet/config.json", "vae/config.json", "text_encoder/config.json", "scheduler/scheduler_config.json"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_base_with_any_value_in_a_config_is_found_or_refused(base: Path, data: st.DataObject):
    file = data.draw(st.sampled_from([*CONFIGS, "tokenizer/tokenizer_config.json"]))
    original = json.loads((BASE_MODEL / file).read_text())
    name = data.draw(st.sampled_from(sorted(original)))
    (base / file).write_text(json.dumps({**original, name: data.draw(VALUES)}))
    try:
        found = verdict(base)
    finally:
        shutil.copy(BASE_MODEL / file, base / file)
    assert isinstance(found, BaseModel) or (not found.retryable and len(found.message) < 2000)


def verdict(base: Path) -> BaseModel | RunFailed:
    try:
        return inspect(base, base.parent / "cache")
    except RunFailed as error:
        return error
