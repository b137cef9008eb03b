"""What goes wrong with one style ends that style alone, on every worker, and is said in one line; the traceback is in its log."""

import csv
import errno
import logging
import multiprocessing
import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest

from lorafleet.errors import RunFailed, Unavailable
from trainer import style_isolation
from trainer.report import Address, Reporter, StaleAttempt

JOB = "tenants/t/jobs/bad"


def failure(error: BaseException, **options: Any) -> RunFailed:
    with pytest.raises(RunFailed) as raised, style_isolation.only(JOB, "preparing the style", **options), style_isolation.naming("a/b.png"):
        raise error
    return raised.value


def deep() -> None:
    deep()


HOPELESS: list[BaseException] = [
    UnicodeEncodeError("utf-8", "\ud83d", 0, 1, "surrogates not allowed"),
    csv.Error("field larger than field limit (131072)"),
    RecursionError("maximum recursion depth exceeded"),
    OverflowError("cannot convert float infinity to integer"),
    MemoryError(),
    KeyError("text"),
    struct.error("unpack requires a buffer of 8 bytes"),
    OSError("cannot identify image file"),
    FileNotFoundError(errno.ENOENT, "No such file"),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
]


@pytest.mark.parametrize("error", HOPELESS, ids=lambda error: type(error).__name__)
def test_what_fails_again_alike_is_not_tried_again_and_is_said_in_one_line(error: BaseException):
    failed = failure(error)
    assert not failed.retryable
    assert failed.message.startswith("preparing the style, a/b.png: ")
    assert type(error).__name__ in failed.message
    assert "(unknown" not in failed.message
    assert "test_style_isolation.py:" in failed.message, "where in the code"
    assert "\n" not in failed.message
    assert "Traceback" not in failed.message


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(),
        TimeoutError(),
        OSError(errno.ENOSPC, "No space left on device"),
        Unavailable("the store is away"),
        type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_passes_is_tried_again(error: BaseException):
    assert failure(error).retryable


def test_a_fault_of_an_unknown_kind_is_tried_again_once_the_style_has_trained():
    assert failure(RuntimeError("odd"), has_trained=True).retryable
    assert not failure(RuntimeError("odd")).retryable
    assert not failure(ValueError("odd"), has_trained=True).retryable


def test_a_failure_that_was_raised_on_purpose_stays_as_it_is():
    error = RunFailed("dataset.uri: empty", reason="DATASET_EMPTY")
    assert failure(error) is error


class PanicException(BaseException):
    """As libraries in Rust raise it."""


def test_a_panic_of_a_library_in_rust_ends_the_style_alone():
    assert "PanicException: index out of bounds" in failure(PanicException("index out of bounds")).message


@pytest.mark.parametrize(
    "error",
    [
        StaleAttempt("run-1"),
        KeyboardInterrupt(),
        SystemExit(3),
        RuntimeError("CUDA error: device-side assert triggered"),
        type("DistBackendError", (type("DistError", (RuntimeError,), {}),), {})("NCCL timed out"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_ends_the_run_is_no_styles_failure(error: BaseException):
    with pytest.raises(type(error)) as raised, style_isolation.only(JOB, "beginning"):
        raise error
    assert raised.value is error


def test_a_message_holds_no_colours_no_control_characters_and_no_end_without_end():
    failed = failure(ValueError("\x1b[36mred\x1b[0m\x07 \ud83d " + "x" * 100_000))
    assert "red\\x07 \\ud83d xxx" in failed.message
    assert len(failed.message) <= style_isolation.MAX_MESSAGE_CHARS
    assert failed.message.isprintable()


def test_an_error_whose_message_cannot_be_made_is_still_one_styles():
    class Unsayable(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert "its message cannot be shown" in failure(Unsayable()).message


def test_the_traceback_is_in_the_log(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.ERROR), pytest.raises(RunFailed) as raised, style_isolation.only(JOB, "encoding"):
        deep()
    assert "RecursionError" in caplog.text
    assert "Traceback" in caplog.text
    assert "RecursionError: maximum recursion depth exceeded" in raised.value.message


def test_half_a_character_in_a_purposeful_message_does_not_keep_it_from_being_reported():
    reporter = Reporter(Address("run-1", "127.0.0.1:1", "token"), source="test")
    reporter.failed(JOB, RunFailed("no caption for \ud83d.png \x1b[2J" + "y" * 10_000))
    ended = reporter._pending[-1].ended
    assert ended.message.startswith("no caption for \\ud83d.png yyy")
    assert len(ended.message) < 5_000


@pytest.mark.parametrize("text", ["[" * 100_000, '{"job": "\\ud83d"}', "", '{"job": 1e999}'])
def test_a_joiner_that_cannot_be_read_fails_alone(text: str):
    from lorafleet.v1 import report_service_pb2 as pb

    reporter = Reporter(Address("run-1", "127.0.0.1:1", "token"), source="test")
    reporter._hear_joining([pb.JoiningStyle(job=JOB, style_json=text)])
    assert reporter._pending[-1].ended.reason == "INVALID_SPEC"
    assert reporter.joining() == []


# Several workers


def meets(scenario: Callable[[Any], Any]) -> list[Any]:
    """What two workers come to, each in a process of its own, over gloo. None may hang or die."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    context = multiprocessing.get_context("spawn")  # a fork would have the group of this process, if a test before made one
    answers = context.Queue()
    workers = [context.Process(target=_worker, args=(scenario, rank, port, answers)) for rank in range(2)]
    for worker in workers:
        worker.start()
    try:
        found_answers = dict(answers.get(timeout=120) for _ in workers)
        for worker in workers:
            worker.join(30)
    finally:
        for worker in workers:
            worker.kill()  # one that hangs would wait for an hour
    return [found_answers[rank] for rank in range(2)]


def _worker(scenario: Callable[[Any], Any], rank: int, port: int, answers: Any) -> None:
    import torch.distributed as dist

    from trainer.group import Group

    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    try:
        answers.put((rank, scenario(Group.current())))
    except BaseException as error:
        answers.put((rank, f"died: {type(error).__name__}: {error}"))
    dist.destroy_process_group()


def ended(group: Any, action: Callable[[], Any]) -> str:
    try:
        with style_isolation.only(JOB, "acting", group):
            action()
    except RunFailed as error:
        return f"{error.reason} {error.retryable} {error.message}"
    return "well"


def fails_at(group: Any, rank: int, error: BaseException) -> None:
    if group.rank == rank:
        raise error


def many_styles(group: Any) -> list[str]:
    """One after another: whichever worker fails, wherever it is, both come to the same and go on with the next."""
    import torch

    huge = RunFailed("z" * 10**6, reason="HUGE")
    actions: list[Callable[[], Any]] = [
        lambda: group.on_first(lambda: fails_at(group, 0, ValueError("first"))),
        lambda: (fails_at(group, 1, MemoryError("second")), group.agree("never"), group.barrier()),
        lambda: (group.sum(torch.ones(1)), group.barrier()),
        lambda: (group.barrier(), fails_at(group, 1, RecursionError("last of all"))),
        lambda: (fails_at(group, 0, huge), group.sum(torch.ones(1))),
        lambda: fails_at(group, group.rank, RunFailed(f"of rank {group.rank}", reason="BOTH")),
        lambda: group.agree(lambda: "cannot be sent"),
        lambda: group.agree("well"),
    ]
    found = [ended(group, action) for action in actions]
    failures = group.failures([None, RunFailed("mine", reason="ODD") if group.rank == 1 else None, None])
    return [each[:120] for each in found] + [str(failures)]


@pytest.mark.timeout(180)
def test_what_any_worker_raises_reaches_every_worker_as_the_styles_failure_and_they_go_on_together():
    pytest.importorskip("torch")
    first, second = meets(many_styles)
    assert first == second
    kinds = [each.split(" (")[0] for each in first[:-1]]
    assert kinds[0] == "INTERNAL False acting: ValueError: first"
    assert kinds[1] == "INTERNAL False acting: MemoryError: second"
    assert kinds[2] == "well"
    assert kinds[3] == "INTERNAL False acting: RecursionError: last of all"
    assert kinds[4].startswith("HUGE False zzz")
    assert kinds[5] == "BOTH False of rank 0"
    assert kinds[6].startswith("INTERNAL False acting: ")
    assert kinds[7] == "well"
    assert first[-1] == "[None, RunFailed('mine'), None]"


def another_attempt(group: Any) -> str:
    """A worker that must end at once tells nobody: the other hears that it is gone."""
    from trainer.group import GroupBroken

    if group.rank == 0:
        with pytest.raises(StaleAttempt), style_isolation.only(JOB, "acting", group):
            raise StaleAttempt("run-1")
        return "stale"
    with pytest.raises(GroupBroken), style_isolation.only(JOB, "acting", group):
        group.barrier()
    return "broken"


@pytest.mark.timeout(180)
def test_a_worker_that_must_end_the_run_ends_the_others_run_too():
    pytest.importorskip("torch")
    assert meets(another_attempt) == ["stale", "broken"]
