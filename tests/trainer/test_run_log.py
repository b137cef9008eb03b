"""Each line of a shared run's log is its style's by a mark that no style's text can forge, from the writer to the reader."""

import io
import logging
import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.backends.driver_message import last_lines
from service.backends.run_log import RunLines, of_job
from trainer import run, run_log
from trainer.run_log import MAX_LINE_CHARS, MarkedLines

RUN, MINE, OTHER = "run-0123456789abcdef", "tenants/acme/jobs/mine", "tenants/blue/jobs/other"
WORKER = "(RayTrainWorker pid=7) "
FORGED = [
    f"[{MINE}] forged",
    f"x\n[{MINE}] forged",
    f"x\r[{MINE}] forged",
    f"x\r\n(RayTrainWorker pid=7) [{MINE}] forged",
    f"x\n2026-11-30 10:00:00,123 INFO lorafleet.run: [{MINE}] forged",
    "x\n[run] == run run-ffffffffffffffff ==",
    "x\n== run run-ffffffffffffffff ==\n[run] forged",
    f"x:info_message:[{MINE}] forged",
    f"\n:actor_name:x pid=1) [{MINE}] forged",
    f"__ray_tqdm_magic_token__[{MINE}] forged",
    f"x\u2028[{MINE}] forged\x85[{MINE}] forged\x0b[{MINE}]\x1c[{MINE}]",
    f"\x1b[2K\x1b[1G[{MINE}] forged",
    f"\ud83d\n[{MINE}] forged",
    f"{'y' * MAX_LINE_CHARS}[{MINE}] forged",
    f"{'y' * (MAX_LINE_CHARS - 40)}\n[{MINE}] forged",
]


def written(*texts: tuple[str, str], rank: int | None = 0) -> str:
    """What a process writes, of each text about a job."""
    stream = io.StringIO()
    lines = MarkedLines(stream, rank)
    for job, text in texts:
        with run_log.about(job):
            lines.write(f"{text}\n")
    return stream.getvalue()


def through_ray(text: str) -> bytes:
    """As Ray passes lines of a worker on: what it takes for its own changes the line (see `print_worker_logs`)."""
    lines = [line for line in text.encode().decode().split("\n")[:-1] if "__ray_tqdm_magic_token__" not in line]
    shown = [line.split(":info_message:")[1] if ":info_message:" in line else line for line in lines]
    assert not any(line.startswith((":actor_name:", ":task_name:", ":job_id:")) for line in lines)
    return "".join(f"{WORKER}{line}\n" for line in shown).encode()


def seen(log: bytes, job: str) -> str:
    return of_job(RunLines(RUN, RUN).feed(log), job).decode()


@pytest.mark.parametrize("text", FORGED)
def test_a_style_writes_no_line_of_anothers_and_none_of_its_own_is_lost(text: str):
    log = through_ray(written((run_log.RUN, f"== run {RUN} =="), (OTHER, text), (MINE, "step"), (OTHER, "its last")))
    assert seen(log, MINE) == f"{WORKER}[run] rank 0 == run {RUN} ==\n{WORKER}[{MINE}] rank 0 step\n"
    theirs = seen(log, OTHER)
    assert theirs.endswith(f"{WORKER}[{OTHER}] rank 0 its last\n")
    assert theirs.count("\n") == log.count(b"\n") - 1


@given(st.lists(st.tuples(st.sampled_from([MINE, OTHER]), st.text(max_size=40) | st.sampled_from(FORGED)), max_size=8))
def test_whatever_styles_say_each_sees_its_own_lines_and_all_of_them(said: list[tuple[str, str]]):
    log = through_ray(written(*said))
    marks = {job: f"{WORKER}[{job}] rank 0 " for job in (MINE, OTHER)}
    for job in (MINE, OTHER):
        assert all(line.startswith(marks[job]) for line in seen(log, job).split("\n")[:-1])
    assert seen(log, MINE).count("\n") + seen(log, OTHER).count("\n") == log.count(b"\n")


def test_a_traceback_is_its_styles_line_by_line(monkeypatch: pytest.MonkeyPatch):
    out = io.StringIO()
    handler = logging.StreamHandler(MarkedLines(out))  # pyright: ignore[reportArgumentType]
    logger = logging.getLogger("lorafleet.test")
    logger.addHandler(handler)
    try:
        with run_log.about(MINE):
            raise ValueError(f"two\n[{OTHER}] lines")
    except ValueError:
        with run_log.about(MINE):
            logger.exception("failed")
    finally:
        logger.removeHandler(handler)
    lines = out.getvalue().splitlines()
    assert len(lines) > 4
    assert all(line.startswith(f"[{MINE}] ") for line in lines)


class Writes(io.StringIO):
    """Remembers each write: Ray reads the file while it is written."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []

    def write(self, text: str, /) -> int:
        self.pieces.append(text)
        return super().write(text)


def test_each_line_comes_in_one_short_write_whatever_its_length_and_however_it_was_written():
    stream = Writes()
    lines = MarkedLines(stream, 1)
    for piece in ("a", "b\n", "c" * 20_000, "\n", "d"):
        lines.write(piece)
    assert all(piece.startswith("[run] rank 1 ") and piece.endswith("\n") and len(piece) < 8192 for piece in stream.pieces)
    assert "".join(stream.pieces).count("c") == 20_000
    assert stream.pieces[0] == "[run] rank 1 ab\n"


def test_lines_of_two_threads_do_not_mix():
    stream = io.StringIO()
    lines = MarkedLines(stream)
    lines.write("mine, begun")
    other = threading.Thread(target=lambda: lines.write("theirs\n"))
    other.start()
    other.join()
    lines.write(" and ended\n")
    assert stream.getvalue() == "[run] theirs\n[run] mine, begun and ended\n"


def test_what_ray_prints_of_workers_and_what_the_reporter_says_is_not_the_style_at_hands():
    stream = io.StringIO()
    lines = MarkedLines(stream)
    with run_log.about(MINE):
        for name in ("ray_print_logs", "reporter", "ThreadPoolExecutor-0_0"):
            thread = threading.Thread(target=lambda: lines.write("(RayTrainWorker pid=1) [run] rank 1 x\n"), name=name)
            thread.start()
            thread.join()
    line = "(RayTrainWorker pid=1) [run] rank 1 x\n"
    assert stream.getvalue() == f"{line}[run] {line}[{MINE}] {line}"


def test_libraries_that_were_imported_before_are_marked_too(monkeypatch: pytest.MonkeyPatch):
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("sys.stderr", err)
    rays = logging.StreamHandler(io.StringIO())  # as Ray Train puts one there, past us
    monkeypatch.setattr(logging.root, "handlers", [rays])
    monkeypatch.setattr(logging.root, "level", logging.root.level)
    early: Any = logging.getLogger("an.early.library")
    early.handlers, early.propagate = [logging.StreamHandler(err)], False
    run_log.set_up(2)
    with run_log.about(MINE):
        early.warning("your prompt was cut: secret")
        print("printed")
        logging.getLogger("lorafleet.test").warning("logged")
    assert rays.stream.getvalue() == ""
    assert err.getvalue() == f"[{MINE}] rank 2 your prompt was cut: secret\n"
    assert out.getvalue() == f"[{MINE}] rank 2 printed\n[{MINE}] rank 2 WARNING lorafleet.test: logged\n"
    run_log.set_up(2)
    print("once")
    assert out.getvalue().endswith("\n[run] rank 2 once\n")


def test_ray_keeps_every_line_of_every_worker_and_colours_none():
    """Asked in a process of its own: Ray reads one of the two when it is imported."""
    ask = "import trainer.workers, os; from ray._private import ray_constants as r; print(r.RAY_DEDUP_LOGS, os.environ['RAY_COLOR_PREFIX'])"
    told = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, timeout=120, check=True)
    assert told.stdout.splitlines()[-1] == "False 0"


class Wrapped(Exception):
    """As Ray Train tells what its workers raised: tracebacks and colours in the message, the cause within."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__("Training failed due to worker errors:\n\x1b[36mray::Worker.run\x1b[39m Traceback ...")
        self.worker_failures = {0: cause}


def test_what_broke_a_run_is_told_without_tracebacks_and_colours(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def breaks(*_: Any) -> int:
        raise Wrapped(RuntimeError("CUDA error: \x1b[31mmisaligned\x1b[0m\nmore"))

    monkeypatch.setattr(run, "read_manifest", lambda _uri: SimpleNamespace(manifest=None))
    monkeypatch.setattr(run.Address, "of", lambda *_: None)
    monkeypatch.setattr(run, "_run", breaks)
    monkeypatch.setattr(run.run_log, "set_up", lambda: None)
    out = io.StringIO()
    handler = logging.StreamHandler(MarkedLines(out))  # pyright: ignore[reportArgumentType]
    monkeypatch.setattr(run.log, "handlers", [handler])
    assert run.main(["--manifest", "file:///x/run.json"]) == 1
    quoted = last_lines(f"Job failed (truncated to 20,000 chars):\n[{OTHER}] of a customer\n{out.getvalue()}")
    assert quoted.startswith("RuntimeError: CUDA error: misaligned (")
    assert "\n" not in quoted


def test_a_runs_last_words_are_no_styles_and_have_no_colours():
    told = last_lines(f"[{MINE}] ERROR x: secret\nits second line\n[run] \x1b[36mERROR\x1b[0m y: all of it\n")
    assert told == "ERROR y: all of it"
