"""`lorafleet estimate`: what memory a training would take on each worker, and what would make it less."""

from collections.abc import Sequence
from typing import Any

from lorafleet import DEFAULT_SERVER, DEFAULT_TENANT
from lorafleet.commands import Format, Output, Server, Tenant
from lorafleet.commands.clients import connect
from lorafleet.commands.specs import File, Overrides


def estimate(
    file: File,
    overrides: Overrides = [],  # noqa: B006 - typer only reads it
    output: Output = Format.TABLE,
    server: Server = DEFAULT_SERVER,
    tenant: Tenant = DEFAULT_TENANT,
) -> None:
    """Show what memory a spec would take on each worker, how that is made up, and what would make it less."""
    from lorafleet import spec_file
    from lorafleet.commands.estimate_printing import Estimate, print_estimates
    from lorafleet.estimate import Variant, variants

    spec = spec_file.load(file, overrides)
    chosen = [Variant({}, ""), *variants(spec)]
    fields = _planned_alone(spec)
    with connect(server, tenant) as client:
        plan = client.plan_batch({}, [each.of(fields) for each in chosen])
    print_estimates(
        [Estimate(each, pack) for each, pack in zip(chosen, _in_order(plan.packs), strict=True)], plan.memory_limit_bytes, output
    )


def _planned_alone(spec: Any) -> dict[str, Any]:
    """Its document, as one that may lie beside others of its kind in a plan: nothing is written, so nothing has a place."""
    fields = spec.model_dump(mode="json", exclude_unset=True)
    return {**fields, "output": {}, "scheduling": {**fields.get("scheduling", {}), "sharing": "nobody"}}


def _in_order(packs: Sequence[Any]) -> list[Any]:
    """A pack for each item."""
    return sorted(packs, key=lambda pack: pack.items[0])
