"""`lorafleet batch submit`."""

from typing import Annotated

import typer

from lorafleet import DEFAULT_SERVER, DEFAULT_TENANT
from lorafleet.commands import Format, Output, Server, Tenant
from lorafleet.commands.batch.source import Defaults, Each, File, JobIds, Overrides, in_words_of, read
from lorafleet.commands.clients import connect
from lorafleet.terminal import say


def submit(
    file: File = None,
    each: Each = "",
    defaults: Defaults = None,
    overrides: Overrides = [],  # noqa: B006 - typer only reads it
    job_ids: JobIds = "",
    batch_id: Annotated[
        str, typer.Option("--batch-id", help="Id of the batch, instead of the one in FILE; unset: chosen by the server.")
    ] = "",
    request_id: Annotated[str, typer.Option("--request-id", help="UUID that makes it safe to repeat this command.")] = "",
    validate_only: Annotated[
        bool, typer.Option("--validate-only", "--dry-run", help="Let the server check everything without submitting.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Watch until all have ended; Ctrl-C stops watching, not the jobs.")] = False,
    output: Output = Format.TABLE,
    server: Server = DEFAULT_SERVER,
    tenant: Tenant = DEFAULT_TENANT,
) -> None:
    """Submit many styles as one batch: all are accepted or none. Once this returns, they cannot be lost."""
    from lorafleet.commands.batch.printing import batch_id_of, print_batch
    from lorafleet.commands.batch.watch import follow_to_the_end
    from lorafleet.output import number

    source = read(file, each, defaults, overrides, job_ids)
    with connect(server, tenant) as client:
        options = {"batch_id": batch_id or source.batch_id, "request_id": request_id}
        batch = in_words_of(source, lambda: client.create_batch(source.defaults, source.items, **options, validate_only=validate_only))
        if validate_only:
            say(f"a batch of {len(source.items)} would be accepted", err=True)
            return
        say(f"accepted as {batch.name}: {number(batch.num_jobs, 'style')}", err=True)
        if wait:
            follow_to_the_end(client, batch, output)
            return
    print_batch(batch, output)
    if output is Format.TABLE:
        say(f"to follow it: lorafleet batch watch {batch_id_of(batch)}", err=True)
