"""Prints estimates of memory: the arithmetic of the spec as it is, and a table of what would make it less."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lorafleet import tables
from lorafleet.commands import Format
from lorafleet.commands.printing import print_plain
from lorafleet.estimate import Variant
from lorafleet.terminal import say, stdout_console
from lorafleet.v1 import batch_service_pb2 as pb

CHANGES = (
    tables.name("WITH"),
    tables.number("MEMORY", leaves=2),
    tables.number("LESS", leaves=1),
    tables.prose("COSTS"),
)


@dataclass(frozen=True)
class Estimate:
    """A variant of a spec, alone in its pack."""

    variant: Variant
    pack: pb.PlannedPack


def print_estimates(estimates: Sequence[Estimate], limit_bytes: int, format: Format) -> None:
    """`estimates`: of the spec as it is, then of its variants. `limit_bytes`: of a worker; 0: it is not known."""
    asked, *others = estimates
    if format is not Format.TABLE:
        print_plain(_plain(asked, others, limit_bytes), format)
        return
    pack = asked.pack
    say(f"memory   {_gib(pack.memory_bytes)} on each worker" if pack.memory_bytes else "memory   unknown")
    say(f"         {pack.arithmetic}")
    if pack.adapter_bytes:
        say(f"adapter  {pack.adapter_bytes / 2**20:.1f} MiB in fp32, half of that in fp16 or bf16")
    if pack.picture_bytes:
        caption = f", {_mib(pack.caption_bytes)} of text for each caption" if pack.caption_bytes else ""
        say(f"cache    {_mib(pack.picture_bytes)} of latents for each picture{caption}")
    if limit_bytes:
        fits = "fits" if pack.memory_bytes <= limit_bytes else "does not fit"
        say(f"worker   {_gib(limit_bytes)}: it {fits}", colour="green" if fits == "fits" else "red")
    if rows := list(_rows(pack.memory_bytes, others)):
        say("")
        stdout_console().print(tables.Table(CHANGES, rows))


def _rows(asked_bytes: int, others: Sequence[Estimate]) -> Iterator[Sequence[tables.Cell]]:
    """What makes it less by a percent or more, the most first; of those that are alike the plainest."""
    known = [(round(100 * (1 - each.pack.memory_bytes / asked_bytes)), each) for each in others if asked_bytes and each.pack.memory_bytes]
    for percent, each in sorted(known, key=lambda found: -found[0]):
        if percent >= 1:
            yield each.variant.title, _gib(each.pack.memory_bytes), f"{percent} %", each.variant.costs


def _plain(asked: Estimate, others: Sequence[Estimate], limit_bytes: int) -> dict[str, Any]:
    def told(each: Estimate) -> dict[str, Any]:
        pack = each.pack
        sizes = {"picture_bytes": pack.picture_bytes, "caption_bytes": pack.caption_bytes}
        return {"memory_bytes": pack.memory_bytes, "adapter_bytes": pack.adapter_bytes, **sizes, "arithmetic": pack.arithmetic}

    variants = [{"changes": dict(each.variant.changes), "costs": each.variant.costs, **told(each)} for each in others]
    return {**told(asked), "memory_limit_bytes": limit_bytes, "variants": variants}


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:.2f} MiB"


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.2f} GiB"
