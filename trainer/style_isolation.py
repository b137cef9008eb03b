"""What goes wrong with one style ends that style alone: the one boundary that every action on a style goes through.

The driver uses it too, so there is no torch in here.
"""

import csv
import errno
import logging
import struct
import traceback
import zlib
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from lorafleet.contract import store_faults
from lorafleet.errors import LorafleetError, RunFailed
from trainer import run_log
from trainer.report import StaleAttempt

log = logging.getLogger("lorafleet.style")

MAX_MESSAGE_CHARS = 4000
_MAX_CAUSE_CHARS = 300
_OUR_PACKAGES = ("/trainer/", "/lorafleet/")
_THINGS = "_lorafleet_things"

# The same input fails in the same way again: the fault is in what the style was made of.
_NO_BETTER = (
    *(ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError, EOFError, SyntaxError, BufferError),
    *(MemoryError, RecursionError, NotImplementedError, csv.Error, struct.error, zlib.error),
)
_PASSES = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ESTALE}
# By name, for torch may not be imported here: after these no worker can go on with any style.
_BREAKS_THE_GROUP = {"GroupBroken", "DistError", "AcceleratorError"}


class Together(Protocol):
    """The workers of a run, where there are several (`trainer.group.Group`)."""

    def begin_style(self) -> None: ...
    def meet(self, mine: RunFailed | None = None) -> None: ...
    def end_style(self) -> None: ...


@contextmanager
def only(job: str, doing: str, group: Together | None = None, *, has_trained: bool = False, in_lock_step: bool = False) -> Generator[None]:
    """Whatever is raised in here comes out as a RunFailed about this style, on every worker of the group alike.

    Only what ends the run comes out as it is: another attempt, an end on request, a broken group. `in_lock_step`: the others
    may wait in DeepSpeed, where they hear nothing, so a failure of this worker comes out of it alone.
    """
    with run_log.about(job):
        try:
            if group is not None:
                group.begin_style()
            yield
            if group is not None:
                group.meet()
        except BaseException as error:
            if ends_the_run(error):
                raise
            failed = failure_of(error, doing, has_trained=has_trained)
            if group is not None and not in_lock_step:
                group.meet(failed)  # raises, everywhere, what the first of the workers has to say
            raise failed from None
        finally:
            if group is not None:
                group.end_style()


@contextmanager
def naming(thing: str) -> Generator[None]:
    """The message of what fails in here names the thing: a file, a field."""
    try:
        yield
    except Exception as error:
        error.__dict__.setdefault(_THINGS, []).insert(0, thing)
        raise


def ends_the_run(error: BaseException) -> bool:
    """Whether no style of the run can go on."""
    if isinstance(error, StaleAttempt) or not (isinstance(error, Exception) or _is_panic(error)):
        return True
    if any(kind.__name__ in _BREAKS_THE_GROUP for kind in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and ("CUDA error" in str(error) or "NCCL" in str(error))


def failure_of(error: BaseException, doing: str, *, has_trained: bool = False) -> RunFailed:
    """What is said of the style: what was done with what, what happened, and where in the code. The traceback goes to the log."""
    if isinstance(error, RunFailed):
        return error
    log.error("%s failed", doing, exc_info=error)
    things = error.__dict__.get(_THINGS, [])
    message = f"{', '.join([doing, *things])}: {in_one_line(error)}"
    return RunFailed(
        run_log.plain(message, MAX_MESSAGE_CHARS),
        reason=_reason(error),
        retryable=may_be_better(error, has_trained=has_trained),
    )


def _reason(error: BaseException) -> str:
    if isinstance(error, LorafleetError):
        return error.reason
    fault = store_faults.of_errno(error.errno) if isinstance(error, OSError) else None
    return fault.reason if fault is not None and fault.reason in store_faults.OPERATORS else "INTERNAL"  # a full disk is no style's fault


def in_one_line(error: BaseException) -> str:
    """Kind, first line and place of an error."""
    return f"{_kind(error)}: {run_log.plain(_first_line(error), _MAX_CAUSE_CHARS)} ({_place(error)})"


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """The error and, inside of it, what a worker raised, as Ray wraps it."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        failures: Mapping[int, BaseException] = getattr(cause, "worker_failures", {})
        first = failures[min(failures)] if failures else None
        cause = first or getattr(cause, "cause", None) or getattr(cause, "_base_exc", None) or cause.__cause__


def may_be_better(error: BaseException, *, has_trained: bool) -> bool:
    """Whether another attempt may end otherwise. A fault of an unknown kind may, where the style's input has been good for a step."""
    if isinstance(error, LorafleetError):
        return error.retryable
    if isinstance(error, OSError):  # also what Pillow raises for files that it cannot read
        return isinstance(error, ConnectionError | TimeoutError) or error.errno in _PASSES
    if type(error).__name__ == "OutOfMemoryError":  # of a GPU, whose memory others have too
        return True
    return has_trained and not isinstance(error, _NO_BETTER)


def _is_panic(error: BaseException) -> bool:
    """Libraries in Rust (tokenizers, safetensors, obstore) raise their own faults past `Exception`."""
    return type(error).__name__ == "PanicException"


def _first_line(error: BaseException) -> str:
    try:
        return next((line.strip() for line in str(error).splitlines() if line.strip()), "no more is known")
    except Exception:  # a message that cannot be made is no reason to lose the pack
        return "its message cannot be shown"


def _kind(error: BaseException) -> str:
    module = type(error).__module__.removeprefix("_")
    return type(error).__name__ if module == "builtins" else f"{module}.{type(error).__name__}"


def _place(error: BaseException) -> str:
    """The innermost line of ours, else of anybody's."""
    frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    ours = [(path, line) for path, line in frames if "site-packages" not in path and any(each in path for each in _OUR_PACKAGES)]
    path, line = (ours or frames or [("unknown", 0)])[-1]
    start = max((path.rfind(each) for each in _OUR_PACKAGES), default=-1)
    return f"{path[start + 1 :] if ours else '/'.join(path.split('/')[-2:])}:{line}"
