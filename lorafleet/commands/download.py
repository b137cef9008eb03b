"""`lorafleet download`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lorafleet import DEFAULT_SERVER, DEFAULT_TENANT
from lorafleet.commands import Format, Job, Output, Server, Tenant
from lorafleet.commands.clients import connect
from lorafleet.terminal import say, stderr_console

if TYPE_CHECKING:
    from lorafleet.contract.artifact_manifest import ArtifactManifest

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.", show_default=False)]


def download(
    job: Job, folder: Folder, output: Output = Format.TABLE, server: Server = DEFAULT_SERVER, tenant: Tenant = DEFAULT_TENANT
) -> None:
    """Download a job's artifact to a folder and check every SHA-256: all of it or nothing."""
    with connect(server, tenant) as client:
        fetch(partial(client.download, job), folder, output)


def fetch(download: Callable[..., ArtifactManifest], folder: Path, output: Format) -> None:
    """Downloads with a bar, and says what came."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    from lorafleet.commands.printing import print_plain

    bars = Progress(BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=stderr_console(), transient=True)
    bar = bars.add_task("download")

    def show(done: int, total: int) -> None:
        bars.start()
        bars.update(bar, completed=done, total=total)

    try:
        manifest = download(folder, on_progress=show)
    finally:
        if bars.live.is_started:  # a bar that was never shown would still end in an empty line
            bars.stop()
    print_plain(manifest.model_dump(mode="json"), output)
    if output is Format.TABLE:
        say(f"{len(manifest.files)} files, {manifest.size_bytes / 1e6:.1f} MB, verified, in {folder}")
