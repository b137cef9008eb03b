"""`lorafleet batch plan`: the packs that a batch would train as."""

from lorafleet import DEFAULT_SERVER, DEFAULT_TENANT
from lorafleet.commands import Format, Output, Server, Tenant
from lorafleet.commands.batch.source import Defaults, Each, File, JobIds, Overrides, in_words_of, read
from lorafleet.commands.clients import connect


def plan(
    file: File = None,
    each: Each = "",
    defaults: Defaults = None,
    overrides: Overrides = [],  # noqa: B006 - typer only reads it
    job_ids: JobIds = "",
    output: Output = Format.TABLE,
    server: Server = DEFAULT_SERVER,
    tenant: Tenant = DEFAULT_TENANT,
) -> None:
    """Show the packs that a batch would train as on an idle service, without submitting it."""
    from lorafleet.commands.batch.printing import print_plan

    source = read(file, each, defaults, overrides, job_ids)
    with connect(server, tenant) as client:
        planned = in_words_of(source, lambda: client.plan_batch(source.defaults, source.items))
    print_plan(planned, [str(item.get("job_id") or index) for index, item in enumerate(source.items)], output)
