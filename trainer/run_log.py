"""How a run's processes write their log: each line begins with whose it is, and no text of a style can begin one.

`service/backends/run_log.py` reads the marks. Ray is not needed here, nor torch.
"""

import logging
import re
import sys
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, TypeGuard

from lorafleet.control_characters import visible

RUN = "run"  # the mark of lines about no style: every tenant of the pack may see them
MAX_LINE_CHARS = 2000  # in one write, so that Ray, which reads while we write, never sees half a line; longer ones go on marked
_GOES_ON = "... "
_RAYS_THREADS = "ray_"  # print what workers wrote, and that is marked already
_OURSELVES = "reporter"  # speaks for all styles at once
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
# What Ray takes for its own in a line of a worker: it would show only what stands behind the first, and nothing of the other.
_RAYS_WORDS = re.compile(r":(?=info_message:|actor_name:|task_name:|job_id:)|__(?=ray_tqdm_magic_token__)")

_at_hand = RUN


def plain(text: str, most: int | None = None) -> str:
    """The text as every log, terminal and message can hold it: no colours, no control characters, no half characters; cut at `most`."""
    shown = visible(_ANSI.sub("", text))
    return shown if most is None or len(shown) <= most else f"{shown[:most]} ... (cut)"


@contextmanager
def about(job: str) -> Generator[None]:
    """Every line that is written meanwhile is the style's, whoever writes it: ours, a library's, a thread's."""
    global _at_hand
    before, _at_hand = _at_hand, job
    try:
        yield
    finally:
        _at_hand = before


def set_up(rank: int | None = None) -> None:
    """Marks all that this process prints or logs from now on; `rank` is a worker's place in its group."""
    out, err = sys.stdout, sys.stderr
    if isinstance(out, MarkedLines):
        return
    sys.stdout, sys.stderr = MarkedLines(out, rank), MarkedLines(err, rank)  # pyright: ignore[reportAttributeAccessIssue]
    when = "" if rank is not None else "%(asctime)s "  # workers' lines reach the driver's log at once
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter(f"{when}%(levelname)s %(name)s: %(message)s"))
    logging.root.handlers = [handler]  # in a worker for Ray Train's, which marks nothing; not closed, for its own logger has it too
    logging.root.setLevel(logging.INFO)
    _redirect({id(out): sys.stdout, id(err): sys.stderr})


def _redirect(streams: dict[int, Any]) -> None:
    """Libraries that were imported before write to the streams of then, past us."""
    for logger in logging.root.manager.loggerDict.values():
        for handler in getattr(logger, "handlers", []):
            if _has_stream(handler) and id(handler.stream) in streams:
                handler.setStream(streams[id(handler.stream)])


def _has_stream(handler: object) -> "TypeGuard[logging.StreamHandler[Any]]":
    return isinstance(handler, logging.StreamHandler)


class MarkedLines:
    """A text stream that passes on whole lines, each with its mark, and each in one write."""

    def __init__(self, stream: TextIO, rank: int | None = None) -> None:
        self._stream = stream
        self._rank = "" if rank is None else f"rank {rank} "
        self._lock = threading.RLock()
        self._begun: dict[int, str] = {}  # what each thread has written of a line: they must not mix

    def write(self, text: str, /) -> int:
        *lines, rest = (self._begun.pop(threading.get_ident(), "") + text).split("\n")
        with self._lock:
            for line in lines:
                self._pass_on(line)
            if len(rest) > MAX_LINE_CHARS:
                self._pass_on(rest)
            elif rest:
                self._begun[threading.get_ident()] = rest
        return len(text)

    def _pass_on(self, line: str) -> None:
        for start in self._starts(line):
            self._stream.write(start)
            self._stream.flush()

    def _starts(self, line: str) -> Iterator[str]:
        thread = threading.current_thread().name
        if thread.startswith(_RAYS_THREADS):
            yield f"{line}\n"
            return
        job = RUN if thread == _OURSELVES else _at_hand
        shown = _RAYS_WORDS.sub(lambda found: found[0] + "\\", plain(line))
        for at in range(0, max(len(shown), 1), MAX_LINE_CHARS):
            yield f"[{job}] {self._rank}{_GOES_ON if at else ''}{shown[at : at + MAX_LINE_CHARS]}\n"

    def flush(self) -> None:
        self._stream.flush()

    def writelines(self, lines: Iterable[str], /) -> None:
        for line in lines:
            self.write(line)

    def isatty(self) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
