"""The command line explains itself: every option and argument has a word of help, jobs come first, usage is not doubled."""

from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from lorafleet.cli import app

COMMAND = typer.main.get_command(app)


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    context = command.make_context(path[-1] if path else "lorafleet", [], resilient_parsing=True)
    names = command.list_commands(context) if hasattr(command, "list_commands") else []
    if not names:
        yield " ".join(path), command
    for name in names:
        yield from commands(command.get_command(context, name), (*path, name))


ALL = dict(commands(COMMAND))


def shown(*arguments: str) -> str:
    ran = CliRunner().invoke(app, [*arguments, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert ran.exit_code == 0, ran.output
    return ran.stdout


@pytest.mark.parametrize("command", ALL)
def test_every_option_and_argument_says_what_it_is(command: str) -> None:
    silent = [each.name for each in ALL[command].params if not each.help and each.name != "help"]
    assert silent == []
    assert ALL[command].help


def test_commands_are_grouped_and_jobs_come_first() -> None:
    text = shown()
    order = [text.index(heading) for heading in (" Jobs ", "│ submit", "│ batch", " Server ", "│ serve", " Tenants ", "│ tenant")]
    assert order == sorted(order)
    assert " Commands " not in text, "a command without a heading of its own"


def test_an_argument_that_may_be_left_out_is_shown_once() -> None:
    assert "watch [OPTIONS] [JOB]..." in shown("watch")
    assert "simulate [OPTIONS] [TRACE]" in shown("simulate")
