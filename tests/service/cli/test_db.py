"""`lorafleet db` acts on the database that `lorafleet serve` would use, from the same flags, environment and file, and on no other."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from lorafleet.cli import app
from service.db import migrate
from service.settings.serve_options import DATABASE_NAME


@pytest.fixture
def state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))  # where the default's would be
    folder = tmp_path / "state"
    folder.mkdir()
    return folder


@pytest.fixture
def file(tmp_path: Path, state_dir: Path) -> Path:
    """Of a server with other options beside the database's."""
    path = tmp_path / "serve.yaml"
    path.write_text(f"state-dir: {state_dir}\nmax-streams: 3\nisolate-tenant: [acme]\n")
    return path


def db(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(app, ["db", *arguments], env={f"LORAFLEET_{name}": value for name, value in environment.items()})


def test_the_database_is_the_one_that_the_file_of_serve_names(file: Path, state_dir: Path):
    assert db("check", "--config", str(file)).exit_code == 1
    assert db("upgrade", "--config", str(file)).exit_code == 0
    assert (state_dir / DATABASE_NAME).exists()
    assert db("check", CONFIG=str(file)).exit_code == 0
    assert db("downgrade", "--to", migrate.REVISIONS[-2], CONFIG=str(file)).exit_code == 0
    assert migrate.revision(f"sqlite:///{state_dir / DATABASE_NAME}") == migrate.REVISIONS[-2]


def test_flags_and_environment_count_before_the_file(file: Path, state_dir: Path, tmp_path: Path):
    (tmp_path / "other").mkdir()
    assert db("upgrade", "--state-dir", str(tmp_path / "other"), CONFIG=str(file)).exit_code == 0
    assert db("check", "--config", str(file), STATE_DIR=str(tmp_path / "other")).exit_code == 0
    assert not (state_dir / DATABASE_NAME).exists()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("databse-url: postgresql://db.example/fleet", "databse-url (file {file}): unknown option; close: database-url"),
        ("database-url: mysql://ada:secret-word@db.example/fleet", "--database-url (file {file}) names 'mysql'"),
        ("state-dir: [a, b]", "--state-dir (file {file}): takes one value, not a list"),
    ],
)
def test_nothing_is_changed_while_an_option_is_wrong(file: Path, state_dir: Path, tmp_path: Path, line: str, told: str):
    """Else another database than the one that is meant would be migrated: the one in --state-dir."""
    file.write_text(f"{line}\n")
    found = db("upgrade", "--config", str(file), STATE_DIR="" if "state-dir" in line else str(state_dir))
    assert found.exit_code == 2
    assert found.stderr.splitlines()[0] == "1 problem in the options"
    assert found.stderr.splitlines()[1].startswith("  " + told.format(file=file))
    assert "secret-word" not in found.output
    assert not list(tmp_path.rglob(DATABASE_NAME))


def test_what_is_to_be_done_is_said_on_the_command_line(file: Path):
    for arguments, told in (((), "Missing argument"), (("repair",), "'check'"), (("check", "upgrade"), "'upgrade': is not the value")):
        found = db(*arguments, "--config", str(file))
        assert (found.exit_code, told in found.stderr) == (2, True), found.output
    assert "--config" in db("--help").stdout
