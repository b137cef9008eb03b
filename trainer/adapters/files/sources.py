"""The bytes of adapter files: where they lie, checked before a tensor is read. A stranger may have written them: nothing is unpickled."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue
from safetensors.torch import load
from torch import Tensor

from lorafleet.catalog import FAMILIES
from lorafleet.errors import InvalidInput
from trainer import untrusted

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"  # PEFT's
PICKLED = "is pickled, and nothing is unpickled: it may run programs; save it as safetensors"
MAX_TOLD = 5
_PICKLED_ENDS = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
_PICKLES = (b"PK\x03\x04", *(bytes([0x80, protocol]) for protocol in range(2, 6)))  # how such files begin
_DTYPES = ("F32", "F16", "BF16", "F64")
Config = Mapping[str, JsonValue]


class Unreadable(InvalidInput):
    """An adapter file that cannot be used: what is wrong with it, and where."""

    reason = "UNREADABLE_ADAPTER"


@dataclass(frozen=True)
class Source:
    """A file's bytes. `part`: that its folder names; `config`: PEFT's."""

    name: str
    data: bytes
    part: str = ""
    config: Config | None = None


def of_path(path: Path) -> list[Source]:
    """A file, or PEFT's folder: an adapter in the folder itself, and those of text encoders in folders named after them."""
    if not path.is_dir():
        return [_lone(path)]
    names = sorted({part.name for family in FAMILIES.all() for part in (family.denoiser, *family.text_encoders)})
    found = [part for part in ("", *names) if (path / part / CONFIG).is_file() or (path / part / WEIGHTS).is_file()]
    if not found:
        pickled = any((path / name).is_file() for name in ("adapter_model.bin", "pytorch_lora_weights.bin"))
        raise Unreadable(f"{path} {PICKLED if pickled else f'has no {CONFIG} and {WEIGHTS}; name the file in it'}")
    return [_in_folder(path / part, part) for part in found]


def in_parts(files: Mapping[str, bytes]) -> list[Source]:
    """The same of a folder's files by name."""
    found = sorted(name for name in files if name.rpartition("/")[2] == WEIGHTS)
    return [_of_peft(name, files[name], files.get(name.removesuffix(WEIGHTS) + CONFIG)) for name in found]


def json_of(name: str, text: bytes) -> Config:
    try:
        return untrusted.json_object(text)
    except untrusted.Refused as why:
        raise Unreadable(f"{name} {why}") from None


def tensors(source: Source) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Its tensors, all finite, and what its metadata say. Raises Unreadable."""
    data, name = source.data, source.name
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(untrusted.MAX_HEADER_BYTES, len(data) - 8):
        raise Unreadable(
            f"{name} {PICKLED if data.startswith(_PICKLES) else 'is no safetensors file, or cut short: its header is not whole'}"
        )
    header = data[8 : 8 + length]
    try:
        entries = untrusted.json_object(header, max_bytes=untrusted.MAX_HEADER_BYTES)
        stored, said = untrusted.stored_in(entries, len(data) - 8 - length), entries.get("__metadata__")
    except untrusted.Refused as why:
        raise Unreadable(f"{name} {why}") from None
    if odd := [tensor for tensor, each in stored.items() if each.dtype not in _DTYPES]:
        raise Unreadable(f"{name}: {odd[0]} is {stored[odd[0]].dtype}; adapters are read in fp32, fp16 and bf16")
    found = load(data)
    if broken := [tensor for tensor, values in found.items() if not bool(values.isfinite().all())]:
        raise Unreadable(f"{name}: {some(broken)} {'has' if len(broken) == 1 else 'have'} numbers that are not finite (NaN or infinite)")
    return found, {key: value for key, value in said.items() if isinstance(value, str)} if isinstance(said, dict) else {}


def some(names: Sequence[str]) -> str:
    return ", ".join(names[:MAX_TOLD]) + (f" and {len(names) - MAX_TOLD} more" if len(names) > MAX_TOLD else "")


def _lone(path: Path) -> Source:
    if path.suffix.lower() in _PICKLED_ENDS:
        raise Unreadable(f"{path} {PICKLED}")
    beside = path.parent / CONFIG
    config = json_of(str(beside), beside.read_bytes()) if path.name == WEIGHTS and beside.is_file() else None
    return Source(str(path), path.read_bytes(), config=config)


def _in_folder(place: Path, part: str) -> Source:
    for name in (CONFIG, WEIGHTS):
        if not (place / name).is_file():
            raise Unreadable(f"{place} is half an adapter of PEFT: it has no {name}")
    return Source(str(place / WEIGHTS), (place / WEIGHTS).read_bytes(), part, json_of(str(place / CONFIG), (place / CONFIG).read_bytes()))


def _of_peft(name: str, data: bytes, config: bytes | None) -> Source:
    if config is None:
        raise Unreadable(f"{name.rpartition('/')[0] or 'the folder'} is half an adapter of PEFT: it has no {CONFIG}")
    return Source(name, data, name.rpartition("/")[0].rpartition("/")[2], json_of(name.removesuffix(WEIGHTS) + CONFIG, config))
