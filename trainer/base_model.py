"""The frozen base in the store: is it whole, of which family, which modules can be trained. Reads headers only; no torch.

The layout is diffusers' (model_index.json and a folder for each part); weights are safetensors, for nothing is unpickled. Nothing
in its files is believed before it was looked at: sizes and depths first (`untrusted`), then every value (`base_config`).
"""

import difflib
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lorafleet.contract import inside
from lorafleet.contract.inside import root_of_base
from lorafleet.contract.weight_files import DIFFUSERS_NAME, TRANSFORMERS_NAME
from lorafleet.errors import RunFailed, Violation
from lorafleet.spec import BaseModelSpec
from lorafleet.spec_words import is_module_name
from trainer import base_config, base_files, untrusted
from trainer.base_config import BaseFacts
from trainer.base_files import MODEL_INDEX, Weights, some
from trainer.storage import Entry, Folder
from trainer.untrusted import Refused, Stored

# What model_index.json must name for a base to be of a family.
_PIPELINES = {"sd1": "StableDiffusionPipeline"}
_PARTS = {"sd1": ("unet", "vae", "text_encoder", "tokenizer", "scheduler")}
# The parts that have weights, and the name that the library which loads them looks for.
_LOADED_AS = {"unet": DIFFUSERS_NAME, "vae": DIFFUSERS_NAME, "text_encoder": TRANSFORMERS_NAME}
_TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"))
MAX_SMALL_FILE_BYTES = 64 * 2**20  # of a tokenizer's files
MAX_RESOLUTION = 4096  # as in dataset.resolution


@dataclass(frozen=True, kw_only=True)
class BaseModel:
    """A base that was found whole."""

    uri: str
    family: str
    files: Mapping[str, str]  # path -> SHA-256, every file that loading needs
    loaded_as: Mapping[str, str]  # path -> the name that the loading library looks for, of those that have another
    is_plain: bool  # in its folder the libraries find these files and no others
    trainable: Mapping[str, int]  # denoiser module that a LoRA can sit on -> 2 (linear) or 4 (convolution)
    facts: BaseFacts
    webui_hash: str  # of the denoiser's weights, as the webui once named checkpoints

    @property
    def resolution(self) -> int | None:
        """Pixels; what the base was trained at, where it says so."""
        return self.facts.resolution

    @property
    def resolution_step(self) -> int:
        return self.facts.resolution_step

    @property
    def vae_factor(self) -> int:
        return self.facts.vae_factor

    @property
    def digest(self) -> str:
        return self.part_digest("")

    def part_digest(self, part: str) -> str:
        """SHA-256 over the files of one part, such as `vae`; all of them for the empty string."""
        lines = (f"{path}\0{sha256}\n" for path, sha256 in sorted(self.files.items()) if path.startswith(part))
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def inspect(spec: BaseModelSpec, cache: Folder) -> BaseModel:
    """Reads configs and headers, and digests every file once per content.

    Raises RunFailed with all that is wrong: BASE_MODEL_INCOMPLETE, BASE_MODEL_OTHER_FAMILY, BASE_MODEL_PICKLED,
    BASE_MODEL_UNSUPPORTED, or the store's own reasons.
    """
    return _Inspection(spec).found(cache)


class _Inspection:
    """One look at a base. What is wrong is collected, so that its user hears all of it at once."""

    def __init__(self, spec: BaseModelSpec) -> None:
        self.family = spec.family
        self.folder = Folder(spec.uri, within=root_of_base(spec.uri))
        listing = self.folder.scan()
        self.entries = {entry.path: entry for entry in listing.entries}
        self.linked_out = listing.linked_out
        self.wrong: list[tuple[str, str]] = []  # (reason, message)

    def found(self, cache: Folder) -> BaseModel:
        index = self._index()
        weights = {part: found for part in _LOADED_AS if (found := self._weights(part)) is not None}
        headers = {part: self._tensors(found) for part, found in weights.items()}
        configs = self._configs()
        self._check_tokenizer()
        for path, problem in base_config.problems(configs, self.family):
            self._refuse(path, problem, reason="BASE_MODEL_UNSUPPORTED")
        self._raise_what_is_wrong()
        paths = [MODEL_INDEX, *self._small_files(), *(path for found in weights.values() for path in found.paths)]
        self._check_links(paths)
        names = {old: new for part, found in weights.items() for old, new in base_files.loaded_as(found, _LOADED_AS[part]).items()}
        renamed = {old: new for old, new in names.items() if old != new}
        return BaseModel(
            uri=self.folder.uri,
            family=self.family,
            files=_digests(self.folder, {path: self.entries[path].version for path in sorted(paths)}, cache),
            loaded_as=renamed,
            is_plain=not renamed and not self._has_more(paths),
            trainable=_trainable(headers["unet"]),
            facts=base_config.facts(configs, index),
            webui_hash=_webui_hash(self.folder, self.entries[weights["unet"].files[0]]),
        )

    def _index(self) -> dict[str, Any]:
        if MODEL_INDEX not in self.entries:
            raise RunFailed(
                f"base_model.uri: {self.folder.uri} has no model_index.json; it must be a folder as diffusers' save_pretrained writes it",
                reason="BASE_MODEL_INCOMPLETE",
            )
        index = self._json(MODEL_INDEX) or {}
        self._raise_what_is_wrong()
        if (found := index.get("_class_name")) != _PIPELINES[self.family]:
            told = f"a {found}" if isinstance(found, str) and found in base_config.OTHER_PIPELINES else "of a kind that is not known"
            raise RunFailed(
                f"base_model.family: {self.folder.uri} is {told}, but family {self.family} is a {_PIPELINES[self.family]}",
                reason="BASE_MODEL_OTHER_FAMILY",
            )
        for problem in base_config.index_problems(index, self.family):
            self._refuse(MODEL_INDEX, problem, reason="BASE_MODEL_UNSUPPORTED")
        return index

    def _weights(self, part: str) -> Weights | None:
        found = base_files.find_weights(part, self.entries)
        if found is None:
            self._say_without_weights(part)
            return None
        return found if found.index is None else self._sharded(found, found.index)

    def _say_without_weights(self, part: str) -> None:
        if base_files.has_pickled(part, self.entries):
            message = f"{part} of {self.folder.uri} has pickled weights, and nothing is unpickled; save it as safetensors"
            self.wrong.append(("BASE_MODEL_PICKLED", f"base_model.uri: {message}"))
        elif odd := base_files.oddly_named(part, self.entries):
            message = f"{self.folder.uri} has {some(odd)}, which are no usual names; rename one to {part}/{_LOADED_AS[part]}.safetensors"
            self.wrong.append(("BASE_MODEL_INCOMPLETE", f"base_model.uri: {message}"))
        else:
            self._lacks(f"{part}/*.safetensors")

    def _sharded(self, found: Weights, index: str) -> Weights | None:
        text = self._bytes(index, untrusted.MAX_HEADER_BYTES)
        if text is None:
            return None
        try:
            expected = base_files.shards(text, found.part, self.entries)
        except Refused as why:
            self._refuse(index, str(why))
            return None
        for path, names in expected.items():
            if (stored := self._header(path)) is not None and names != stored.keys():
                self._refuse(path, "does not hold the tensors that its index names; upload it again")
        return Weights(part=found.part, files=tuple(sorted(expected)), index=index)

    def _tensors(self, weights: Weights) -> dict[str, Stored]:
        found: dict[str, Stored] = {}
        for path in weights.files:
            found |= self._header(path) or {}
        return found

    def _header(self, path: str) -> dict[str, Stored] | None:
        """The tensors of a safetensors file, whose length must be what its header says: half an upload has a fine header."""
        size_bytes = self.entries[path].size_bytes
        length = int.from_bytes(self.folder.get_range(path, 0, 8), "little") if size_bytes > 8 else size_bytes
        try:
            if not 0 < length <= min(size_bytes - 8, untrusted.MAX_HEADER_BYTES):
                raise Refused("is not a safetensors file, or cut short; upload it again")
            return untrusted.tensors(self.folder.get_range(path, 8, length), size_bytes - 8 - length)
        except Refused as why:
            self._refuse(path, str(why))
            return None

    def _configs(self) -> dict[str, dict[str, Any]]:
        """By part; the tokenizer's is optional."""
        configs: dict[str, dict[str, Any]] = {}
        for part, path in base_config.CONFIGS.items():
            if path in self.entries:
                if (config := self._json(path)) is None:
                    continue
                if lacking := [name for name in base_config.NEEDED.get(part, ()) if name not in config]:
                    self._refuse(path, f"has no {', '.join(lacking)}")
                else:
                    configs[part] = config
            elif part != "tokenizer":
                self._lacks(f"{part}/ (its config)")
        return configs

    def _check_tokenizer(self) -> None:
        if not any(all(f"tokenizer/{name}" in self.entries for name in names) for names in _TOKENIZERS):
            self._lacks("tokenizer/ (its config): tokenizer.json, or vocab.json and merges.txt")
        for path in self._small_files():
            if self.entries[path].size_bytes > MAX_SMALL_FILE_BYTES:
                self._refuse(path, f"is larger than {MAX_SMALL_FILE_BYTES} bytes")

    def _check_links(self, paths: Collection[str]) -> None:
        """The libraries open these by their names, and follow what they meet."""
        for path in sorted(self.linked_out.intersection(paths)):
            self._refuse(path, inside.OUT, reason="LINK_OUT")
        self._raise_what_is_wrong()

    def _small_files(self) -> list[str]:
        return list(base_files.small_files(self.entries))

    def _has_more(self, paths: Collection[str]) -> bool:
        """diffusers prefers an index to a single file, and transformers follows adapter_config.json: what was not looked at."""
        return any(path.endswith(".json") and path.split("/")[0] in _PARTS[self.family] for path in self.entries.keys() - set(paths))

    def _json(self, path: str) -> dict[str, Any] | None:
        text = self._bytes(path, untrusted.MAX_CONFIG_BYTES)
        try:
            return None if text is None else untrusted.json_object(text)
        except Refused as why:
            self._refuse(path, str(why))
            return None

    def _bytes(self, path: str, most: int) -> bytes | None:
        if (size_bytes := self.entries[path].size_bytes) > most:
            self._refuse(path, f"is {size_bytes} bytes long; at most {most} are read")
            return None
        return self.folder.get(path)

    def _lacks(self, what: str) -> None:
        self.wrong.append(("BASE_MODEL_INCOMPLETE", f"base_model.uri: {self.folder.uri} lacks {what}"))

    def _refuse(self, path: str, what: str, reason: str = "BASE_MODEL_INCOMPLETE") -> None:
        self.wrong.append((reason, f"base_model.uri: {self.folder.uri}/{path} {what}"))

    def _raise_what_is_wrong(self) -> None:
        if self.wrong:
            messages = list(dict.fromkeys(message for _, message in self.wrong))
            raise RunFailed("\n".join(messages), reason=self.wrong[0][0])


def check_target_modules(base: BaseModel, target_modules: Sequence[str]) -> list[Violation]:
    """Every name must be the end of the path of a linear or convolution layer, as PEFT matches them."""
    violations: list[Violation] = []
    containers = {module[:end] for module in base.trainable for end, letter in enumerate(module) if letter == "."}
    for index, name in enumerate(target_modules):
        if caught := [module for module in containers if module == name or module.endswith(f".{name}")]:
            message = f'"{name}" also matches {_some_module(caught)}, which is not a layer; write more of its path'
            violations.append(Violation(field=f"adapter.target_modules[{index}]", message=message))
        elif not any(module == name or module.endswith(f".{name}") for module in base.trainable):
            named = list(filter(is_module_name, base.trainable))
            endings = {module.rpartition(".")[2] for module in named} | {_two_parts(module) for module in named}
            close = difflib.get_close_matches(name, endings, n=1)
            hint = f"; close: {close[0]}" if close else ""
            message = f'"{name}" matches no linear or convolution layer of this {base.family} UNet{hint}'
            violations.append(Violation(field=f"adapter.target_modules[{index}]", message=message))
    return violations


def check_resolution(base: BaseModel, resolution: int | None) -> list[Violation]:
    """The UNet halves the latents several times: sides must divide."""
    if resolution is None:
        message = f"is needed: {base.uri}/unet/config.json has no sample_size, so the base does not say what it was trained at"
    elif resolution > MAX_RESOLUTION:
        message = f"is needed: the base's own resolution is {resolution} pixels by its configs; at most {MAX_RESOLUTION} can be trained"
    elif resolution % base.resolution_step:
        nearest = max(1, round(resolution / base.resolution_step)) * base.resolution_step
        message = f"{resolution} is not a multiple of {base.resolution_step}, which this base needs; nearest: {nearest}"
    else:
        return []
    return [Violation(field="dataset.resolution", message=message)]


def _trainable(denoiser: Mapping[str, Stored]) -> dict[str, int]:
    weights = {name.removesuffix(".weight"): len(stored.shape) for name, stored in denoiser.items() if name.endswith(".weight")}
    return {name: dimensions for name, dimensions in weights.items() if dimensions in {2, 4}}


def _webui_hash(folder: Folder, weights: Entry) -> str:
    """The eight digits by which the webui once told checkpoints apart: of 64 KiB, one MiB into the file."""
    start = min(2**20, weights.size_bytes)
    length = min(2**16, weights.size_bytes - start)
    return hashlib.sha256(folder.get_range(weights.path, start, length) if length else b"").hexdigest()[:8]


def _digests(folder: Folder, versions: Mapping[str, str], cache: Folder) -> dict[str, str]:
    # Hashing gigabytes for every small job would cost more than the job: remember the digests of this very version.
    key = hashlib.sha256(json.dumps([folder.uri, sorted(versions.items())]).encode()).hexdigest()
    if known := cache.get_or_none(f"digests/{key}.json"):
        return json.loads(known)
    digests = {path: folder.sha256(path) for path in versions}
    cache.put(f"digests/{key}.json", json.dumps(digests).encode())
    return digests


def _some_module(names: Sequence[str]) -> str:
    """One that can be told: names are the base's own words, and of a module's letters alone."""
    return min(filter(is_module_name, names), default="a part of the base")


def _two_parts(module: str) -> str:
    return ".".join(module.split(".")[-2:])
