"""`lorafleet watch`: jobs as bars on a terminal, as lines elsewhere, as JSON or YAML for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from lorafleet import DEFAULT_SERVER, DEFAULT_TENANT
from lorafleet.commands import ExitCode, Format, Output, Server, Tenant, complain
from lorafleet.commands.clients import connect
from lorafleet.terminal import say, stderr_console

if TYPE_CHECKING:
    from lorafleet.client import Client
    from lorafleet.v1 import generation_service_pb2 as generation_pb
    from lorafleet.v1 import training_service_pb2 as pb

LIVE = ("QUEUED", "ADMITTED", "STARTING", "RUNNING", "STOPPING")


def watch(
    jobs: Annotated[list[str] | None, typer.Argument(metavar="JOB", help="Jobs to watch; default: all that have not ended.")] = None,
    output: Output = Format.TABLE,
    server: Server = DEFAULT_SERVER,
    tenant: Tenant = DEFAULT_TENANT,
) -> None:
    """Watch jobs until they have ended. Ctrl-C stops watching, not the jobs."""
    with connect(server, tenant) as client:
        names = [client.name(job) for job in jobs or _live(client)]
        if not names:
            say("no job is queued or running", err=True)
            return
        follow_to_the_end(client, names, output)


def follow_to_the_end(client: Client, names: Sequence[str], output: Format) -> None:
    """Show jobs until all have ended, then exit with the code of the worst outcome."""
    from lorafleet.commands.printing import print_change, print_endings
    from lorafleet.progress_view import view_on

    ended: dict[str, pb.TrainingJob] = {}
    try:
        with view_on(stderr_console()) as show:
            for job in _changes(client, names):
                show(job)
                ended[job.name] = job
                print_change(job, output)
    except KeyboardInterrupt:
        complain(f"stopped watching; {_these(names)} (lorafleet cancel stops a job)")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    print_endings(list(ended.values()), output)
    raise typer.Exit(outcome(list(ended.values())))


def outcome(jobs: Sequence[pb.TrainingJob | generation_pb.Generation]) -> ExitCode:
    """The exit code of a set of ended jobs: that of the worst outcome."""
    from lorafleet.v1 import training_service_pb2 as pb

    states = {job.state for job in jobs}
    if pb.JOB_STATE_FAILED in states:
        return ExitCode.JOB_FAILED
    return ExitCode.JOB_CANCELLED if pb.JOB_STATE_CANCELLED in states else ExitCode.SUCCEEDED


def _live(client: Client) -> Iterator[str]:
    """In one call: of several, a job that moves in between would be listed twice or missed."""
    return (job.name for job in client.list(filter=" OR ".join(f"state = {state}" for state in LIVE)))


def _changes(client: Client, names: Sequence[str]) -> Iterator[pb.TrainingJob]:
    """The jobs as they are and after every change, until all have ended. One watch serves them all."""
    from lorafleet.states import has_ended

    if len(names) == 1:
        yield from client.watch(names[0])
        return
    left = {name for name in names if client.get(name)}  # an unknown job is an error now, not a silence for ever
    for job in client.watch():
        if job.name in left:
            yield job
            left -= {job.name} if has_ended(job) else set()
        if not left:
            return


def _these(names: Sequence[str]) -> str:
    return f"{names[0].rpartition('/')[2]} goes on" if len(names) == 1 else f"{len(names)} jobs go on"
