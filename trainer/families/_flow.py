"""What the families with a transformer trained by flow matching share."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from PIL import Image

from lorafleet.catalog.family import Family as FamilyFacts
from lorafleet.spec import Spec, ValidationSpec
from trainer.data.buckets import PictureSize
from trainer.families import _parts
from trainer.families._packed import PATCH
from trainer.families.protocol import Conditioning, Loading, Parts, Posterior
from trainer.objectives.flow import FlowMatching
from trainer.objectives.times import Density, Shift, by_tokens, constant, uniform


class FlowFamily:
    """See families.protocol.Family. What is left to a family: `encode_text`, `predict`, `pipeline`, and what it does otherwise."""

    facts: FamilyFacts
    density: Density = staticmethod(uniform)

    def load(self, part: str, base: Path, how: Loading) -> Any:
        return _parts.load(self.facts.part(part), base / part, how, FlowMatchEulerDiscreteScheduler)

    def encode_pictures(self, parts: Parts, pictures: Sequence[Image.Image]) -> Posterior:
        return _parts.latents_of(parts[self.facts.autoencoder.name], pictures)

    def num_tokens(self, parts: Parts, captions: Sequence[str]) -> list[int]:
        """By the tokenizer that keeps most."""
        return _parts.num_tokens(max(self._tokenizers(parts), key=lambda tokenizer: tokenizer.model_max_length), captions)

    def condition(self, text: Conditioning, sizes: Sequence[PictureSize]) -> Conditioning:
        return text

    def objective(self, parts: Parts, spec: Spec) -> FlowMatching:
        """Times are shifted as they are where pictures are drawn: by their size where the scheduler says so, else all alike."""
        config = parts["scheduler"].config
        shift = self.shift_by_size(config) if config.use_dynamic_shifting else constant(config.shift)
        return FlowMatching.of(spec, self.density, shift)

    def shift_by_size(self, config: Mapping[str, Any]) -> Shift:
        return by_tokens(config, PATCH)

    def drawing(self, parts: Parts, spec: ValidationSpec) -> Mapping[str, Any]:
        """Guidance, and prompts as long as captions are: pipelines pad them to a length of their own."""
        return {"guidance_scale": spec.guidance_scale, "max_sequence_length": self._most_tokens(parts)}

    def _most_tokens(self, parts: Parts) -> int:
        return max(tokenizer.model_max_length for tokenizer in self._tokenizers(parts))

    def _tokenizers(self, parts: Parts) -> list[Any]:
        return [parts[part.name] for part in self.facts.tokenizers if part.name in parts]
