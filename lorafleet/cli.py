"""Runs the command line: finds the commands, and turns every outcome into a message and an exit code. Knows nothing of gRPC."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from lorafleet import __version__, terminal
from lorafleet.commands import (
    ExitCode,
    adapters,
    administration,
    batch,
    complain,
    connection,
    download,
    estimate,
    extensions,
    generations,
    jobs,
    logs,
    specs,
    submit,
    watch,
    webhooks,
)
from lorafleet.control_characters import visible
from lorafleet.errors import InvalidInput, LorafleetError

EPILOG = (
    "--server, --tenant and the credentials may stand before the command or behind it. "
    "Exit codes: 0 success, including every job waited for; 1 error; 2 wrong usage or invalid spec; "
    "3 a job failed; 4 a job was cancelled; 130 Ctrl-C (jobs continue)"
)

JOBS, ADAPTERS, SERVER, TENANTS = "Jobs", "Adapters", "Server", "Tenants"  # headings of the list of commands


@contextmanager
def _quoted_harmlessly() -> Generator[None]:
    """Wrong usage is told in typer's own box, which would write what it quotes as it is: perhaps a file's name of `*`."""
    try:
        yield
    except Exception as error:
        if hasattr(error, "format_message"):
            error.message = visible(str(getattr(error, "message", "")))  # pyright: ignore[reportAttributeAccessIssue]
        raise


class Commands(connection.ServerCommands):
    """Our commands and those registered by other packages. Errors end here, as one line without a traceback."""

    is_outermost = True

    def main(self, *args: Any, **settings: Any) -> Any:
        terminal.prepare()
        connection.forget()
        return super().main(*args, **settings)

    def make_context(self, *args: Any, **settings: Any) -> Any:
        with _quoted_harmlessly():
            return super().make_context(*args, **settings)

    def list_commands(self, ctx: Any) -> list[str]:
        ours = super().list_commands(ctx)
        tenants = ours.index("tenant")
        return [*ours[:tenants], *extensions.names(), *ours[tenants:]]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return super().get_command(ctx, cmd_name) or connection.with_credentials(extensions.find(cmd_name, panel=SERVER))

    def invoke(self, ctx: Any) -> Any:
        try:
            with _quoted_harmlessly():
                return super().invoke(ctx)
        except InvalidInput as error:
            complain(str(error))
            raise typer.Exit(ExitCode.INVALID) from None
        except BrokenPipeError:
            terminal.hang_up()
            raise typer.Exit(ExitCode.ERROR) from None
        except (LorafleetError, OSError) as error:
            complain(str(error))
            raise typer.Exit(ExitCode.ERROR) from None
        except KeyboardInterrupt:
            complain("interrupted")
            raise typer.Exit(ExitCode.INTERRUPTED) from None


app = typer.Typer(
    cls=Commands,
    help="Train Stable Diffusion LoRAs on a fleet: submit a spec, watch it train, download the adapter.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,  # locals may hold credentials
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        terminal.say(f"lorafleet {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    """The options of `lorafleet` itself; those of `lorafleet.commands.connection` come with its class."""


app.command("submit", rich_help_panel=JOBS)(submit.submit)
app.command("list", rich_help_panel=JOBS)(jobs.list_jobs)
app.command("get", rich_help_panel=JOBS)(jobs.get)
app.command("watch", rich_help_panel=JOBS)(watch.watch)
app.command("logs", rich_help_panel=JOBS)(logs.logs)
app.command("cancel", rich_help_panel=JOBS)(jobs.cancel)
app.command("download", rich_help_panel=JOBS)(download.download)
app.command("validate", rich_help_panel=JOBS)(specs.validate)
app.command("estimate", rich_help_panel=JOBS)(estimate.estimate)
app.command("schema", rich_help_panel=JOBS)(specs.schema)
app.add_typer(batch.app, name="batch", rich_help_panel=JOBS)
app.add_typer(adapters.app, name="adapters", rich_help_panel=ADAPTERS)
app.add_typer(generations.app, name="generations", rich_help_panel=ADAPTERS)
app.add_typer(webhooks.app, name="webhooks", rich_help_panel=ADAPTERS)
app.add_typer(administration.tenant_app, name="tenant", rich_help_panel=TENANTS)
app.add_typer(administration.member_app, name="member", rich_help_panel=TENANTS)
app.add_typer(administration.token_app, name="token", rich_help_panel=TENANTS)
app.add_typer(administration.grant_app, name="grant", rich_help_panel=TENANTS)
app.add_typer(administration.reservation_app, name="reservation", rich_help_panel=TENANTS)
app.add_typer(administration.audit_app, name="audit", rich_help_panel=TENANTS)


def main() -> None:
    app()


if __name__ == "__main__":
    main()
