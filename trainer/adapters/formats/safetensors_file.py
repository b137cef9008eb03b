"""Tensors and metadata as the bytes of a safetensors file: the same values are the same bytes, in any process."""

import hashlib
import json
from collections.abc import Mapping

from safetensors.torch import save
from torch import Tensor

_LEGACY_HASH_AT, _LEGACY_HASH_BYTES = 2**20, 2**16


def file_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """safetensors writes metadata in the order of a hash table that differs from process to process: here they are sorted."""
    plain = save(dict(tensors))
    start = 8 + int.from_bytes(plain[:8], "little")
    header = {"__metadata__": dict(sorted(metadata.items())), **json.loads(plain[8:start])}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode(errors="replace")
    text += b" " * (-len(text) % 8)  # tensors are aligned
    return len(text).to_bytes(8, "little") + text + plain[start:]


def webui_hashes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, str]:
    """The hashes by which webuis tell LoRA files apart, as kohya's trainer defines them.

    The newer is SHA-256 of everything after the header. The older one takes 64 KiB at 1 MiB of a file that has only `ss_*`
    metadata, since tools change the rest.
    """
    data = file_bytes(tensors, {key: value for key, value in metadata.items() if key.startswith("ss_")})
    start = 8 + int.from_bytes(data[:8], "little")
    legacy = data[_LEGACY_HASH_AT : _LEGACY_HASH_AT + _LEGACY_HASH_BYTES]
    return {"sshs_model_hash": hashlib.sha256(data[start:]).hexdigest(), "sshs_legacy_hash": hashlib.sha256(legacy).hexdigest()[:8]}
