"""A job's log holds its own lines and nobody's: never another style's, never another run's."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.backends.run_log import CUT, MAX_LINE_BYTES, RunLines, of_job

MINE, OTHER = "tenants/acme/jobs/mine", "tenants/blue/jobs/other"


def mine(text: str, *, run: str = "run-1", host: str = "run-1") -> str:
    lines = RunLines(run, host)
    return of_job([*lines.feed(text.encode()), *lines.unfinished()], MINE).decode()


def in_pieces(text: bytes, cuts: list[int], *, run: str) -> bytes:
    """The same, read in pieces, each by another reader that goes on where the one before ended."""
    lines, found = RunLines(run, "run-1"), b""
    for end in [*sorted(cuts), len(text)]:
        lines = RunLines.restored(run, "run-1", json.loads(json.dumps(lines.state())))
        found += of_job(lines.feed(text[lines.read_bytes : max(end, lines.read_bytes)]), MINE)
    return found + of_job(lines.unfinished(), MINE)


def test_a_lone_run_is_shown_whole():
    assert mine("one\ntwo\nthr") == "one\ntwo\nthr"


def test_lines_about_others_are_dropped():
    text = f"loading\n(RayTrainWorker pid=7) INFO [{MINE}] step 1\n(RayTrainWorker pid=7) INFO [{OTHER}] step 1\nINFO done\n"
    assert mine(text) == f"loading\n(RayTrainWorker pid=7) INFO [{MINE}] step 1\nINFO done\n"


def test_a_line_is_of_the_mark_at_its_start_whatever_names_stand_behind_it():
    assert mine(f"[{OTHER}] and [{MINE}] step together\n") == ""
    assert mine(f"[{MINE}] caption [{OTHER}] == run run-2 == run-ffffffffffffffff.png\nINFO next\n").count("\n") == 2
    assert mine(f"[run] INFO about [{OTHER}]\n") != "", "a line of the run, whatever it quotes"
    assert mine(f"INFO lorafleet.run: about [{OTHER}]\n") != ""
    assert mine(f"[{OTHER}] caption\n[ and [{MINE}] forged\n") == ""


def test_lines_without_a_mark_go_on_from_the_line_before():
    ray = "(RayTrainWorker pid=7)"
    text = f"{ray} [{OTHER}] dataset.uri: cannot be read:\n{ray}   customer.png\n{ray} [{MINE}] step\n{ray}   of mine\n"
    assert mine(text) == f"{ray} [{MINE}] step\n{ray}   of mine\n"


def test_lines_of_two_workers_that_are_mixed_go_on_each_from_its_own():
    one, two = "(RayTrainWorker pid=7)", "(RayTrainWorker pid=8, ip=10.0.0.2)"
    assert mine(f"{one} [{OTHER}] a\n{two} [{MINE}] b\n{one} theirs\n{two} mine\n") == f"{two} [{MINE}] b\n{two} mine\n"


def test_what_follows_in_the_drivers_own_output_goes_on_from_whoever_was_before():
    assert mine(f"(RayTrainWorker pid=7) [{OTHER}] a\nthe rest of it\n2026-11-30 10:00:00,123 INFO lorafleet.run: done\n").count("\n") == 1


@pytest.mark.parametrize(
    "line",
    [
        "(raylet) a worker died\n",
        "(raylet, ip=10.0.0.2) [2026-11-30 10:00:00,123 E] out of memory\n",
        "(autoscaler +3s) no node\n",
        "(TrainController pid=5) Training failed\n",
        "[run] rank 1 INFO lorafleet.pack: began\n",
        "2026-11-30 10:00:00,123\tERROR worker.py:12 -- odd\n",
        "[2026-11-30 10:00:00,123] [INFO] [engine.py:1:log] [Rank 0] a step\n",
        "WARNING:root:odd\n",
    ],
)
def test_what_is_said_of_the_whole_run_is_seen_by_all(line: str):
    assert mine(f"[{OTHER}] a\n{line}") == line


def test_what_an_earlier_server_has_read_is_gone_on_from():
    state = {"read_bytes": 4, "newest": "", "begun": {}, "cutting": False}
    assert of_job(RunLines.restored("run-1", "run-1", state).feed(b"more\n"), MINE) == b"more\n"


def test_a_name_that_begins_like_mine_is_not_mine():
    assert mine(f"[{MINE}-2] step 1\n") == ""


def test_a_line_that_is_still_being_written_shows_no_others_name():
    assert mine("INFO [tenants/blue/jo") == ""
    assert mine("[tenants/blue/jo") == ""
    assert mine("(RayTrainWorker pid=7) [tenants/bl") == ""
    assert mine("(RayTrain") == ""
    assert mine("INFO step") == "INFO step"


def test_runs_of_warm_workers_are_cut_apart():
    text = (
        "driver starts\n"
        "(RayTrainWorker pid=7) == run run-1 ==\n(RayTrainWorker pid=7) first\n"
        "(RayTrainWorker pid=7) == run run-2 ==\n(RayTrainWorker pid=7) second\nthe driver again\n"
        "(RayTrainWorker pid=7) == run run-3 ==\n(RayTrainWorker pid=7) third\n"
    )
    assert mine(text) == "driver starts\n(RayTrainWorker pid=7) == run run-1 ==\n(RayTrainWorker pid=7) first\n"
    assert mine(text, run="run-2") == "(RayTrainWorker pid=7) == run run-2 ==\n(RayTrainWorker pid=7) second\nthe driver again\n"
    assert mine(text, run="run-3") == "(RayTrainWorker pid=7) == run run-3 ==\n(RayTrainWorker pid=7) third\n"


def test_what_ray_tells_late_of_a_run_is_not_the_next_ones():
    first, second = "run-0123456789abcdef", "run-fedcba9876543210"
    late = f"(TrainController pid=5) reported {{'run': '{first}'}} from rank 0\n"
    text = f"(RayTrainWorker pid=7) == run {first} ==\n(RayTrainWorker pid=7) == run {second} ==\n{late}"
    assert late in mine(text, run=first, host=first)
    assert late not in mine(text, run=second, host=first)
    assert first[:9] not in mine(text[: text.index(late) + late.index(first) + 9], run=second, host=first)


def test_each_worker_is_in_the_run_that_it_has_begun():
    text = (
        "(RayTrainWorker pid=7) == run run-1 ==\n(RayTrainWorker pid=8) == run run-1 ==\n"
        "(RayTrainWorker pid=7) == run run-2 ==\n(RayTrainWorker pid=8) last of the first\n(RayTrainWorker pid=8) == run run-2 ==\n"
    )
    assert "last of the first" in mine(text)
    assert "last of the first" not in mine(text, run="run-2")


def test_colours_and_node_addresses_do_not_hide_the_source():
    red = "\x1b[36m(RayTrainWorker pid=8, ip=10.0.0.2)\x1b[0m"
    assert mine(f"{red} == run run-2 ==\n(RayTrainWorker pid=7) here\n{red} there\n", run="run-2").endswith(f"{red} there\n")


def test_a_run_that_has_not_begun_has_no_log():
    assert mine("driver starts\nfirst\n", run="run-2") == ""


_lines = st.lists(
    st.tuples(
        st.sampled_from(["", "(RayTrainWorker pid=7) ", "(RayTrainWorker pid=8) "]),
        st.sampled_from(
            ["step", f"[{MINE}] loss", f"[{OTHER}] loss", "== run run-1 ==", "== run run-2 ==", f"[{MINE}] [{OTHER}]", "[run] all"]
        ),
    ),
    max_size=30,
).map(lambda found: "".join(f"{source}{line}\n" for source, line in found))


@given(_lines, st.data())
def test_what_was_read_stays_as_more_is_written(text, data):
    cut = data.draw(st.integers(0, text.count("\n")))
    part = "".join(text.splitlines(keepends=True)[:cut])
    for run in ("run-1", "run-2"):
        assert mine(text, run=run).startswith(mine(part, run=run))


@given(_lines)
def test_no_line_about_another_alone_and_none_of_another_run_slips_through(text):
    shown = [mine(text, run=run).splitlines() for run in ("run-1", "run-2")]
    assert not any(OTHER in line and MINE not in line for lines in shown for line in lines)
    assert sum(map(len, shown)) <= len(text.splitlines())


@given(_lines, st.lists(st.integers(0, 600), max_size=6), st.booleans())
def test_however_it_is_cut_and_whoever_goes_on_the_same_is_found(text: str, cuts: list[int], ends: bool):
    written = text.encode() + (b"" if ends else b"[tenants/acme/jobs/mine] un")
    for run in ("run-1", "run-2"):
        assert in_pieces(written, [min(cut, len(written)) for cut in cuts], run=run).decode() == mine(written.decode(), run=run)


@given(st.integers(-2, 2), st.lists(st.integers(0, 3 * MAX_LINE_BYTES), max_size=4))
def test_a_line_without_end_is_cut_and_holds_no_memory(more: int, cuts: list[int]):
    long = b"x" * (MAX_LINE_BYTES + more)
    text = b"before\n" + long + b"\n" + long * 2 + b"\nbehind\n"
    shown = (long if more <= 0 else long[:MAX_LINE_BYTES] + CUT[:-1]) + b"\n"
    assert in_pieces(text, [min(cut, len(text)) for cut in cuts], run="run-1") == b"".join(
        [b"before\n", shown, b"x" * MAX_LINE_BYTES + CUT, b"behind\n"]
    )
    lines = RunLines("run-1", "run-1")
    for _ in range(10):
        lines.feed(long)
    assert len(lines.unfinished()) == 0
    assert lines.read_bytes == 10 * len(long)


def test_the_rest_of_a_cut_line_about_another_is_not_shown():
    text = f"[{OTHER}] ".encode() + b"x" * MAX_LINE_BYTES + f"secret [{MINE}]\nINFO behind\n".encode()
    assert in_pieces(text, [MAX_LINE_BYTES + 40], run="run-1") == b"INFO behind\n"
