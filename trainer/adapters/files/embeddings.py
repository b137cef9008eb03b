"""Files of new tokens (textual inversion), ours and others', for who asks what they are: token, vectors, family, who loads them."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from lorafleet import adapter_readers
from lorafleet.adapter_files import detection, keys
from trainer.adapters.files import sources
from trainer.adapters.files.sources import Source
from trainer.typed_torch import vector_norm

_TWO = {"clip_l", "clip_g"}  # as files of SDXL name them
NAMELESS = "emb_params"  # kohya's, which is no token
_TOKEN_SAID_IN = ("lorafleet.token", "modelspec.trigger_phrase", "modelspec.title")
_FAMILIES = {768: "sd1", 1024: "sd2"}  # by the width of the only text encoder


def inspected(given: Sequence[Source], size_bytes: int) -> dict[str, Any] | None:
    """As JSON has it; None: the file is another. Norms are those of each vector, by text encoder. Raises Unreadable."""
    if len(given) != 1:
        return None
    tensors, metadata = sources.tensors(given[0])
    if not _are_vectors(tensors):
        return None
    vectors = {name: tensor.reshape(-1, tensor.shape[-1]).float() for name, tensor in tensors.items()}
    families = _families(vectors, metadata)
    return {
        "format": "textual inversion",
        "families": families,
        "token": _token(vectors, metadata),
        "num_vectors": max(map(len, vectors.values())),
        "size_bytes": size_bytes,
        "dtypes": sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()}),
        "text_encoders": [
            {"name": name, "width": its.shape[1], "norms": [round(float(vector_norm(vector)), 6) for vector in its.unbind()]}
            for name, its in vectors.items()
        ],
        "readers": [each.plain() for each in adapter_readers.of_tokens(list(vectors))],
        "metadata": dict(sorted(metadata.items())),
    }


def _are_vectors(tensors: Mapping[str, Tensor]) -> bool:
    if not tensors or not all(tensor.ndim in (1, 2) and tensor.numel() for tensor in tensors.values()):
        return False
    return set(tensors) == _TWO or (len(tensors) == 1 and all(keys.parse(name) is None for name in tensors))


def _token(vectors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str | None:
    """None: the file's name alone says it."""
    said = next((metadata[key] for key in _TOKEN_SAID_IN if metadata.get(key)), None)
    return said or next((name for name in vectors if name not in {*_TWO, NAMELESS}), None)


def _families(vectors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> list[str]:
    """Of which it is as far as can be told; none: its width is no published base's."""
    if (said := detection.told(metadata)) is not None:
        return [said]
    if len(vectors) > 1:
        return ["sdxl"]
    return [_FAMILIES[width] for width in (next(iter(vectors.values())).shape[1],) if width in _FAMILIES]
