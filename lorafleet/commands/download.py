"""`lorafleet download`."""

from pathlib import Path
from typing import Annotated

import typer

from lorafleet import DEFAULT_SERVER, DEFAULT_TENANT
from lorafleet.commands import Format, Job, Output, Server, Tenant, connect, stderr_console

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.", show_default=False)]


def download(
    job: Job, folder: Folder, output: Output = Format.TABLE, server: Server = DEFAULT_SERVER, tenant: Tenant = DEFAULT_TENANT
) -> None:
    """Bring a job's artifact to a folder, every SHA-256 checked: all of it or nothing."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    from lorafleet import output as text
    from lorafleet.blobs import blobs_at
    from lorafleet.download import download as fetch

    artifact = _artifact_of(job, server, tenant)
    console = stderr_console()
    with Progress(BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=console, transient=True) as bars:
        bar = bars.add_task("download")
        manifest = fetch(
            blobs_at(artifact.uri), artifact.manifest_sha256, folder, told=lambda done, total: bars.update(bar, completed=done, total=total)
        )
    match output:
        case Format.JSON:
            typer.echo(text.as_json(manifest.model_dump(mode="json")))
        case Format.YAML:
            typer.echo(text.as_yaml(manifest.model_dump(mode="json")))
        case Format.TABLE:
            typer.echo(f"{len(manifest.files)} files, {manifest.size_bytes / 1e6:.1f} MB, verified, in {folder}")


def _artifact_of(job: str, server: str, tenant: str):
    from lorafleet.errors import FailedPrecondition
    from lorafleet.states import label

    with connect(server, tenant) as client:
        found = client.get(job)
    if not found.HasField("artifact"):
        raise FailedPrecondition(f"{found.name} is {label(found)} and has no artifact", reason="NO_ARTIFACT")
    return found.artifact
