"""`lorafleet submit`."""

from typing import Annotated

import typer

from lorafleet import DEFAULT_SERVER, DEFAULT_TENANT
from lorafleet.commands import Format, Output, Server, Tenant
from lorafleet.commands.clients import connect
from lorafleet.commands.specs import File, Overrides
from lorafleet.terminal import say


def submit(
    file: File,
    overrides: Overrides = [],  # noqa: B006 - typer only reads it
    job_id: Annotated[str, typer.Option("--job-id", help="Id of the job; unset: chosen by the server.")] = "",
    request_id: Annotated[str, typer.Option("--request-id", help="UUID that makes it safe to repeat this command.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Let the server check everything without submitting.")] = False,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Watch until the job ends; Ctrl-C stops watching, not the job.")] = False,
    output: Output = Format.TABLE,
    server: Server = DEFAULT_SERVER,
    tenant: Tenant = DEFAULT_TENANT,
) -> None:
    """Submit a training spec. Once this returns, the job cannot be lost."""
    from lorafleet import spec_file
    from lorafleet.commands.printing import print_job
    from lorafleet.commands.watch import follow_to_the_end
    from lorafleet.states import job_id as id_of

    spec = spec_file.load(file, overrides)
    with connect(server, tenant) as client:
        job = client.create(spec, job_id=job_id, request_id=request_id, validate_only=dry_run)
        if dry_run:
            say(f"{file} would be accepted", err=True)
            return
        say(f"accepted as {job.name}", err=True)
        if wait:
            follow_to_the_end(client, [job.name], output)
            return
    print_job(job, output)
    if output is Format.TABLE:
        say(f"to follow it: lorafleet watch {id_of(job)}", err=True)
