"""`lorafleet batch report`: losses, failures and a contact sheet in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lorafleet import DEFAULT_SERVER, DEFAULT_TENANT
from lorafleet.commands import Server, Tenant
from lorafleet.commands.batch.source import Batch
from lorafleet.commands.clients import connect
from lorafleet.terminal import say, spinner_of, stderr_console

if TYPE_CHECKING:
    from lorafleet.v1 import training_service_pb2 as pb

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder for the report; an earlier one is overwritten.", show_default=False)]


def report(batch: Batch, folder: Folder, server: Server = DEFAULT_SERVER, tenant: Tenant = DEFAULT_TENANT) -> None:
    """Write report.json, report.md and sheet.png (a row per style) to a folder, even while the batch trains."""
    from lorafleet import output
    from lorafleet.batch import report as batch_report

    with connect(server, tenant) as client:
        found = client.get_batch(batch)
        jobs = list(client.list_batch_jobs(batch))
    folder.mkdir(parents=True, exist_ok=True)
    sheets = _draw(jobs, folder)

    now = datetime.now(UTC)
    (folder / "report.json").write_text(output.as_json(batch_report.report(found, jobs, now)) + "\n", encoding="utf-8")
    (folder / "report.md").write_text(batch_report.markdown(found, jobs, now, sheets), encoding="utf-8")
    say(f"{', '.join(['report.json', 'report.md', *sheets])} in {folder}")


def _draw(jobs: Sequence[pb.TrainingJob], folder: Path) -> list[str]:
    """The names of the sheets; none, with a remark on stderr, if they cannot be drawn."""
    try:
        from lorafleet.batch.sheet import draw
    except ModuleNotFoundError:
        say("no contact sheet: drawing needs Pillow (pip install 'lorafleet[report]')", err=True, colour="yellow")
        return []
    if not any(job.HasField("artifact") for job in jobs):
        say("no contact sheet: no style has an artifact yet", err=True, colour="yellow")
        return []
    console = stderr_console()
    with console.status("reading sample pictures", spinner=spinner_of(console)):
        sheets = draw(jobs, folder)
    for missing in sheets.missing:
        say(f"no pictures of {missing}", err=True, colour="yellow")
    return [path.name for path in sheets.paths]
