"""`lorafleet batch`: many jobs as one. Imports nothing slow."""

import typer

from lorafleet.commands.batch import download, jobs, plan, report, submit, watch
from lorafleet.commands.connection import ServerCommands

app = typer.Typer(cls=ServerCommands, help="Many styles at once: submit, watch on one screen, report, download.", no_args_is_help=True)

app.command("submit")(submit.submit)
app.command("plan")(plan.plan)
app.command("list")(jobs.list_batches)
app.command("get")(jobs.get)
app.command("jobs")(jobs.list_jobs)
app.command("watch")(watch.watch)
app.command("cancel")(jobs.cancel)
app.command("retry")(jobs.retry)
app.command("report")(report.report)
app.command("download")(download.download)
