"""Whatever a tenant wrote, its parser answers with a value within limits or with an error, in a process of its own."""

import asyncio
import errno
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.core.concurrency import Lanes
from service.untrusted import child
from service.untrusted.parsing import Parser, ParserUnavailable, Unreadable

EXAMPLES = int(os.environ.get("LORAFLEET_FUZZ_EXAMPLES", "12")) * 2
FAMILY = {
    "denoiser_config": "unet/config.json",
    "autoencoder_config": "vae/config.json",
    "first_layer": "conv_in",
    "others": ["text_encoder"],
    "large": [False],
}
GOOD = {
    "denoiser": {"conv_in.weight": {"dtype": "F32", "shape": [4, 4, 3, 3], "data_offsets": [0, 576]}, "__metadata__": {"format": "pt"}},
    "unet": {"sample_size": 64},
    "vae": {"block_out_channels": [1, 2, 4, 4]},
    "other": {"a.bias": {"shape": [3]}},
}
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=2**31),
    st.floats(),
    st.text(max_size=5),
    st.just(float("inf")),
    st.just(10**400),
)
JSON = st.recursive(ODD, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=12)


def text_of(*parts: object) -> list[bytes]:
    return [json.dumps(part).encode() for part in parts]


def check(answer: dict) -> None:
    """A value that the memory model can count with, or one kind of error; small either way."""
    assert len(json.dumps(answer)) < child.ANSWER_BYTES
    if "error" in answer:
        assert set(answer) == {"error"}
        return
    numbers = [answer[name] for name in ("num_params", "num_other_params", "width", "pixels_per_latent")]
    assert all(type(number) is int and 0 <= number <= child.MAX_PARAMS for number in numbers)
    assert answer["latent_side"] is None or 1 <= answer["latent_side"] <= child.MAX_SIDE
    assert all(type(dim) is int and 0 <= dim <= child.MAX_DIM for shape in answer["layers"].values() for dim in shape)
    assert all(type(dim) is int for layers in answer["text_layers"].values() for shape in layers.values() for dim in shape)


@settings(max_examples=EXAMPLES, deadline=None)
@given(files=st.lists(st.binary(max_size=200), min_size=3, max_size=5))
def test_any_bytes_are_a_value_within_limits_or_an_error(files: list[bytes]):
    check(child.answer("shapes", [*text_of(FAMILY), *files]))


@settings(max_examples=EXAMPLES, deadline=None)
@given(kind=st.sampled_from(["scheduler", "shards"]), fields=st.dictionaries(st.sampled_from(["prediction_type", "weight_map", "a"]), JSON))
def test_any_scheduler_and_index_are_short_words_or_an_error(kind: str, fields: dict[str, object]):
    answer = child.answer(kind, text_of(fields))
    words = answer.get("names", [answer.get("prediction_type"), answer.get("error")])
    assert isinstance(words, list)
    assert len(words) <= child.MAX_SHARDS
    assert all(word is None or child.is_short(word) for word in words)


@settings(max_examples=EXAMPLES, deadline=None)
@given(part=st.sampled_from(sorted(GOOD)), value=JSON)
def test_any_json_is_a_value_within_limits_or_an_error(part: str, value: object):
    check(child.answer("shapes", text_of(FAMILY, *{**GOOD, part: value}.values())))


@settings(max_examples=EXAMPLES, deadline=None)
@given(part=st.sampled_from(sorted(GOOD)), place=st.integers(0, 60), byte=st.integers(0, 255), more=st.binary(max_size=3))
def test_good_files_with_damage_are_a_value_within_limits_or_an_error(part: str, place: int, byte: int, more: bytes):
    files = dict(zip(GOOD, text_of(*GOOD.values()), strict=True))
    text = bytearray(files[part])
    text[place % len(text)] = byte
    files[part] = bytes(text[: place + 1]) + more + bytes(text[place + 1 :])
    check(child.answer("shapes", [*text_of(FAMILY), *files.values()]))


@settings(max_examples=EXAMPLES, deadline=None)
@given(value=JSON, depth=st.integers(1, 40))
def test_depth_is_told_as_a_parser_would_find_it(value: object, depth: int):
    """Brackets within strings are none."""
    text = "[" * depth + json.dumps([value, '[{"', "\\", '\\"[']) + "]" * depth
    deepest = depth + 1 + _depth(value)
    try:
        child.check_depth("it", text.encode())
    except child.Bad:
        assert deepest > child.MAX_DEPTH
    else:
        assert deepest <= child.MAX_DEPTH


def _depth(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(_depth, inner), default=0)


def test_what_hides_its_brackets_in_another_encoding_is_no_json():
    hidden = ("\u5b22" + "[" * 100_000).encode("utf-16-le")
    assert "error" in child.answer("shapes", [*text_of(FAMILY), hidden, *text_of(GOOD["unet"], GOOD["vae"])])


def test_of_parents_a_manifest_tells_names_places_digests_and_weights_alone():
    digest = "ab" * 32
    good = {"name": "tenants/acme/adapters/fox/versions/1", "digest": digest, "weight": 1, "more": [1]}
    odd = [{"uri": "file:///a\n", "digest": digest}, {"digest": digest}, "x", {"uri": "s3://b/a", "digest": "short", "weight": 1e999}]
    manifest = {"format": "lorafleet-artifact-1", "files": {}, "parents": [good, *odd]}
    name = good["name"]
    told = [{"name": name, "digest": digest, "weight": 1.0}, {"uri": "s3://b/a"}]
    assert child.answer("manifest", text_of(manifest))["parents"] == told
    for none in ([good] * 65, {"a": good}, None):
        assert child.answer("manifest", text_of({**manifest, "parents": none}))["parents"] == []


def test_a_manifest_is_handed_on_as_far_as_it_names_files():
    sha256 = "ab" * 32
    manifest = {"format": "lorafleet-artifact-1", "files": {"a.safetensors": {"size_bytes": 3, "sha256": sha256, "more": [1]}}, "x": "y"}
    told = {"base_digest": "abc", "family": ["sd1"], "quality": {"clip": 1, "big": 10**400, "no": float("nan"), "../x": 1, "is": True}}
    found = child.answer("manifest", text_of({**manifest, **told}))
    files = {"a.safetensors": {"size_bytes": 3, "sha256": sha256}}
    words = {"words": {"base_digest": "abc"}, "quality": {"clip": 1.0}, "parents": []}
    assert found == {"format": "lorafleet-artifact-1", "files": files, **words}
    for bad in (
        {"a": {"size_bytes": -1, "sha256": sha256}},
        {"a": {"size_bytes": 10**400, "sha256": sha256}},
        {"a": 1},
        [],
        {"a" * 999: {}},
    ):
        assert "error" in child.answer("manifest", text_of({**manifest, "files": bad}))


async def test_what_takes_too_much_memory_ends_its_own_process_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(child, "__file__", str(_changed(tmp_path, "MEMORY_BYTES = 512", "MEMORY_BYTES = 64")))
    with pytest.raises(Unreadable, match="MemoryError"):
        await Parser(within_s=60).parse("manifest", [b'"' + b"a" * (30 * 2**20) + b'"'])


async def test_what_takes_too_much_cpu_time_is_its_own_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Of a child that would compute for ever."""
    monkeypatch.setattr(child, "__file__", str(_changed(tmp_path, "    kind, *sizes = arguments\n", "    limit()\n    while True: pass\n")))
    with pytest.raises(Unreadable, match="takes more than"):
        await Parser(within_s=30).parse("manifest", [b"{}"])


def _changed(folder: Path, before: str, after: str) -> Path:
    """The child, changed."""
    text = Path(child.__file__).read_text()
    assert before in text
    path = folder / "child.py"
    path.write_text(text.replace(before, after))
    return path


@pytest.mark.parametrize("lacks", ["time", "memory", "a process"])
async def test_what_the_machine_lacks_is_nobodys_fault(lacks: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Neither a clock that ran out on a busy machine, nor who ends for want of memory, nor a fork that fails."""
    parser = Parser(within_s=0.0 if lacks == "time" else 60)
    if lacks == "memory":
        killed = _changed(tmp_path, "    kind, *sizes = arguments\n", "    os.kill(os.getpid(), 9)\n")
        monkeypatch.setattr(child, "__file__", str(killed))
    if lacks == "a process":

        async def starts(*_command: str, **_how: object) -> None:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

        monkeypatch.setattr(asyncio, "create_subprocess_exec", starts)
    with pytest.raises(ParserUnavailable, match="it is tried again"):
        await parser.parse("manifest", [b'{"format": "lorafleet-artifact-1", "files": {}}'])


async def test_the_child_is_given_no_secret_of_the_server(monkeypatch: pytest.MonkeyPatch):
    """Neither in its environment, nor by importing anything from a folder that others write to."""
    started = {}

    async def starts(*command, **how):
        started.update(command=command, **how)
        raise RuntimeError

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setattr(asyncio, "create_subprocess_exec", starts)
    with pytest.raises(RuntimeError):
        await Parser().parse("shapes", [b"", b"", b""])
    assert not set(started["env"]) - {"LD_LIBRARY_PATH"}
    assert {"-I", "-S"} <= set(started["command"])


async def test_a_tenant_has_one_lane_however_much_it_asks_for():
    lanes, busy, most = Lanes(2), {"evil": 0}, 0
    gate = asyncio.Event()

    async def work(tenant: str) -> None:
        nonlocal most
        async with lanes.of(tenant):
            if tenant == "evil":
                busy[tenant] += 1
                most = max(most, busy[tenant])
                await gate.wait()
                busy[tenant] -= 1

    evil = [asyncio.create_task(work("evil")) for _ in range(5)]
    await asyncio.wait_for(work("acme"), 10)
    gate.set()
    await asyncio.wait_for(asyncio.gather(*evil), 10)
    assert most == 1
    assert not lanes._lanes, "and nobody is remembered"
