"""Which files of a base's folder are the model: configs, tokenizer, and for each part one set of safetensors weights.

People store the same weights under several names: in half precision (`….fp16.safetensors`), cut into shards with an index, or
under the other library's usual name. Each is found here, and given the one name that the library which loads it looks for.
Knows names only; what they hold is `base_model`'s.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from lorafleet.catalog.part import Part, PartKind
from lorafleet.contract.weight_files import DIFFUSERS_NAME, SHARD, TRANSFORMERS_NAME, VARIANTS, index_names
from trainer import untrusted
from trainer.untrusted import Refused

PICKLED = (".bin", ".ckpt", ".pt", ".pth")
MAX_SHARDS = 1000
_USUAL_SHARD = re.compile(
    rf"({DIFFUSERS_NAME}|{TRANSFORMERS_NAME})(\.(fp32|fp16|bf16))?-\d{{5}}-of-\d{{5}}(\.(fp32|fp16|bf16))?\.safetensors"
)


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The weights of one part: a single file, or shards with their index. Paths are relative to the base."""

    part: str
    files: tuple[str, ...]
    index: str | None = None  # of the shards

    @property
    def paths(self) -> tuple[str, ...]:
        return (*self.files, self.index) if self.index else self.files


def find_weights(part: str, paths: Collection[str]) -> Weights | None:
    """The weights of a part among the base's paths; shards are named once their index is read. None: there are none."""
    for stem in (DIFFUSERS_NAME, TRANSFORMERS_NAME):
        for variant in VARIANTS:
            if (single := f"{part}/{stem}{variant}.safetensors") in paths:
                return Weights(part=part, files=(single,))
            for index in index_names(part, stem, variant):
                if index in paths:
                    return Weights(part=part, files=(), index=index)
    return None


def shards(text: bytes, part: str, paths: Collection[str]) -> dict[str, set[str]]:
    """The files that an index names, each with the tensors that must be in it. Raises Refused."""
    where = untrusted.json_object(text, max_bytes=untrusted.MAX_HEADER_BYTES).get("weight_map")
    if not isinstance(where, Mapping) or not where:
        raise Refused("has no weight_map")
    found: dict[str, set[str]] = {}
    for tensor, name in where.items():
        if not isinstance(name, str) or not SHARD.fullmatch(name):
            raise Refused("names a shard that is no plain *.safetensors name")
        found.setdefault(f"{part}/{name}", set()).add(tensor)
    if len(found) > MAX_SHARDS:
        raise Refused(f"names {len(found)} shards; at most {MAX_SHARDS} are read")
    if missing := sorted(found.keys() - set(paths)):
        raise Refused(f"names {len(missing)} shards that are not there{_usual(part, missing)}")
    return found


def loaded_as(weights: Weights, stem: str) -> dict[str, str]:
    """The name under which each file is loaded from a folder of this base's own; shards keep theirs, for the index names them."""
    if weights.index is None:
        return {weights.files[0]: f"{weights.part}/{stem}.safetensors"}
    return {**{path: path for path in weights.files}, weights.index: f"{weights.part}/{stem}.safetensors.index.json"}


def small_files(paths: Collection[str], parts: Collection[Part]) -> Iterator[str]:
    """Configs and tokenizers, and nothing else: a library may follow what another file beside them says."""
    configs = {part.config for part in parts}
    tokenizers = {part.name for part in parts if part.kind is PartKind.TOKENIZER}
    for path in sorted(paths):
        part, _, name = path.partition("/")
        if path in configs or (part in tokenizers and "/" not in name and name.endswith((".json", ".txt"))):
            yield path


def has_pickled(part: str, paths: Collection[str]) -> bool:
    return any(path.startswith(f"{part}/") and path.endswith(PICKLED) for path in paths)


def oddly_named(part: str, paths: Collection[str]) -> list[str]:
    """Safetensors of a part, for when none of them has a usual name."""
    return sorted(path for path in paths if path.startswith(f"{part}/") and path.endswith(".safetensors"))


def some(names: Collection[str], most: int = 5) -> str:
    """The first names, shortened: a message has an end."""
    shown = [name if len(name) <= 100 else f"{name[:100]}…" for name in sorted(names)[:most]]
    return ", ".join(shown) + (f" and {len(names) - most} more" if len(names) > most else "")


def _usual(part: str, names: Collection[str]) -> str:
    """Those of a shard's usual name: other words are the index's own, and are not repeated."""
    told = [name for name in names if _USUAL_SHARD.fullmatch(name.removeprefix(f"{part}/"))]
    return f": {some(told)}" if told else ""
