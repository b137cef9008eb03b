"""A job's log holds its own lines and nobody's: never another style's, never another run's."""

from hypothesis import given
from hypothesis import strategies as st

from service.run_log import of_job

MINE, OTHER = "tenants/acme/jobs/mine", "tenants/blue/jobs/other"


def mine(text: str, *, run: str = "run-1", host: str = "run-1") -> str:
    return of_job(text.encode(), job=MINE, run=run, host=host).decode()


def test_a_lone_run_is_shown_whole():
    assert mine("one\ntwo\nthr") == "one\ntwo\nthr"


def test_lines_about_others_are_dropped():
    text = f"loading\n(RayTrainWorker pid=7) INFO [{MINE}] step 1\n(RayTrainWorker pid=7) INFO [{OTHER}] step 1\nINFO done\n"
    assert mine(text) == f"loading\n(RayTrainWorker pid=7) INFO [{MINE}] step 1\nINFO done\n"


def test_a_line_about_several_is_shown_to_each():
    assert mine(f"[{OTHER}] and [{MINE}] step together\n") != ""


def test_a_name_that_begins_like_mine_is_not_mine():
    assert mine(f"[{MINE}-2] step 1\n") == ""


def test_a_line_that_is_still_being_written_shows_no_others_name():
    assert mine("INFO [tenants/blue/jo") == ""
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
        st.sampled_from(["step", f"[{MINE}] loss", f"[{OTHER}] loss", "== run run-1 ==", "== run run-2 ==", f"[{MINE}] [{OTHER}]"]),
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
