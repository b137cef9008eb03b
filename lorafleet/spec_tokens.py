"""The section of a training spec that says which new tokens a style teaches its text encoders (textual inversion)."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from lorafleet.spec_part import SpecPart
from lorafleet.spec_words import Text

MAX_TOKEN = 60
MAX_TOKENS = 16
MAX_VECTORS = 75  # CLIP takes 77 tokens, of which two mark begin and end
TOKEN_RATE = 5e-4  # of diffusers' textual_inversion.py, as its README.md runs it
TRAIN_FRACTION = 0.5  # beside an adapter: diffusers' train_dreambooth_lora_sdxl_advanced.py, --train_text_encoder_ti_frac
_TOKEN = re.compile(r"[!-~]+")
_NAME = re.compile(r"[a-z0-9]+(?:[_-]+[a-z0-9]+)*")
_MARKS = ("<|startoftext|>", "<|endoftext|>")  # CLIP's own


def _check_token(token: str) -> str:
    if not _TOKEN.fullmatch(token):
        raise PydanticCustomError("token", "{token} is no token: ASCII without spaces, such as <s1>", {"token": repr(token[:80])})
    if token != token.lower():
        message = "{token} has capitals, of which CLIP's tokenizers make small letters: write {small}"
        raise PydanticCustomError("token", message, {"token": repr(token), "small": repr(token.lower())})
    if token in _MARKS:
        raise PydanticCustomError("token", "{token} is one of CLIP's own: choose another, such as <s1>", {"token": repr(token)})
    if not _NAME.search(token):
        raise PydanticCustomError("token", "{token} has no letter or digit, and its file is named after it", {"token": repr(token)})
    return token


Token = Annotated[str, Field(min_length=1, max_length=MAX_TOKEN), AfterValidator(_check_token)]


def file_stem(token: str) -> str:
    """What the file of a token is called: its letters and digits, for webuis know a token by the name of its file."""
    return "-".join(_NAME.findall(token))


class TokenSpec(SpecPart):
    """A new token: what stands for it in captions and prompts, and with which vectors it begins."""

    token: Annotated[Token, Field(description="As it is written in captions and prompts, in small letters, such as <s1>.")]
    num_vectors: Annotated[
        int, Field(ge=1, le=MAX_VECTORS, description="Vectors that it is made of, each of which takes a token's place in a caption.")
    ] = 1
    initial_text: Annotated[
        Text,
        Field(
            max_length=200,
            description="Words to begin with: one vector is the mean of their tokens, several are these in turn. Unset: drawn at random, "
            "with the deviation of the base's own.",
        ),
    ] = ""


class TextualInversionSpec(SpecPart):
    """New tokens, whose vectors are trained alone or with the adapter (Gal et al. 2022; pivotal tuning)."""

    tokens: Annotated[
        tuple[TokenSpec, ...],
        Field(
            max_length=MAX_TOKENS,
            strict=False,
            description="The new tokens; of families whose text encoders are all CLIP's: sd1, sd2, sdxl.",
        ),
    ] = ()
    learning_rate: Annotated[float, Field(gt=0, le=10)] | None = Field(
        default=None,
        description="Their peak learning rate, by training's schedule; unset: 5e-4, or training's with an optimizer that finds its own.",
    )
    train_fraction: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None,
        description="Share of the steps after which they stay as they are, and the adapter goes on alone; unset: 0.5, and 1 with tokens "
        "alone or an optimizer that finds its own rate or averages.",
    )
    keep_deviation: Annotated[
        bool,
        Field(
            description="After each step their deviation is brought a tenth nearer, in its logarithm, to that of the base's own vectors."
        ),
    ] = False
    alone: Annotated[bool, Field(description="Train the tokens alone, and no adapter.")] = False

    @property
    def num_vectors(self) -> int:
        """Of all tokens together."""
        return sum(each.num_vectors for each in self.tokens)
