"""Commands that other packages bring, by the entry-point group "lorafleet.commands": the server's `serve` is one.

They are loaded only when named, or for the list in --help, so that the SDK's own commands start fast and never import them.
"""

import functools
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import typer

from lorafleet.commands import ExitCode, complain

GROUP = "lorafleet.commands"
PANELS = {"trainer": "Adapter files"}  # headings of the list of commands, by the package that brings them


def names() -> list[str]:
    return [entry.name for entry in entry_points(group=GROUP)]


def find(name: str, *, panel: str) -> Any:
    """The command of that name; None when no package provides it."""
    for entry in entry_points(group=GROUP, name=name):
        return _command(name, _loaded(entry), PANELS.get(entry.module.partition(".")[0], panel))
    return None


def _command(name: str, function: Callable[..., Any], panel: str) -> Any:
    app = typer.Typer(add_completion=False)
    app.command(name, cls=getattr(function, "command_class", None), rich_help_panel=panel)(function)
    command = typer.main.get_command(app)
    command.name = name
    return command


def _loaded(entry: EntryPoint) -> Callable[..., Any]:
    try:
        return _guarded(entry.load(), entry)
    except ModuleNotFoundError as error:
        return _missing(entry, error)


def _guarded(function: Callable[..., Any], entry: EntryPoint) -> Callable[..., Any]:
    @functools.wraps(function)
    def guarded(*arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        except ModuleNotFoundError as error:
            return _missing(entry, error)()

    return guarded


def _missing(entry: EntryPoint, error: ModuleNotFoundError) -> Callable[[], None]:
    extra = entry.module.partition(".")[0]

    def missing() -> None:
        complain(f"{entry.name} needs more than the SDK ({error.name} is missing): pip install 'lorafleet[{extra}]'")
        raise typer.Exit(ExitCode.ERROR)

    missing.__doc__ = f"Not installed: needs the extra {extra}."
    return missing
