"""A request as single pictures, each with all that it is drawn by, and a name that follows from it. Pure."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lorafleet import __version__
from lorafleet.generation_schedulers import title_of
from lorafleet.generation_spec import AdapterSet, GenerationSpec
from trainer.generation.files import AdapterOfUri
from trainer.generation.sampler import How

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_NAME = 60


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What all pictures of a request share."""

    base: str  # its name, for people
    base_digest: str
    family: str
    scheduler: str  # diffusers' class
    how: How


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One picture of a grid. `uses`: its adapters and their weights, the axis' multiplied in."""

    uses: tuple[tuple[AdapterOfUri, float], ...]
    variant: int  # number of its adapter set at its weight
    prompt: str
    prompt_number: int
    negative_prompt: str
    seed: int

    @property
    def label(self) -> str:
        """Of its variant."""
        return "\n".join(f"{adapter.name} {weight:g}" for adapter, weight in self.uses) or "base"

    def parameters(self, drawn: Drawn) -> dict[str, Any]:
        """All that the picture follows from, as JSON has it; of files their names and digests, not where they lie."""
        adapters = [{"name": each.name, "sha256": each.digest, "weight": weight} for each, weight in self.uses]
        how = drawn.how
        return {
            "base": drawn.base,
            "base_digest": drawn.base_digest,
            "family": drawn.family,
            "adapters": adapters,
            "prompt": self.prompt,
            "negative_prompt": self.negative_prompt,
            "seed": self.seed,
            "width": how.width,
            "height": how.height,
            "num_inference_steps": how.num_inference_steps,
            "guidance_scale": how.guidance_scale,
            "scheduler": drawn.scheduler,
            "scheduler_settings": dict(how.scheduler.settings) if how.scheduler else {},
        }

    def file_name(self, drawn: Drawn) -> str:
        """The same for the same picture, whatever else is in the grid."""
        parameters = json.dumps(self.parameters(drawn), sort_keys=True)
        words = "+".join(each.name for each, _ in self.uses) or "base"
        readable = _UNSAFE.sub("-", words).strip("-.")[:_LONGEST_NAME] or "adapter"
        return f"{readable}-{self.seed}-{hashlib.sha256(parameters.encode()).hexdigest()[:12]}.png"


def cells(spec: GenerationSpec, adapters: Mapping[str, AdapterOfUri]) -> Iterator[Cell]:
    """In order: set, weight, prompt, seed."""
    for variant, (adapter_set, weight) in enumerate(spec.variants):
        uses = tuple((adapters[use.uri], use.weight * weight) for use in adapter_set)
        for number, prompt in enumerate(spec.prompts):
            for seed in spec.seeds:
                yield Cell(
                    uses=uses,
                    variant=variant,
                    prompt=prompt,
                    prompt_number=number,
                    negative_prompt=spec.negative_of(number),
                    seed=seed,
                )


def uris(sets: Sequence[AdapterSet]) -> list[str]:
    return list(dict.fromkeys(use.uri for each in sets for use in each))


def passes(wanted: Sequence[Cell], num_rows: int) -> Iterator[Sequence[Cell]]:
    """Those that are drawn together: with a negative prompt, or without (sampler.Sampler)."""
    for has_negative in (False, True):
        alike = [cell for cell in wanted if bool(cell.negative_prompt) == has_negative]
        for start in range(0, len(alike), num_rows):
            yield alike[start : start + num_rows]


def a1111_text(parameters: Mapping[str, Any]) -> str:
    """As A1111 writes it, and as the programs that show such pictures read it."""
    adapters = parameters["adapters"]
    prompt = " ".join([parameters["prompt"], *(f"<lora:{each['name']}:{each['weight']:g}>" for each in adapters)])
    negative = [f"Negative prompt: {parameters['negative_prompt']}"] if parameters["negative_prompt"] else []
    hashes = ", ".join(f"{each['name']}: {each['sha256'][:12]}" for each in adapters)
    said = {
        "Steps": parameters["num_inference_steps"],
        "Sampler": title_of(parameters["scheduler"]),
        "CFG scale": f"{parameters['guidance_scale']:g}",
        "Seed": parameters["seed"],
        "Size": f"{parameters['width']}x{parameters['height']}",
        "Model hash": parameters["base_digest"][:10],
        "Model": parameters["base"],
        **({"Lora hashes": f'"{hashes}"'} if adapters else {}),
        "Version": f"lorafleet {__version__}",
    }
    return "\n".join([prompt.strip(), *negative, ", ".join(f"{key}: {value}" for key, value in said.items())])
