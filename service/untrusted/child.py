"""Parses what a tenant wrote, as a process of its own: limits first, then one request from stdin, one small answer to stdout.

Run as `python -I -S child.py KIND SIZE...`; stdin holds files of these sizes, one after another. It is nobody's module and
imports the standard library alone, so that it starts in some 20 ms. Its answer is JSON: what was asked for, or `{"error": ...}`.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
from math import prod

TYPE_CHECKING = False  # typing would take a sixth of a child's life to import
if TYPE_CHECKING:
    from typing import TypeGuard

    from pydantic import JsonValue

MEMORY_BYTES = 512 * 2**20  # address space; an interpreter takes some 20 MiB of it
CPU_S = 2
ANSWER_BYTES = 2 * 2**20
MAX_DEPTH = 16  # of JSON: a header has 3, a config of diffusers some more
MAX_TENSORS = 20_000  # of one file; SDXL's denoiser has 1,680
MAX_LAYERS = 4_096  # of all parts that adapters sit on; SDXL has some 1,100
MAX_SHARDS = 64  # of one part; Flux's denoiser has 3
MAX_FIELDS = 500  # of a config; a UNet's has some 70
MAX_FILES = 10_000  # of an artifact
ADAPTER_BYTES = {"F32": 4, "F16": 2, "BF16": 2}  # of the types of numbers that adapters have
MAX_FIGURES = 50  # of its quality
MAX_PARENTS = 64  # that it was made of
MAX_NAME = 256  # characters
MAX_URI = 2_000  # characters
MAX_DIMS = 8
MAX_DIM = 2**40
MAX_PARAMS = 2**45  # hundreds of times what anybody trains: a footprint stays a number that fits everywhere
MAX_WIDTH = 2**14
MAX_SIDE = 2**12  # latents
MAX_BLOCKS = 10

SHA256 = re.compile(r"[0-9a-f]{64}")
FIGURE = re.compile(r"[a-z][a-z0-9_]{0,62}")
_STRINGS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_AS_SQUARE = bytes.maketrans(b"{}", b"[]")


class Bad(Exception):
    """Says what is wrong, in words of ours: the file's own are its owner's."""


def main(arguments: list[str]) -> None:
    kind, *sizes = arguments
    limit()
    files = [sys.stdin.buffer.read(int(size)) for size in sizes]
    sys.stdout.write(json.dumps(answer(kind, files)))


def answer(kind: str, files: list[bytes]) -> dict[str, object]:
    """What was asked for, or an error. Whatever the files are, within the limits."""
    try:
        return KINDS[kind](*files)
    except Bad as error:
        return {"error": str(error)}
    except (MemoryError, RecursionError, ArithmeticError, ValueError, TypeError, LookupError) as error:
        return {"error": f"it cannot be parsed ({type(error).__name__})"}


def limit() -> None:
    os.nice(10)
    for what, most in (("AS", MEMORY_BYTES), ("FSIZE", ANSWER_BYTES), ("CORE", 0)):
        resource.setrlimit(getattr(resource, f"RLIMIT_{what}"), (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S + 1))  # SIGXCPU at the first; at the second SIGKILL, as from anybody


def shapes(family: bytes, denoiser: bytes, denoiser_config: bytes, autoencoder_config: bytes, *others: bytes) -> dict[str, object]:
    """What the memory model counts with, of headers and configs.

    `family` is ours: JSON that says where the configs lie, which layer of the denoiser is the first, which list of the autoencoder's
    config has its levels, for each of `others` the name of its part where an adapter may sit on it, else nothing, and which are `large`.
    """
    known = json.loads(family)
    tensors = header("the denoiser's header", denoiser)
    configs = parsed(known["denoiser_config"], denoiser_config), parsed(known["autoencoder_config"], autoencoder_config)
    first = tensors.get(f"{known['first_layer']}.weight") or []
    rest = [header_or_nothing(other) for other in others]
    layers = {part: layers_of(found) for part, found in zip(known["others"], rest, strict=True) if part}
    if len(layers_of(tensors)) + sum(map(len, layers.values())) > MAX_LAYERS:
        raise Bad(f"the base has more than {MAX_LAYERS:,} layers")
    return {
        "layers": layers_of(tensors),
        "num_params": num_params(tensors),
        "num_other_params": sum(num_params(found) for found, is_large in zip(rest, known["large"], strict=True) if not is_large),
        "num_large_params": sum(num_params(found) for found, is_large in zip(rest, known["large"], strict=True) if is_large),
        "width": whole("the first layer's number of channels", first[0] if len(first) in (2, 4) else None, MAX_WIDTH),
        "latent_side": side(known["denoiser_config"], configs[0].get("sample_size")),
        "pixels_per_latent": 2 ** (num_levels(known["autoencoder_config"], known["levels"], configs[1]) - 1),
        "text_layers": layers,
    }


def layers_of(tensors: dict[str, list[int]]) -> dict[str, list[int]]:
    """Those that an adapter may sit on, with their weights' shapes."""
    return {name.removesuffix(".weight"): shape for name, shape in tensors.items() if name.endswith(".weight") and len(shape) in (2, 4)}


def scheduler(text: bytes) -> dict[str, object]:
    """What it predicts, where it says so: a short word, or nothing for what is none."""
    found = parsed("scheduler/scheduler_config.json", text)
    return {key: value if is_short(value := found[key]) else None for key in ("prediction_type",) if key in found}


def plain(text: bytes) -> dict[str, object]:
    """What a config says in a word or a number, or in a short list of these: enough to tell what it is a config of."""
    found = parsed("a config", text)
    if len(found) > MAX_FIELDS or not all(map(is_short, found)):
        raise Bad(f"a config has more than {MAX_FIELDS} fields, or one with a name of more than {MAX_NAME} characters")
    return {"fields": {name: value for name, value in found.items() if is_plain(value)}}


def tensors(text: bytes) -> dict[str, object]:
    """The shapes of a file whose names are another code's than diffusers'."""
    return {"shapes": header("the file's header", text)}


def adapter(text: bytes, num_data_bytes: bytes) -> dict[str, object]:
    """The tensors of an adapter file whose header this is: [type, shape, begin, end], each within the file and as long as its shape needs;
    and the short words of its metadata. `num_data_bytes`: JSON of how many follow the header, or null where that is not known."""
    what = "the file's header"
    check_depth(what, text)
    entries = as_object(what, loaded(what, text))
    said = entries.pop("__metadata__", None)
    if not 0 < len(entries) <= MAX_TENSORS or not all(map(is_short, entries)):
        raise Bad(f"the file names no tensor, or more than {MAX_TENSORS:,}, or one with a name of more than {MAX_NAME} characters")
    found = {name: stored(what, of) for name, of in entries.items()}
    end, there = max(each[3] for each in found.values()), json.loads(num_data_bytes)
    if there is not None and there != end:
        raise Bad(f"the file is cut short, or has bytes after its last tensor: {there:,} of {end:,}")
    words = {name: word for name, word in said.items() if is_short(word)} if isinstance(said, dict) and len(said) <= MAX_FIELDS else {}
    return {"tensors": found, "metadata": words}


def stored(what: str, of: JsonValue) -> tuple[str, list[int], int, int]:
    shape = shape_of(what, of)
    dtype, offsets = (of.get("dtype"), of.get("data_offsets")) if isinstance(of, dict) else (None, None)
    if dtype not in ADAPTER_BYTES:
        raise Bad(f"{what} has a tensor that is none of {', '.join(ADAPTER_BYTES)}, as adapters are read")
    if not isinstance(offsets, list) or len(offsets) != 2:
        raise Bad(f"{what} has a tensor without its place in the file")
    begin, end = (whole(f"{what} has a place that", offset, MAX_DIM, least=0) for offset in offsets)
    if end - begin != prod(shape) * ADAPTER_BYTES[str(dtype)]:
        raise Bad(f"{what} has a tensor whose shape and bytes differ")
    return str(dtype), shape, begin, end


def is_plain(value: JsonValue) -> bool:
    if isinstance(value, list):
        return len(value) <= MAX_BLOCKS and not any(isinstance(each, list) or not is_plain(each) for each in value)
    return value is None or isinstance(value, float) or is_short(value) or (isinstance(value, int) and abs(value) <= MAX_PARAMS)


def shards(index: bytes) -> dict[str, object]:
    """The files over which a part's weights are spread."""
    where = parsed("the index of a part's shards", index).get("weight_map")
    if not isinstance(where, dict) or len(where) > MAX_TENSORS or not all(map(is_short, where.values())):
        raise Bad(f"the index of a part's shards has no weight_map, or one of more than {MAX_TENSORS:,} tensors")
    names = sorted({*filter(is_short, where.values())})
    if not 0 < len(names) <= MAX_SHARDS:
        raise Bad(f"a part is in no shard, or in more than {MAX_SHARDS}")
    return {"names": names}


def manifest(text: bytes) -> dict[str, object]:
    """The files of an artifact, as far as they are what a manifest says of files, and a few short words of what it is."""
    found = parsed("manifest.json", text)
    files = found.get("files")
    if not isinstance(files, dict) or len(files) > MAX_FILES:
        raise Bad(f'manifest.json has no "files", or more than {MAX_FILES:,}')
    kept = {path: {key: of.get(key) for key in ("size_bytes", "sha256")} for path, of in files.items() if isinstance(of, dict)}
    if len(kept) < len(files) or not all(map(is_short, (*kept, *(of["sha256"] for of in kept.values()), found.get("format")))):
        raise Bad("manifest.json says of a file what is no size and no digest, or has words that are too long")
    for of in kept.values():
        of["size_bytes"] = whole("a file's size", of["size_bytes"], MAX_DIM * MAX_FILES, least=0)
    words = {key: value for key in ("base_digest", "family") if is_short(value := found.get(key))}
    told = {"words": words, "quality": figures(found.get("quality")), "parents": parents(found.get("parents"))}
    return {"format": found["format"], "files": kept, **told}


def figures(quality: JsonValue) -> dict[str, float]:
    """Those that are numbers. One that is none, or not finite, is left out: a figure is nothing to fail of."""
    some = quality if isinstance(quality, dict) and len(quality) <= MAX_FIGURES else {}
    return {name: float(value) for name, value in some.items() if is_finite(value) and FIGURE.fullmatch(name)}


def parents(told: JsonValue) -> list[dict[str, JsonValue]]:
    """What the artifact was made of, as far as it is told in the words for that; what is odd is left out, as of figures."""
    some = told if isinstance(told, list) and len(told) <= MAX_PARENTS else []
    return [kept for each in some if isinstance(each, dict) and (kept := parent(each))]


def parent(told: dict[str, JsonValue]) -> dict[str, JsonValue]:
    kept: dict[str, JsonValue] = {}
    for key in ("name", "uri"):
        if isinstance(value := told.get(key), str) and 0 < len(value) <= MAX_URI and value.isprintable():
            kept[key] = value
    if isinstance(digest := told.get("digest"), str) and SHA256.fullmatch(digest):
        kept["digest"] = digest
    if is_finite(weight := told.get("weight")):
        kept["weight"] = float(weight)
    return kept if "name" in kept or "uri" in kept else {}


def is_finite(value: JsonValue) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300  # and so no NaN


def header(what: str, text: bytes) -> dict[str, list[int]]:
    """Tensor name -> shape; of shards, which come as a list of their headers, all of them."""
    check_depth(what, text)
    each = loaded(what, text)
    found: dict[str, JsonValue] = {}
    for one in each if isinstance(each, list) else [each]:
        found |= as_object(what, one)
    found.pop("__metadata__", None)
    if len(found) > MAX_TENSORS or not all(map(is_short, found)):
        raise Bad(f"{what} names more than {MAX_TENSORS:,} tensors, or one with a name of more than {MAX_NAME} characters")
    return {name: shape_of(what, of) for name, of in found.items()}


def header_or_nothing(text: bytes) -> dict[str, list[int]]:
    """Of a part that may be missing: the trainer tells the user about it."""
    try:
        return header("a header", text) if text else {}
    except (Bad, ValueError):
        return {}


def shape_of(what: str, of: JsonValue) -> list[int]:
    shape = of.get("shape") if isinstance(of, dict) else None
    if not isinstance(shape, list) or len(shape) > MAX_DIMS:
        raise Bad(f"{what} has a tensor whose shape is no list of up to {MAX_DIMS} numbers")
    return [whole(f"{what} has a dimension that", dim, MAX_DIM, least=0) for dim in shape]


def num_params(tensors: dict[str, list[int]]) -> int:
    num = sum(map(prod, tensors.values()))
    if num > MAX_PARAMS:
        raise Bad("a part has more parameters than any model")
    return num


def side(config: str, sample_size: JsonValue) -> int | None:
    """Of a base that is not square the longer; none of one that does not say, which is trained at the resolution of the spec."""
    if sample_size is None:
        return None
    sides = sample_size if isinstance(sample_size, list) and len(sample_size) == 2 else [sample_size]
    return max(whole(f"{config}: sample_size", one, MAX_SIDE) for one in sides)


def num_levels(where: str, name: str, config: dict[str, JsonValue]) -> int:
    levels = config.get(name)
    return whole(f"{where}: {name}", len(levels) if isinstance(levels, list) else None, MAX_BLOCKS)


def whole(what: str, value: JsonValue, most: int, *, least: int = 1) -> int:
    if type(value) is not int or not least <= value <= most:  # a bool is an int to Python, and none to us
        raise Bad(f"{what} is no whole number from {least} to {most:,}")
    return value


def is_short(text: JsonValue) -> TypeGuard[str]:
    return isinstance(text, str) and len(text) <= MAX_NAME


def parsed(what: str, text: bytes) -> dict[str, JsonValue]:
    """A JSON object. Its depth is known before it is parsed: a parser that calls itself would use up the stack."""
    check_depth(what, text)
    return as_object(what, loaded(what, text))


def loaded(what: str, text: bytes) -> JsonValue:
    try:
        return json.loads(text.decode())  # UTF-8 and nothing else: the depth was told from its bytes
    except ValueError:
        raise Bad(f"{what} is no JSON") from None


def as_object(what: str, found: JsonValue) -> dict[str, JsonValue]:
    if not isinstance(found, dict):
        raise Bad(f"{what} is no JSON object")
    return found


def check_depth(what: str, text: bytes) -> None:
    """Takes the innermost pairs of brackets away, again and again: what is left then was nested deeper, or never closed."""
    brackets = _STRINGS.sub(b"", text).translate(_AS_SQUARE, _NO_BRACKETS)
    for _ in range(MAX_DEPTH):
        brackets = brackets.replace(b"[]", b"")
    if brackets:
        raise Bad(f"{what} is nested deeper than {MAX_DEPTH}, or is no JSON")


KINDS = {
    "shapes": shapes,
    "plain": plain,
    "tensors": tensors,
    "shards": shards,
    "scheduler": scheduler,
    "manifest": manifest,
    "adapter": adapter,
}

if __name__ == "__main__":
    main(sys.argv[1:])
