"""The frozen base in the store: is it whole, of which family, which modules can be trained. Reads headers only; no torch.

The layout is diffusers' (model_index.json and a folder for each part); weights are safetensors, for nothing is unpickled.
"""

import difflib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorafleet.errors import RunFailed, Violation
from lorafleet.spec import BaseModelSpec
from trainer.storage import Folder

# What model_index.json must name for a base to be of a family.
_PIPELINES = {"sd1": "StableDiffusionPipeline"}
_PARTS = {"sd1": ("unet", "vae", "text_encoder", "tokenizer", "scheduler")}
_WEIGHTS = ("diffusion_pytorch_model.safetensors", "model.safetensors")
_MAX_HEADER_BYTES = 100 * 2**20


@dataclass(frozen=True, kw_only=True)
class BaseModel:
    """A base that was found whole."""

    uri: str
    family: str
    files: Mapping[str, str]  # path -> SHA-256, every file that loading needs
    trainable: Mapping[str, int]  # denoiser module that a LoRA can sit on -> 2 (linear) or 4 (convolution)
    vae_factor: int  # pixels per latent, along a side
    resolution: int  # pixels; what the base was trained at
    resolution_step: int  # sides must be multiples of this

    @property
    def digest(self) -> str:
        return self.part_digest("")

    def part_digest(self, part: str) -> str:
        """SHA-256 over the files of one part, such as `vae`; all of them for the empty string."""
        lines = (f"{path}\0{sha256}\n" for path, sha256 in sorted(self.files.items()) if path.startswith(part))
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def inspect(spec: BaseModelSpec, cache: Folder) -> BaseModel:
    """Reads configs and headers, and digests every file once per content.

    Raises RunFailed: BASE_MODEL_INCOMPLETE, BASE_MODEL_OTHER_FAMILY, BASE_MODEL_PICKLED, or the store's own reasons.
    """
    folder = Folder(spec.uri)
    entries = {entry.path: entry for entry in folder.list()}
    _check_family(spec, folder, entries)
    paths = sorted(path for path in entries if path == "model_index.json" or _is_needed(spec.family, path))
    _check_whole(spec, paths, entries)
    headers = {path: _header(folder, path, entries[path].size_bytes) for path in paths if path.endswith(".safetensors")}
    unet, vae = _config(folder, "unet", "sample_size", "block_out_channels"), _config(folder, "vae", "block_out_channels")
    factor = 2 ** (len(vae["block_out_channels"]) - 1)
    return BaseModel(
        uri=spec.uri,
        family=spec.family,
        files=_digests(folder, {path: entries[path].version for path in paths}, cache),
        trainable=_trainable(next(header for path, header in headers.items() if path.startswith("unet/"))),
        vae_factor=factor,
        resolution=unet["sample_size"] * factor,
        resolution_step=factor * 2 ** (len(unet["block_out_channels"]) - 1),
    )


def check_target_modules(base: BaseModel, target_modules: Sequence[str]) -> list[Violation]:
    """Every name must be the end of the path of a linear or convolution layer, as PEFT matches them."""
    violations: list[Violation] = []
    containers = {module[:end] for module in base.trainable for end, letter in enumerate(module) if letter == "."}
    for index, name in enumerate(target_modules):
        if caught := [module for module in containers if module == name or module.endswith(f".{name}")]:
            message = f'"{name}" also matches {min(caught)}, which is not a layer; write more of its path'
            violations.append(Violation(field=f"adapter.target_modules[{index}]", message=message))
        elif not any(module == name or module.endswith(f".{name}") for module in base.trainable):
            endings = {module.rpartition(".")[2] for module in base.trainable} | {_two_parts(module) for module in base.trainable}
            close = difflib.get_close_matches(name, endings, n=1)
            hint = f"; close: {close[0]}" if close else ""
            message = f'"{name}" matches no linear or convolution layer of this {base.family} UNet{hint}'
            violations.append(Violation(field=f"adapter.target_modules[{index}]", message=message))
    return violations


def check_resolution(base: BaseModel, resolution: int) -> list[Violation]:
    """The UNet halves the latents several times: sides must divide."""
    if resolution % base.resolution_step == 0:
        return []
    nearest = max(1, round(resolution / base.resolution_step)) * base.resolution_step
    message = f"{resolution} is not a multiple of {base.resolution_step}, which this base needs; nearest: {nearest}"
    return [Violation(field="dataset.resolution", message=message)]


def materialise(base: BaseModel) -> Path:
    """A local folder with the base's files: in place for file://, else in the node's cache, downloaded once per content."""
    if base.uri.startswith("file://"):
        return Path(base.uri.removeprefix("file://"))
    cache = Path(os.environ.get("LORAFLEET_NODE_CACHE", "~/.cache/lorafleet")).expanduser() / "bases" / base.digest
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / ".lock"):
        missing = [path for path in base.files if not (cache / path).exists()]
        if missing:
            Folder(base.uri).download(missing, into=cache)
        for path in missing:
            if _sha256_of(cache / path) != base.files[path]:
                (cache / path).unlink()
                raise RunFailed(
                    f"base_model.uri: {base.uri}/{path} changed while it was read; try again", reason="BASE_MODEL_CHANGED", retryable=True
                )
    return cache


def _check_family(spec: BaseModelSpec, folder: Folder, entries: Mapping[str, Any]) -> None:
    if "model_index.json" not in entries:
        raise RunFailed(
            f"base_model.uri: {spec.uri} has no model_index.json; it must be a folder as diffusers' save_pretrained writes it",
            reason="BASE_MODEL_INCOMPLETE",
        )
    found = _json(folder, "model_index.json").get("_class_name")
    if found != _PIPELINES[spec.family]:
        raise RunFailed(
            f"base_model.family: {spec.uri} is a {found}, but family {spec.family} is a {_PIPELINES[spec.family]}",
            reason="BASE_MODEL_OTHER_FAMILY",
        )


def _is_needed(family: str, path: str) -> bool:
    part, _, name = path.partition("/")
    return part in _PARTS[family] and (name in _WEIGHTS or name.endswith((".json", ".txt")))


def _check_whole(spec: BaseModelSpec, paths: Sequence[str], entries: Mapping[str, Any]) -> None:
    missing = [part for part in _PARTS[spec.family] if not any(path.startswith(f"{part}/") and path.endswith(".json") for path in paths)]
    with_weights = [part for part in _PARTS[spec.family] if part in {"unet", "vae", "text_encoder"} and part not in missing]
    unweighted = [part for part in with_weights if not any(path == f"{part}/{name}" for path in paths for name in _WEIGHTS)]
    pickled = [
        part for part in unweighted if any(path.startswith(f"{part}/") and path.endswith((".bin", ".ckpt", ".pt")) for path in entries)
    ]
    if pickled:
        raise RunFailed(
            f"base_model.uri: {', '.join(pickled)} of {spec.uri} has pickled weights, and nothing is unpickled; save it as safetensors",
            reason="BASE_MODEL_PICKLED",
        )
    if missing or unweighted:
        lacks = [*(f"{part}/ (its config)" for part in missing), *(f"{part}/*.safetensors" for part in unweighted)]
        raise RunFailed(f"base_model.uri: {spec.uri} lacks {', '.join(lacks)}", reason="BASE_MODEL_INCOMPLETE")


def _config(folder: Folder, part: str, *needed: str) -> dict[str, Any]:
    config = _json(folder, f"{part}/config.json")
    if lacking := [name for name in needed if name not in config]:
        raise _incomplete(folder, f"{part}/config.json", f"has no {', '.join(lacking)}")
    return config


def _json(folder: Folder, path: str) -> dict[str, Any]:
    try:
        return dict(json.loads(folder.get(path)))
    except (ValueError, TypeError) as error:
        raise _incomplete(folder, path, f"is not a JSON object: {error}") from None


def _header(folder: Folder, path: str, size_bytes: int) -> dict[str, Any]:
    """The header of a safetensors file, whose length must be what the header says: half an upload has a fine header."""
    length = int.from_bytes(folder.get_range(path, 0, 8), "little") if size_bytes > 8 else _MAX_HEADER_BYTES
    if length > min(size_bytes - 8, _MAX_HEADER_BYTES):
        raise _incomplete(folder, path, "is not a safetensors file, or cut short; upload it again")
    try:
        header = {name: meta for name, meta in json.loads(folder.get_range(path, 8, length)).items() if name != "__metadata__"}
        end = 8 + length + max(meta["data_offsets"][1] for meta in header.values())
    except (ValueError, TypeError, KeyError) as error:
        raise _incomplete(folder, path, f"is not a safetensors file: {error}") from None
    if end != size_bytes:
        raise _incomplete(folder, path, f"is cut short: {size_bytes} bytes of {end}; upload it again")
    return header


def _incomplete(folder: Folder, path: str, what: str) -> RunFailed:
    return RunFailed(f"base_model.uri: {folder.uri}/{path} {what}", reason="BASE_MODEL_INCOMPLETE")


def _trainable(header: Mapping[str, Any]) -> dict[str, int]:
    weights = {name.removesuffix(".weight"): len(meta["shape"]) for name, meta in header.items() if name.endswith(".weight")}
    return {name: dimensions for name, dimensions in weights.items() if dimensions in {2, 4}}


def _digests(folder: Folder, versions: Mapping[str, str], cache: Folder) -> dict[str, str]:
    # Hashing gigabytes for every small job would cost more than the job: remember the digests of this very version.
    key = hashlib.sha256(json.dumps([folder.uri, sorted(versions.items())]).encode()).hexdigest()
    if known := cache.get_or_none(f"digests/{key}.json"):
        return json.loads(known)
    digests = {path: folder.sha256(path) for path in versions}
    cache.put(f"digests/{key}.json", json.dumps(digests).encode())
    return digests


def _two_parts(module: str) -> str:
    return ".".join(module.split(".")[-2:])


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
