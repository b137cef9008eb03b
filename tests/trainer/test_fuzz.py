"""Whatever lies in a data set or a base, its preparation comes to a value within bounds or to RunFailed, in bounded time and memory.

Good files are damaged (bytes changed, cut off, put in, files joined) or made up. LORAFLEET_FUZZ_EXAMPLES sets how many of each
there are (12); `make fuzz` takes many more.
"""

import io
import json
import os
import resource
import shutil
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from examples.demo import BASE_MODEL
from lorafleet.errors import RunFailed
from lorafleet.spec import BaseModelSpec, DatasetSpec
from trainer.data import captions, decode, readers
from trainer.prepare import base_model
from trainer.prepare.base_model import BaseModel
from trainer.storage import Folder

FUZZ = settings(
    max_examples=int(os.environ.get("LORAFLEET_FUZZ_EXAMPLES", "12")) * 2,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
CPU_S = 20.0  # of one example: a picture at the bounds takes a few
PEAK_BYTES = decode.IN_FLIGHT_BYTES + 2**29
NEEDED = ("unet", "vae", "text_encoder")


@contextmanager
def bounded() -> Iterator[None]:
    """What is done within takes neither long nor much. By the process's own time: other processes take this machine's, too."""
    began_s, began_bytes = time.process_time(), _peak_bytes()
    yield
    assert time.process_time() - began_s < CPU_S
    assert _peak_bytes() - began_bytes < PEAK_BYTES


def check(refusal: decode.UnreadablePicture | RunFailed) -> None:
    """It says why in few words; what is so again next time is not tried again."""
    assert len(str(refusal)) < 8000
    assert not getattr(refusal, "retryable", False)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# Damage


@st.composite
def damaged(draw: Callable[..., Any], good: list[bytes]) -> bytes:
    """A good file to which something has happened, up to four times."""
    content = draw(st.sampled_from(good))
    for _ in range(draw(st.integers(1, 4))):
        # Most of what makes a file odd stands near its beginning.
        place = draw(st.one_of(st.integers(0, min(100, len(content))), st.integers(0, len(content))))
        match draw(st.sampled_from(("set", "cut", "put", "join", "repeat", "number"))):
            case "set":
                content = content[:place] + draw(st.binary(min_size=1, max_size=4)) + content[place + 1 :]
            case "cut":
                content = content[:place]
            case "put":
                content = content[:place] + draw(st.binary(max_size=30)) + content[place:]
            case "join":
                content = content[:place] + draw(st.sampled_from(good))[place:]
            case "repeat":
                content = content[:place] + content[place : place + 40] * draw(st.integers(0, 200)) + content[place:]
            case "number":  # sizes, counts and offsets of every format
                number = draw(st.sampled_from((0, 1, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF)))
                content = content[:place] + struct.pack(draw(st.sampled_from("<>")) + "I", number) + content[place + 4 :]
    return content


# Pictures


@cache
def good_pictures() -> list[bytes]:
    """One of every format that is read, and of every mode that is treated by itself."""
    text = PngInfo()
    text.add_text("parameters", "a prompt " * 40)
    text.add_text("packed", "long " * 500, zip=True)
    made = [
        _saved("RGB", "PNG", pnginfo=text),
        _saved("RGB", "PNG", transparency=(0, 0, 0)),
        *(_saved(mode, "PNG") for mode in ("1", "L", "LA", "P", "RGBA", "I;16")),
        _saved("L", "PNG", transparency=0),
        *(_saved(mode, "JPEG", progressive=progressive) for mode in ("L", "RGB", "CMYK") for progressive in (False, True)),
        *(_saved("RGBA", form) for form in ("WEBP", "AVIF", "TIFF")),
        _saved("RGB", "WEBP", lossless=True),
        *(_saved(mode, "TIFF", compression=packed) for mode in ("F", "RGB") for packed in ("raw", "tiff_lzw", "tiff_adobe_deflate")),
        *(_saved(mode, "BMP") for mode in ("1", "P", "RGB")),
        _saved("P", "GIF", save_all=True, append_images=[Image.new("P", (20, 24), 3)]),
    ]
    profile = Image.open(io.BytesIO(made[0]))
    from PIL import ImageCms

    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return [*made, _written(profile, "PNG", icc_profile=srgb), _written(profile, "JPEG", icc_profile=srgb, exif=_turned())]


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def _saved(mode: str, form: str, **options: Any) -> bytes:
    drawn = Image.linear_gradient("L").resize((20, 24))
    return _written(drawn.convert("I").convert(mode) if mode == "I;16" else drawn.convert(mode), form, **options)


def _written(picture: Image.Image, form: str, **options: Any) -> bytes:
    into = io.BytesIO()
    picture.save(into, form, **options)
    return into.getvalue()


def test_the_good_pictures_are_good():
    assert {decode.unpack(content).picture.size for content in good_pictures()} == {(20, 24), (24, 20)}


@FUZZ
@given(data=st.data())
def test_a_damaged_picture_is_read_within_bounds_or_refused(data: st.DataObject):
    content = data.draw(damaged(good_pictures()))
    with bounded():
        try:
            found = decode.unpack(content)
        except decode.UnreadablePicture as why:
            check(why)
            return
    assert found.picture.mode == "RGB"
    assert 0 < found.width * found.height <= decode.MAX_PIXELS


@FUZZ
@given(
    content=st.binary(max_size=300), like=st.sampled_from((b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF", b"BM", b"II*\0", b"GIF89a"))
)
def test_bytes_that_begin_like_a_picture_are_read_or_refused(content: bytes, like: bytes):
    with bounded():
        try:
            decode.unpack(like + content)
        except decode.UnreadablePicture as why:
            check(why)


# Captions


GOOD_ROWS = [
    b'{"file_name": "a.png", "text": "an emoji of a cat"}\n{"file_name": "b/c.png", "text": "x \\u00e9 \\ud83d\\ude00"}\n',
    b'file_name,text\na.png,"one, and ""two"""\nb/c.png,"over\ntwo lines"\n',
    "file_name;text\r\na.png;schön\r\nb/c.png;x\r\n".encode(),
    b'\xef\xbb\xbf{"file_name": "./a.png", "text": "x", "tags": [[1, {"a": null}]]}\n\n{"file_name": "b\\\\c.png", "text": "y"}',
]
ODD_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(("a.png", "../a.png", "b/c.png", "\ud83d", "\0")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
METADATA = st.sampled_from(("metadata.jsonl", "metadata.csv", "b/metadata.jsonl", "a.txt", "a.png.txt", "b/c.caption"))
_number = count()


def read(tmp_path: Path, files: dict[str, bytes], **fields: Any) -> readers.DataSet | None:
    """None: it was refused as a data set is."""
    folder = tmp_path / f"data-{next(_number)}"
    for name, content in {"a.png": good_pictures()[0], "b/c.png": good_pictures()[3], **files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    try:
        with bounded():
            found = readers.read(DatasetSpec(uri=f"file://{folder}", **fields))
            assert len(found.digest) == 64
    except RunFailed as error:
        check(error)
        return None
    finally:
        shutil.rmtree(folder)
    assert all(len(picture.caption) <= captions.MAX_CAPTION for picture in found.pictures)
    return found


@FUZZ
@given(data=st.data(), name=METADATA)
def test_damaged_metadata_are_read_or_refused(tmp_path: Path, data: st.DataObject, name: str):
    read(tmp_path, {name: data.draw(damaged(GOOD_ROWS))})


@FUZZ
@given(row=ODD_VALUES, name=st.sampled_from(("metadata.jsonl", "b/metadata.jsonl")), repeat=st.integers(1, 3))
def test_rows_of_any_json_are_read_or_refused(tmp_path: Path, row: object, name: str, repeat: int):
    wrapped = [row, {"file_name": row, "text": "x"}, {"file_name": "a.png", "text": row}]
    text = "".join(f"{json.dumps(each)}\n" for each in wrapped * repeat)
    read(tmp_path, {name: text.encode(errors="surrogatepass")}, on_missing_caption="skip")


@FUZZ
@given(depth=st.integers(1, 200_000), bracket=st.sampled_from(("[", '{"a":', '["', "[{")))
def test_depth_and_length_are_refused_and_not_followed(tmp_path: Path, depth: int, bracket: str):
    read(tmp_path, {"metadata.jsonl": b'{"file_name": "a.png", "text": "x", "y": ' + bracket.encode() * depth})


@FUZZ
@given(names=st.lists(st.binary(min_size=1, max_size=120).filter(lambda name: not {b"/", b"\0"} & set(map(bytes, zip(name)))), max_size=4))
def test_files_of_any_name_are_read_or_passed_over(tmp_path: Path, names: list[bytes]):
    folder = tmp_path / f"named-{next(_number)}"
    folder.mkdir()
    (folder / "a.png").write_bytes(good_pictures()[0])
    for name in names:
        if name not in {b".", b".."}:
            Path(os.fsdecode(bytes(folder) + b"/" + name + b".png")).write_bytes(good_pictures()[0])
    try:
        with bounded():
            found = readers.read(DatasetSpec(uri=f"file://{folder}", trigger_phrase="sks", on_corrupt="skip", max_corrupt_fraction=1.0))
        assert len(found.digest) == 64
    except RunFailed as error:
        check(error)
    finally:
        shutil.rmtree(folder)


# Bases


def inspected(tmp_path: Path, changed: dict[str, bytes]) -> BaseModel | None:
    """None: it was refused as a base is."""
    folder = tmp_path / f"base-{next(_number)}"
    for path in sorted(BASE_MODEL.rglob("*.*")):
        name = path.relative_to(BASE_MODEL).as_posix()
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if name in changed:
            (folder / name).write_bytes(changed[name])
        else:
            (folder / name).hardlink_to(_beside(tmp_path, path))
    try:
        with bounded():
            return base_model.inspect(BaseModelSpec(uri=f"file://{folder}"), Folder(f"file://{tmp_path / 'cache'}"))
    except RunFailed as error:
        check(error)
        return None
    finally:
        shutil.rmtree(folder)


def _beside(tmp_path: Path, path: Path) -> Path:
    """A copy on the same file system, which a hard link needs."""
    kept = tmp_path / "kept" / path.relative_to(BASE_MODEL)
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, kept)
    return kept


CONFIGS = (
    "model_index.json",
    *(f"{part}/config.json" for part in NEEDED),
    "scheduler/scheduler_config.json",
    "tokenizer/tokenizer_config.json",
)


def test_the_good_base_is_good(tmp_path: Path):
    found = inspected(tmp_path, {})
    assert found is not None
    assert found.resolution == 64


@FUZZ
@given(data=st.data(), name=st.sampled_from(CONFIGS))
def test_a_base_with_a_damaged_config_is_read_or_refused(tmp_path: Path, data: st.DataObject, name: str):
    inspected(tmp_path, {name: data.draw(damaged([(BASE_MODEL / name).read_bytes()]))})


@FUZZ
@given(data=st.data(), name=st.sampled_from(CONFIGS))
def test_a_base_with_any_value_in_a_config_is_read_or_refused(tmp_path: Path, data: st.DataObject, name: str):
    config = json.loads((BASE_MODEL / name).read_bytes())
    for key in data.draw(st.lists(st.sampled_from(sorted(config)), min_size=1, max_size=3)):
        config[key] = data.draw(ODD_VALUES | st.sampled_from((10**400, float("inf"), float("nan"), -1, [], {}, [0, 0], "x" * 10_000)))
    inspected(tmp_path, {name: json.dumps(config).encode()})


@FUZZ
@given(data=st.data(), part=st.sampled_from(NEEDED))
def test_a_base_with_a_damaged_header_is_read_or_refused(tmp_path: Path, data: st.DataObject, part: str):
    name = f"{part}/{'model' if part == 'text_encoder' else 'diffusion_pytorch_model'}.safetensors"
    content = (BASE_MODEL / name).read_bytes()
    length = 8 + int.from_bytes(content[:8], "little")
    header = data.draw(damaged([content[:length]]))
    if data.draw(st.booleans()):  # the damage is not told by the length alone
        header = struct.pack("<Q", max(0, len(header) - 8)) + header[8:]
    inspected(tmp_path, {name: header + content[length:]})


def test_a_header_of_no_length_is_refused_for_good(tmp_path: Path):
    """A range of no bytes is none to a store, which then seemed not to answer."""
    assert inspected(tmp_path, {"unet/diffusion_pytorch_model.safetensors": bytes(1000)}) is None


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":['])
def test_a_header_of_brackets_is_refused(tmp_path: Path, opening: bytes):
    deep = opening * 100_000
    for name in CONFIGS:
        assert inspected(tmp_path, {name: deep}) is None
    assert inspected(tmp_path, {"unet/diffusion_pytorch_model.safetensors": struct.pack("<Q", len(deep)) + deep}) is None
