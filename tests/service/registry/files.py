"""Adapter files as others make them, in bytes, without torch."""

import json
import struct
from collections.abc import Mapping, Sequence

Q = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
OURS = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
BYTES = {"F32": 4, "F16": 2, "BF16": 2, "I8": 1}


def safetensors(tensors: Mapping[str, Sequence[int]], dtype: str = "F16", metadata: Mapping[str, str] | None = None) -> bytes:
    """Of zeros."""
    header, at = {}, 0
    for name, shape in tensors.items():
        size = BYTES[dtype]
        for dim in shape:
            size *= dim
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    if metadata:
        header["__metadata__"] = dict(metadata)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(at)


def kohya_tensors(rank: int = 4) -> dict[str, Sequence[int]]:
    """SD1's, by the width of its text."""
    return {f"{Q}.lora_down.weight": [rank, 768], f"{Q}.lora_up.weight": [320, rank], f"{Q}.alpha": []}


def kohya_file(rank: int = 4, dtype: str = "F16") -> bytes:
    return safetensors(kohya_tensors(rank), dtype, {"ss_base_model_version": "sd_v1"})


def peft_tensors(rank: int = 4) -> dict[str, Sequence[int]]:
    module = f"base_model.model.{OURS.removeprefix('unet.')}"
    return {f"{module}.lora_A.weight": [rank, 768], f"{module}.lora_B.weight": [320, rank]}
