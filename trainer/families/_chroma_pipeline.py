"""diffusers' ChromaPipeline with its mask as truth values: as numbers it is added to the attention, and masks nothing."""

from typing import Any

from diffusers.pipelines.chroma.pipeline_chroma import ChromaPipeline
from torch import Tensor


class MaskedChromaPipeline(ChromaPipeline):
    """See huggingface/diffusers#12116; with short prompts the numbers spoil pictures."""

    def _get_t5_prompt_embeds(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        text, seen = super()._get_t5_prompt_embeds(*args, **kwargs)
        return text, seen.bool()
