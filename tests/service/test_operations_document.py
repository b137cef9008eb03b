"""docs/operations.md is true: its table of settings is the options of `lorafleet serve`, its statements do what they promise.

`python -m tests.service.test_operations_document` (make settings) writes the table.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from sqlalchemy import text

from lorafleet.errors import Unauthenticated
from lorafleet.v1 import report_service_pb2 as rpb
from service.cli.serve import serve
from service.db import events
from service.db.engines import parse_url
from service.runs.reports import Reports
from service.runs.tokens import RunTokens
from service.runs.warm_workers import Warmth
from tests.service.world import World, progress

REPOSITORY = Path(__file__).resolve().parents[2]
HANDBOOK = REPOSITORY / "docs/operations.md"
_TABLE = re.compile(r"(?<=<!-- settings -->\n).*?(?=<!-- /settings -->)", re.DOTALL)


def settings_table() -> str:
    """Every option of `lorafleet serve`, as the handbook shows it."""
    rows = (f"| `{option.opts[0]}` | `{option.envvar}` | {_default(option.default)} | {option.help} |" for option in _options())
    return "\n".join(["| option | environment | default | |", "|---|---|---|---|", *rows, ""])


def _options() -> Iterator[Any]:
    app = typer.Typer(add_completion=False)
    app.command()(serve)
    yield from (option for option in typer.main.get_command(app).params if option.name != "print_config")  # an action, not a setting


def _default(default: Any) -> str:
    return "" if default in (None, "", []) else f"`{getattr(default, 'value', default)}`"


def test_the_table_of_settings_is_that_of_the_code():
    [shown] = _TABLE.findall(HANDBOOK.read_text())
    assert shown == settings_table(), "run `make settings`"


def test_every_setting_is_an_environment_variable_of_its_own():
    names = [option.envvar for option in _options()]
    assert all(re.fullmatch(r"LORAFLEET_[A-Z0-9_]+", name or "") for name in names)
    assert len(set(names)) == len(names)


async def test_another_key_of_run_tokens_ends_reports_and_the_job_goes_on_in_another_attempt(world: World, database_url: str):
    name, run = await world.running("a")
    kind = "SQLite" if parse_url(database_url).drivername == "sqlite" else "PostgreSQL"
    [statement] = re.findall(rf"^(UPDATE service SET run_token_key = .*;) -- {kind}$", HANDBOOK.read_text(), flags=re.MULTILINE)
    async with world.tools.db.transaction() as tx:
        before = (await events.service(tx)).run_token_key
        await tx.session.execute(text(statement.rstrip(";")))
    async with world.tools.db.snapshot() as tx:
        key = (await events.service(tx)).run_token_key
    assert len(key) == 32
    assert key != before
    _start_again(world, key)
    with pytest.raises(Unauthenticated):
        await world.reports.apply(RunTokens(before).of(run, world.clock.now()), _report(run))
    world.backend.end(run)  # it stops itself when it hears that
    world.clock.advance(60)
    await world.settle()
    world.clock.advance(3600)
    await world.settle()
    assert (await world.job(name)).attempts[-1].number == 2


def _start_again(world: World, key: bytes) -> None:
    tokens = RunTokens(key)
    world.with_tools(tokens=tokens)
    tools = world.tools
    warmth = Warmth(tokens=tokens, locations=tools.locations, stop=tools.stop, retry=tools.retry)
    world.reports = Reports(tools.db, warmth)


def _report(run: str) -> Any:
    event = progress(2)
    event.sequence = 99
    return rpb.ReportRequest(run=run, source="driver", events=[event])


def test_doctor_looks_from_the_clients_side_with_the_sdk_alone():
    absent = "for name in ('sqlalchemy', 'boto3', 'alembic', 'httpx', 'cryptography', 'jwt'): sys.modules[name] = None"
    defaults = "{name: value.default for name, value in inspect.signature(doctor).parameters.items()}"
    call = f"doctor(**{{**{defaults}, 'server': '127.0.0.1:1'}})"
    script = f"import inspect, sys\n{absent}\nfrom service.doctor.command import doctor\n{call}"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60, cwd=REPOSITORY)
    assert "127.0.0.1:1 does not answer" in ran.stdout, ran.stderr


if __name__ == "__main__":
    HANDBOOK.write_text(_TABLE.sub(lambda _: settings_table(), HANDBOOK.read_text()))
