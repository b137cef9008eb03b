"""Whom to call and as whom: --server, --tenant and the credentials, good before a command, between its words and after it.

The nearest to the command's end counts, then what comes before, then the environment.
"""

import copy
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

given_credentials: dict[str, Any] = {}  # of this call: what `lorafleet.credentials.Credentials` takes
_given_place: dict[str, Any] = {}  # server and tenant, from before the command

PANEL = "Credentials"
PLACE = "Connection"


def forget() -> None:
    """A new call begins."""
    given_credentials.clear()
    _given_place.clear()


def chosen(context: typer.Context, parameter: typer.CallbackParam, value: Any) -> Any:
    """The value of a command's own --server or --tenant: given with it, or else before it."""
    return value if _is_on_the_line(context, parameter) else _given_place.get(str(parameter.name), value)


def _keep(where: dict[str, Any], context: typer.Context, parameter: typer.CallbackParam, value: Any) -> Any:
    name, is_set = str(parameter.name), context.get_parameter_source(str(parameter.name)) is not None
    if is_set and (_is_on_the_line(context, parameter) or (value and name not in where)):
        where[name] = Path(value) if name in _PATHS and value else value
    return value


_PLACE = ("server", "tenant")
_PATHS = ("token_file", "tls_ca", "tls_cert", "tls_key")


def _keep_credential(context: typer.Context, parameter: typer.CallbackParam, value: Any) -> Any:
    return _keep(given_credentials, context, parameter, value)


def _keep_place(context: typer.Context, parameter: typer.CallbackParam, value: Any) -> Any:
    """The defaults of commands differ, so only what was given counts; the environment they read themselves."""
    return _keep(_given_place, context, parameter, value) if _is_on_the_line(context, parameter) else value


def _is_on_the_line(context: typer.Context, parameter: typer.CallbackParam) -> bool:
    source = context.get_parameter_source(str(parameter.name))
    return source is not None and source.name == "COMMANDLINE"


def _credential(name: str, help: str) -> Any:
    environment = f"LORAFLEET_{name.removeprefix('--').upper().replace('-', '_')}"
    return typer.Option(
        name, envvar=environment, help=help, rich_help_panel=PANEL, show_default=False, expose_value=False, callback=_keep_credential
    )


def _place(name: str, help: str) -> Any:
    """No variable of the environment: the command reads it itself."""
    return typer.Option(name, help=help, rich_help_panel=PLACE, show_default=False, expose_value=False, callback=_keep_place)


def _options(
    server: Annotated[str, _place("--server", "The control plane's host:port.")] = "",
    tenant: Annotated[str, _place("--tenant", "The tenant to act in.")] = "",
    token: Annotated[str, _credential("--token", "Access token; safer in the environment: others see command lines.")] = "",
    token_file: Annotated[Path | None, _credential("--token-file", "File with the token, read at each call.")] = None,
    tls: Annotated[bool, _credential("--tls", "Use TLS with this machine's certificate authorities.")] = False,
    tls_ca: Annotated[Path | None, _credential("--tls-ca", "Use TLS with the certificate authorities in this PEM file.")] = None,
    tls_cert: Annotated[Path | None, _credential("--tls-cert", "Client certificate (mTLS), PEM.")] = None,
    tls_key: Annotated[Path | None, _credential("--tls-key", "Private key of --tls-cert, PEM.")] = None,
) -> None:
    """A prototype, of which typer makes the options."""


@functools.cache
def _made() -> Sequence[Any]:
    app = typer.Typer(add_completion=False)
    app.command()(_options)
    return [option for option in typer.main.get_command(app).params if option.name != "help"]


def _lacking(command: Any, *, hidden: bool = False) -> Sequence[Any]:
    """Those options that a command or a group does not have yet."""
    taken = {name for option in command.params for name in option.opts}
    lacking = [copy.copy(option) for option in _made() if not taken & set(option.opts)]
    for option in lacking:
        option.hidden = hidden
    return lacking


class ServerCommands(TyperGroup):
    """Commands that call a server, and take where and as whom before their name and after it.

    The help of `lorafleet` shows these options, and that of each command; a group between the two takes them silently.
    """

    is_outermost = False

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.params = [*self.params, *_lacking(self, hidden=not self.is_outermost)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return with_credentials(super().get_command(ctx, cmd_name))


def with_credentials(command: Any) -> Any:
    """The command (or None), which takes credentials if it calls a server."""
    if not isinstance(command, TyperGroup) and any(option.name == "server" for option in getattr(command, "params", ())):
        command.params = [*command.params, *(option for option in _lacking(command) if option.name not in _PLACE)]
    return command
