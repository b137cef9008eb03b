"""What an artifact says of the plain LoRA beside its adapter: in its manifest, its model card and the files' metadata. Pure; no torch."""

from typing import TYPE_CHECKING, Any

from lorafleet.contract.layout import plain_lora_file
from lorafleet.spec import FORMATS, Spec

if TYPE_CHECKING:
    from trainer.adapters.plain_lora import PlainLora


def for_manifest(spec: Spec, plain: "PlainLora | None") -> dict[str, Any]:
    """Nothing of a style that has none. Errors are shares of the size of the updates."""
    if plain is None:
        return {}
    worst, where = plain.worst
    found = {"rank": plain.adapter.rank, "of": spec.adapter.method, "error": plain.error, "worst_error": worst, "worst_module": where}
    return {"plain_lora": {**found, "files": _files(spec)}}


def for_metadata(spec: Spec, plain: "PlainLora") -> dict[str, str]:
    """As `lorafleet convert --as-lora` says it."""
    return {"lorafleet.as_lora_of": spec.adapter.method, "lorafleet.as_lora_error": f"{plain.error:.6g}"}


def row(spec: Spec, plain: "PlainLora | None") -> list[str]:
    """Of the card's table of facts."""
    if plain is None:
        return []
    (worst, where), files = plain.worst, " and ".join(f"`{name}`" for name in _files(spec))
    told = f"{100 * plain.error:.3g} % of the update is left out, at most {100 * worst:.3g} % (`{where}`)"
    return [
        f"| plain LoRA | for programs that misread {spec.adapter.method} or do not load it: {files}, rank {plain.adapter.rank}; {told} |"
    ]


def _files(spec: Spec) -> list[str]:
    return [plain_lora_file(each, spec.output.name) for each in FORMATS]
