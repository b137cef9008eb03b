"""The frozen base in the store: is it whole, of which family, which modules can be trained. Reads headers only; no torch.

The layout is diffusers' (model_index.json and a folder for each part); weights are safetensors, for nothing is unpickled. Nothing
in its files is believed before it was looked at: sizes and depths first (`untrusted`), then every value (`base_config`).
"""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from lorafleet.catalog import FAMILIES, Family, detection
from lorafleet.catalog.method import Shape
from lorafleet.catalog.part import Layers, Names, Part, PartKind
from lorafleet.contract import confined_files
from lorafleet.contract.weight_files import MODEL_INDEX
from lorafleet.errors import RunFailed
from lorafleet.spec import BaseModelSpec
from trainer import untrusted
from trainer.prepare import base_config, base_digests, base_files, single_file
from trainer.prepare.base_config import BaseFacts
from trainer.prepare.base_files import Weights, some
from trainer.prepare.base_folders import BaseFolders
from trainer.prepare.single_file import BaseFile
from trainer.prepare.weight_headers import stored_tensors
from trainer.storage import Entry, Folder
from trainer.untrusted import Refused, Stored

_TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"))
MAX_SMALL_FILE_BYTES = 64 * 2**20  # of a tokenizer's files


@dataclass(frozen=True, kw_only=True)
class BaseModel:
    """A base that was found whole."""

    uri: str
    parts: Mapping[str, str]  # part -> URI of its own folder, of those that are not the base's own
    family: str
    files: Mapping[str, str]  # path -> SHA-256, every file that loading needs
    entries: Mapping[str, Entry]  # path -> the file as it was looked at
    digest: str  # over its tensors, however they are stored
    loaded_as: Mapping[str, str]  # path -> the name that the loading library looks for, of those that have another
    is_plain: bool  # in its folder the libraries find these files and no others
    absent: frozenset[str]  # optional parts that it is without
    # By part its modules that an adapter can sit on, with the shapes of their weights: (out, in), of a convolution (out, in, h, w).
    trainable: Mapping[str, Mapping[str, Shape]]
    facts: BaseFacts
    webui_hash: str  # of the denoiser's weights, as the webui once named checkpoints
    single_file: BaseFile | None = None  # the one file that its own parts were taken from

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
    def denoiser_modules(self) -> Mapping[str, Shape]:
        return self.trainable[FAMILIES.get(self.family).denoiser.name]

    @property
    def kohya_modules(self) -> Names:
        """The denoiser's modules whose names in kohya's files are others, with these."""
        rename = FAMILIES.get(self.family).kohya_modules
        return rename(self.denoiser_modules) if rename else {}

    @property
    def kohya_layers(self) -> Layers:
        """The denoiser's layers in kohya's files."""
        return Layers(self.kohya_modules, {module: shape[0] for module, shape in self.denoiser_modules.items()})

    @property
    def files_digest(self) -> str:
        return self.part_digest("")

    @property
    def identity(self) -> str:
        """Names what is loaded of it: the same for all that may train together, and after one another, on what is in memory."""
        return f"{self.files_digest}-{self.facts.num_skipped_layers}"

    def where(self, path: str) -> str:
        """The URI of one of its files."""
        part, _, rest = path.partition("/")
        return f"{self.parts[part]}/{rest}" if part in self.parts else f"{self.uri}/{path}"

    def part_digest(self, part: str) -> str:
        """SHA-256 over the files of one part, such as `vae`; all of them for the empty string."""
        lines = (f"{path}\0{sha256}\n" for path, sha256 in sorted(self.files.items()) if path.startswith(part))
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def inspect(spec: BaseModelSpec, cache: Folder) -> BaseModel:
    """Reads configs and headers, and digests every file once per content.

    Raises RunFailed with all that is wrong: BASE_MODEL_INCOMPLETE, BASE_MODEL_OTHER_FAMILY, BASE_MODEL_PICKLED,
    BASE_MODEL_UNSUPPORTED, or the store's own reasons.
    """
    if not single_file.is_single(spec.uri):
        return _Inspection(spec).found(cache)
    base_file = single_file.look(spec, cache)
    folder = single_file.folder_of(base_file).as_uri()
    try:
        found = _Inspection(spec.model_copy(update={"uri": folder})).found(cache)
    except RunFailed as error:  # in what it was turned into nobody would find anything
        raise RunFailed(error.message.replace(folder, spec.uri), reason=error.reason, retryable=error.retryable) from None
    return replace(found, uri=spec.uri, single_file=base_file, webui_hash=base_file.webui_hash)


class _Inspection:
    """One look at a base. What is wrong is collected, so that its user hears all of it at once."""

    def __init__(self, spec: BaseModelSpec) -> None:
        self.spec = spec
        self.folder = BaseFolders(spec.uri, spec.part_uris)
        self.entries, self.linked_out = self.folder.entries, self.folder.linked_out
        self.wrong: list[tuple[str, str]] = []  # (reason, message)
        self.index = self._index()
        self.family = self._family()
        self.index = self._with_parts()

    def found(self, cache: Folder) -> BaseModel:
        for problem in base_config.index_problems(self.index, self.family):
            self._refuse(MODEL_INDEX, problem, reason="BASE_MODEL_UNSUPPORTED")
        gone = base_config.absent(self.index, self.family)
        self.family = self.family.without(gone)
        with_weights = [part for part in self.family.parts if part.weights_name]
        weights = {part.name: found for part in with_weights if (found := self._weights(part)) is not None}
        headers = {part: self._tensors(found) for part, found in weights.items()}
        configs = self._configs()
        self._check_tokenizers()
        for path, problem in base_config.problems(configs, self.family):
            self._refuse(path, problem, reason="BASE_MODEL_UNSUPPORTED")
        self._raise_what_is_wrong()
        if problem := base_config.clip_skip_problem(self.spec.clip_skip, configs, self.family):
            raise RunFailed(f"base_model.clip_skip: {problem}", reason="INVALID_SPEC")
        paths = [MODEL_INDEX, *self._small_files(), *(path for found in weights.values() for path in found.paths)]
        self._check_links(paths)
        names = {old: new for found in weights.values() for old, new in self._loaded_as(found).items()}
        renamed = {old: new for old, new in names.items() if old != new}
        taken = base_digests.digests(self.folder, {path: self.entries[path].version for path in sorted(paths)}, cache)
        return BaseModel(
            uri=self.folder.uri,
            parts=self.folder.parts,
            family=self.family.name,
            files=taken.files,
            entries={path: self.entries[path] for path in paths},
            digest=taken.tensors,
            loaded_as=renamed,
            is_plain=not renamed and not self.folder.parts and not self._has_more(paths),
            absent=gone,
            trainable={part.name: _trainable(headers[part.name]) for part in (self.family.denoiser, *self.family.text_encoders)},
            facts=base_config.facts(configs, self.index, self.family, self.spec.clip_skip),
            webui_hash=base_digests.webui_hash(self.folder, self.entries[weights[self.family.denoiser.name].files[0]]),
        )

    def _index(self) -> dict[str, Any]:
        if MODEL_INDEX not in self.entries:
            raise RunFailed(
                f"base_model.uri: {self.folder.uri} has no model_index.json; it must be a folder as diffusers' save_pretrained writes it",
                reason="BASE_MODEL_INCOMPLETE",
            )
        index = self._json(MODEL_INDEX) or {}
        self._raise_what_is_wrong()
        return index

    def _with_parts(self) -> dict[str, Any]:
        """The index as it would be with the parts that lie elsewhere. What they are, their own configs say."""
        index = dict(self.index)
        for part in self.family.parts:
            if part.name in self.folder.parts:
                config = (self._json(part.config) if part.config in self.entries else None) or {}
                told = config.get("_class_name")
                index[part.name] = [part.library, told if told in part.classes else part.classes[0]]
        return index

    def _family(self) -> Family:
        """The base's, which must be the one that was given."""
        families = detection.of_pipeline(self.index)
        if not families:
            self._refuse_family(detection.unknown(self.index))
        denoiser = families[0].denoiser
        config = self._json(denoiser.config) if denoiser.config in self.entries else None
        found = detection.chosen(families, {denoiser.name: config} if config else {}, self.spec.family)
        if self.spec.family not in (None, found.name):
            self._refuse_family(detection.another(self.index, found, FAMILIES.get(self.spec.family)))
        return found

    def _refuse_family(self, what: str) -> NoReturn:
        raise RunFailed(f"base_model.family: {self.folder.uri} is {what}", reason="BASE_MODEL_OTHER_FAMILY")

    def _loaded_as(self, weights: Weights) -> dict[str, str]:
        return base_files.loaded_as(weights, self.family.part(weights.part).weights_name or "")

    def _weights(self, part: Part) -> Weights | None:
        found = base_files.find_weights(part.name, self.entries)
        if found is None:
            self._say_without_weights(part)
            return None
        return found if found.index is None else self._sharded(found, found.index)

    def _say_without_weights(self, part: Part) -> None:
        name = part.name
        if base_files.has_pickled(name, self.entries):
            message = f"{name} of {self.folder.uri} has pickled weights, and nothing is unpickled; save it as safetensors"
            self.wrong.append(("BASE_MODEL_PICKLED", f"base_model.uri: {message}"))
        elif odd := base_files.oddly_named(name, self.entries):
            message = f"{self.folder.uri} has {some(odd)}, which are no usual names; rename one to {name}/{part.weights_name}.safetensors"
            self.wrong.append(("BASE_MODEL_INCOMPLETE", f"base_model.uri: {message}"))
        else:
            self._lacks(f"{name}/*.safetensors")

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
        """The tensors of a safetensors file."""
        try:
            return stored_tensors(self.folder, self.entries[path])
        except Refused as why:
            self._refuse(path, str(why))
            return None

    def _configs(self) -> dict[str, dict[str, Any]]:
        """By part; a tokenizer's is optional."""
        configs: dict[str, dict[str, Any]] = {}
        for part in self.family.parts:
            if part.config in self.entries:
                if (config := self._json(part.config)) is None:
                    continue
                if lacking := [name for name in part.needed if name not in config]:
                    self._refuse(part.config, f"has no {', '.join(lacking)}")
                else:
                    configs[part.name] = config
            elif part.kind is not PartKind.TOKENIZER:
                self._lacks(f"{part.name}/ (its config)")
        return configs

    def _check_tokenizers(self) -> None:
        for part in self.family.tokenizers:
            if not any(all(f"{part.name}/{name}" in self.entries for name in names) for names in _TOKENIZERS):
                self._lacks(f"{part.name}/ (its config): tokenizer.json, or vocab.json and merges.txt")
        for path in self._small_files():
            if self.entries[path].size_bytes > MAX_SMALL_FILE_BYTES:
                self._refuse(path, f"is larger than {MAX_SMALL_FILE_BYTES} bytes")

    def _check_links(self, paths: Collection[str]) -> None:
        """The libraries open these by their names, and follow what they meet."""
        for path in sorted(self.linked_out.intersection(paths)):
            self._refuse(path, confined_files.OUT, reason="LINK_OUT")
        self._raise_what_is_wrong()

    def _small_files(self) -> list[str]:
        return list(base_files.small_files(self.entries, self.family.parts))

    def _has_more(self, paths: Collection[str]) -> bool:
        """diffusers prefers an index to a single file, and transformers follows adapter_config.json: what was not looked at."""
        parts = {part.name for part in self.family.parts}
        return any(path.endswith(".json") and path.split("/")[0] in parts for path in self.entries.keys() - set(paths))

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
        part, _, inner = what.partition("/")
        if part in self.folder.parts:
            message = f"{self.folder.parts[part]} lacks {inner.strip()}; name the folder of the part itself"
        else:
            message = f"{self.folder.uri} lacks {what}"
        self.wrong.append(("BASE_MODEL_INCOMPLETE", f"{self._field(what)}: {message}"))

    def _refuse(self, path: str, what: str, reason: str = "BASE_MODEL_INCOMPLETE") -> None:
        self.wrong.append((reason, f"{self._field(path)}: {self.folder.uri_of(path)} {what}"))

    def _field(self, path: str) -> str:
        """The field of the spec that leads to the file."""
        part = path.partition("/")[0]
        if part not in self.folder.parts:
            return "base_model.uri"
        return f"base_model.parts.{part}" if part in self.spec.parts else "base_model.vae_uri"

    def _raise_what_is_wrong(self) -> None:
        if self.wrong:
            messages = list(dict.fromkeys(message for _, message in self.wrong))
            raise RunFailed("\n".join(messages), reason=self.wrong[0][0])


def _trainable(part: Mapping[str, Stored]) -> dict[str, Shape]:
    weights = {name.removesuffix(".weight"): stored.shape for name, stored in part.items() if name.endswith(".weight")}
    return {name: tuple(shape) for name, shape in weights.items() if len(shape) in {2, 4}}
