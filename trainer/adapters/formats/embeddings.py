"""New tokens as files, one for each: what diffusers' `load_textual_inversion`, AUTOMATIC1111 and ComfyUI read. Without the model.

With one text encoder the token itself names its vectors, (vectors, width): diffusers takes the name for the token, the others the only
tensor there is. With two of them, `clip_l` and `clip_g`, as AUTOMATIC1111 and ComfyUI look for them; to diffusers each is given apart.
Not in kohya's LoRA file, where both also look (`bundle_emb.…`): diffusers then loads none of it.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from lorafleet.adapter_files.detection import FAMILY_KEY
from lorafleet.catalog.family import Family
from lorafleet.contract.layout import embedding_file
from lorafleet.spec import Spec
from lorafleet.spec_tokens import file_stem
from trainer.adapters import tokens
from trainer.adapters.formats.safetensors_file import file_bytes
from trainer.adapters.formats.tensors import stored

TOKEN_KEY = "lorafleet.token"


def embedding_files(vectors: Mapping[str, Tensor], spec: Spec, architecture: str, precision: str) -> dict[str, bytes]:
    """`vectors`: those of all tokens, by text encoder; `architecture`: modelspec's, of the base."""
    asked = spec.textual_inversion.tokens
    by_key = {
        key: [own for _, own in tokens.by_token(asked, vectors[part])] for part, key in keys_of(spec.family).items() if part in vectors
    }
    files: dict[str, bytes] = {}
    for number, each in enumerate(asked if by_key else ()):
        own = {key or each.token: its[number] for key, its in by_key.items()}
        metadata = {
            "format": "pt",
            "modelspec.sai_model_spec": "1.0.0",
            "modelspec.architecture": f"{architecture}/textual-inversion",
            "modelspec.title": each.token,
            "modelspec.trigger_phrase": each.token,
            FAMILY_KEY: spec.family.name,
            TOKEN_KEY: each.token,
        }
        files[embedding_file(file_stem(each.token))] = file_bytes(stored(own, _holding(own, precision)), metadata)
    return files


def keys_of(family: Family) -> dict[str, str]:
    """By text encoder the name of its vectors; empty: the token itself."""
    return dict(zip((part.name for part in family.text_encoders), family.token_keys, strict=False))


def _holding(vectors: Mapping[str, Tensor], precision: str) -> str:
    most = max(float(each.abs().max()) for each in vectors.values())
    return "fp32" if precision == "fp16" and most > torch.finfo(torch.float16).max else precision
