"""What people see of the command line: on any locale, with and without colours, on a terminal, in a pipe that closes."""

import json
import os
import pty
import re
import subprocess
import sys

import pytest
import yaml
from google.rpc import code_pb2
from typer.testing import CliRunner

from lorafleet.cli import app
from lorafleet.v1 import training_service_pb2 as pb
from tests.lorafleet.fake_server import FakeServer, Refusal
from tests.lorafleet.jobs import a_batch, a_job, batch_event, event
from tests.lorafleet.shown import ODD

COMMAND = [sys.executable, "-m", "lorafleet.cli"]
ENDED = pb.Artifact(uri="file:///o/日本 → [b]")


def environment(server: FakeServer, **more: str) -> dict[str, str]:
    unset = {"NO_COLOR", "FORCE_COLOR", "COLUMNS", "PYTHONIOENCODING", "LC_ALL", "PYTHONUTF8"}
    inherited = {name: value for name, value in os.environ.items() if name not in unset}
    return {**inherited, "LORAFLEET_SERVER": server.address, "LORAFLEET_TENANT": "acme", "TERM": "xterm-256color", **more}


def odd_job(message: str = "画像 → …: [/b] ünreadable 👩‍🚀", state: str = "FAILED") -> pb.TrainingJob:
    job = a_job(state=state, step=7, message=message, reason="CORRUPT_PICTURES", artifact=ENDED)
    job.progress.held_out_loss_base, job.progress.held_out_loss = 0.33, 0.08
    return job


@pytest.fixture
def answering(server: FakeServer) -> FakeServer:
    server.answers("get", odd_job())
    server.answers("list", pb.ListTrainingJobsResponse(training_jobs=[odd_job()]))
    server.answers("watch", [event("1", odd_job(state="RUNNING")), event("2", odd_job())])
    server.answers("logs", [pb.StreamTrainingJobLogsResponse(attempt=1, text="Schritt → 画像\n")])
    return server


COMMANDS = {"get fox": 0, "get fox -o json": 0, "get fox -o yaml": 0, "list": 0, "watch fox": 3, "logs fox": 0, "--help": 0, "sumbit ü→": 2}


@pytest.mark.parametrize("locale", ["cp1252", "ascii", "koi8-r", "utf-8"])
@pytest.mark.parametrize("command", COMMANDS)
def test_any_locale_can_show_what_is_there(answering: FakeServer, monkeypatch: pytest.MonkeyPatch, locale: str, command: str) -> None:
    monkeypatch.setenv("LORAFLEET_SERVER", answering.address)
    ran = CliRunner(charset=locale).invoke(app, command.split())
    assert ran.exit_code == COMMANDS[command], ran.exception
    assert "Traceback" not in ran.output


def test_json_and_yaml_mean_the_same_in_any_locale(answering: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAFLEET_SERVER", answering.address)
    for format, read in (("json", json.loads), ("yaml", yaml.safe_load)):
        told = read(CliRunner(charset="ascii").invoke(app, ["get", "fox", "-o", format]).stdout)
        assert told["message"] == odd_job().message


def test_a_process_of_another_locale_writes_what_it_can(answering: FakeServer) -> None:
    locale = {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    ran = subprocess.run([*COMMAND, "watch", "fox"], capture_output=True, env=environment(answering, **locale), timeout=60)
    assert (ran.returncode, b"0.3300 -> 0.0800" in ran.stdout) == (3, True), ran.stderr
    assert b"\\u753b" in ran.stdout


def on_a_terminal(server: FakeServer, *arguments: str, **more: str) -> str:
    """What a terminal gets, stdout and stderr alike."""
    ours, theirs = pty.openpty()
    running = subprocess.Popen([*COMMAND, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=environment(server, **more))
    os.close(theirs)
    said = b""
    try:
        while piece := os.read(ours, 65536):
            said += piece
    except OSError:  # the other end is closed
        pass
    finally:
        os.close(ours)
        running.wait(60)
    return said.decode()


OBEYED = re.compile("\x1b\\]0;|\x1b\\[32mSUCC|\x07|\x9b|\u202e|\x00")


def test_nothing_of_a_run_reaches_a_terminal_as_a_command(server: FakeServer) -> None:
    server.answers("watch", [event("1", odd_job(ODD["escapes"], "RUNNING")), event("2", odd_job(ODD["escapes"]))])
    said = on_a_terminal(server, "watch", "fox")
    assert "\\x1b]0;TITLE\\x07" in said
    assert not OBEYED.search(said)


@pytest.mark.parametrize("command", ["get fox", "get fox -o json", "get fox -o yaml", "list", "watch fox", "logs fox", "batch watch b"])
def test_nothing_of_a_run_gets_out_as_a_command(server: FakeServer, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("LORAFLEET_SERVER", server.address)
    server.answers("get", odd_job(ODD["escapes"]))
    server.answers("list", pb.ListTrainingJobsResponse(training_jobs=[odd_job(ODD["escapes"])]))
    server.answers("watch", [event("1", odd_job(ODD["escapes"], "RUNNING")), event("2", odd_job(ODD["escapes"]))])
    server.answers("logs", [pb.StreamTrainingJobLogsResponse(attempt=1, text=ODD["escapes"] + "\n")])
    server.answers("get_batch", a_batch(num_jobs=1))
    server.answers("watch_batch", [batch_event("1", odd_job(ODD["escapes"]))])
    said = CliRunner().invoke(app, command.split(), env={"COLUMNS": "200"}).output
    assert "[32mSUCCEEDED" in said
    assert not OBEYED.search(said)


def test_an_error_that_quotes_a_name_does_nothing_to_a_terminal(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAFLEET_SERVER", server.address)
    server.answers("get", Refusal(code_pb2.NOT_FOUND, ODD["escapes"] + ODD["markup"], "JOB_NOT_FOUND"))
    said = CliRunner().invoke(app, ["get", "fox"]).stderr
    assert ODD["markup"] in said
    assert not OBEYED.search(said)


@pytest.mark.parametrize(
    ("wish", "command"), [({"NO_COLOR": "1"}, "validate absent.yaml"), ({"NO_COLOR": "1"}, "sumbit"), ({"TERM": "dumb"}, "--help")]
)
def test_colours_that_nobody_wants_are_in_no_message_either(answering: FakeServer, wish: dict[str, str], command: str) -> None:
    assert not re.search("\x1b\\[[0-9;]*m", on_a_terminal(answering, *command.split(), **wish))


def test_an_error_is_red_where_nobody_minds(answering: FakeServer) -> None:
    assert "\x1b[31mabsent.yaml" in on_a_terminal(answering, "validate", "absent.yaml")


def test_a_reader_that_has_seen_enough_ends_it_quietly(server: FakeServer) -> None:
    server.answers("logs", [pb.StreamTrainingJobLogsResponse(attempt=1, text=f"{'x' * 1000}\n")] * 2000)
    reading = subprocess.Popen([*COMMAND, "logs", "fox"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(server))
    assert reading.stdout is not None
    assert reading.stderr is not None
    reading.stdout.readline()
    reading.stdout.close()
    assert (reading.wait(60), reading.stderr.read()) == (1, b"")


@pytest.mark.parametrize(
    "line", [["get", "fox", "\x1b]0;TITLE\x07[/b]"], ["--\x1b[2J[/b]"], ["batch", "get", "b", "\x9b2J[/b]"], ["\x1b[2J[/b]"]]
)
def test_wrong_usage_that_quotes_an_argument_does_nothing_to_a_terminal(line: list[str]) -> None:
    ran = CliRunner().invoke(app, line)
    assert ran.exit_code == 2
    assert "[/b]" in ran.stderr
    assert not re.search("\x1b\\]|\x1b\\[2J|\x9b|\x07", ran.stderr)
