"""What an artifact says of a style's new tokens: in its manifest, and in its model card how programs are given them. Pure; no torch."""

from collections.abc import Mapping
from typing import Any

from lorafleet.catalog.family import TOKEN, Family
from lorafleet.contract.layout import embedding_file
from lorafleet.spec import Spec
from lorafleet.spec_tokens import TokenSpec, file_stem


def for_manifest(spec: Spec) -> dict[str, Any]:
    """Nothing of a style without new tokens."""
    found = [{"token": each.token, "num_vectors": each.num_vectors, "file": _file(each)} for each in spec.textual_inversion.tokens]
    return {"tokens": found} if found else {}


def row(spec: Spec) -> list[str]:
    """Of the card's table of facts."""
    named = ", ".join(f"`{each.token}`, vectors: {each.num_vectors}" for each in spec.textual_inversion.tokens)
    return [f"| new tokens | {named}; trained for {spec.token_steps} steps |"] if named else []


def loading(spec: Spec) -> list[str]:
    """Lines of Python that give them to diffusers' `pipeline`."""
    lines = [line for each in spec.textual_inversion.tokens for line in _loading(each, spec.family)]
    two = len(spec.family.token_keys) > 1 and lines
    return [*(["from safetensors.torch import load_file", ""] if two else []), *lines, *(_POOLING if two else [])]


# Published bases say that 2 ends a text, on which transformers takes the highest id for the end: a new token's.
_POOLING = ["pipeline.text_encoder_2.text_model.eos_token_id = pipeline.tokenizer_2.eos_token_id  # where the pooled text is taken"]


def _loading(each: TokenSpec, family: Family) -> list[str]:
    if family.token_keys == (TOKEN,):
        return [f'pipeline.load_textual_inversion("path/to/this/folder", weight_name="{_file(each)}")']
    return [
        f'vectors = load_file("path/to/this/folder/{_file(each)}")',
        *(
            f'pipeline.load_textual_inversion(vectors["{key}"], token="{_quoted(each.token)}", text_encoder=pipeline.{encoder.name}, '
            f"tokenizer=pipeline.{tokenizer.name})"
            for key, encoder, tokenizer in zip(family.token_keys, family.text_encoders, family.tokenizers, strict=True)
        ),
    ]


def in_webuis(spec: Spec) -> list[str]:
    """What is written there in a prompt."""
    names: Mapping[str, str] = {each.token: file_stem(each.token) for each in spec.textual_inversion.tokens}
    told = ", ".join(f"for `{token}` write `{stem}` (ComfyUI: `embedding:{stem}`)" for token, stem in names.items())
    return [f"Webuis know a new token by the name of its file, in their folder of embeddings: {told}.", ""] if told else []


def _file(each: TokenSpec) -> str:
    return embedding_file(file_stem(each.token))


def _quoted(token: str) -> str:
    return token.replace("\\", "\\\\").replace('"', '\\"')
