"""`lorafleet batch download`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lorafleet import DEFAULT_SERVER, DEFAULT_TENANT
from lorafleet.commands import ExitCode, Format, Output, Server, Tenant, complain
from lorafleet.commands.batch.source import Batch
from lorafleet.commands.clients import connect
from lorafleet.terminal import say, stderr_console

if TYPE_CHECKING:
    from lorafleet.batch.download import Fetched

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Each artifact goes to DIR/JOB.", show_default=False)]


def download(
    batch: Batch, folder: Folder, output: Output = Format.TABLE, server: Server = DEFAULT_SERVER, tenant: Tenant = DEFAULT_TENANT
) -> None:
    """Download all artifacts of a batch and check every SHA-256. Repeat it for later ones: what is there is kept."""
    from rich.progress import track

    from lorafleet.batch.download import download_all

    with connect(server, tenant) as client:
        jobs = list(client.list_batch_jobs(batch))
    num_ready = sum(job.HasField("artifact") for job in jobs)
    console = stderr_console()
    fetched = list(track(download_all(jobs, folder), "download", total=num_ready, console=console, transient=True, disable=not num_ready))
    _print(fetched, len(jobs), folder, output)
    if any(one.error for one in fetched):
        raise typer.Exit(ExitCode.ERROR)


def _print(fetched: Sequence[Fetched], num_jobs: int, folder: Path, output: Format) -> None:
    from lorafleet.commands.printing import print_plain

    for one in fetched:
        if one.error:
            complain(f"{one.job}: {one.error}")
    print_plain([_plain(one) for one in fetched], output)
    if output is Format.TABLE:
        new = [one for one in fetched if one.is_new]
        there = sum(1 for one in fetched if not one.is_new and not one.error)
        size_mb = sum(one.size_bytes for one in new) / 1e6
        kept = f", {there} there already" if there else ""
        say(f"{len(new)} of {num_jobs} adapters, {size_mb:.1f} MB, verified{kept}, in {folder}")


def _plain(one: Fetched) -> dict[str, Any]:
    return {"job": one.job, "folder": str(one.folder), "is_new": one.is_new, "size_bytes": one.size_bytes, "error": one.error}
