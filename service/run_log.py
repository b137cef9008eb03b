"""Whose lines are whose in the log of a backend job that trains many styles, one run after another. Pure; holds one line at most.

The trainer writes every line about a style with `[tenants/T/jobs/J]` in it, and its workers write `== run RUN ==` when
they begin a run. Ray puts `(RayTrainWorker pid=123) ` before what workers write, and mixes the lines of several.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

MAX_LINE_BYTES = 64 * 1024  # of which a longer line shows the beginning
CUT = b" ... (cut)\n"
_MAX_SOURCES = 4096  # that are remembered: more than a run has processes
_SOURCE = re.compile(rb"\s*(?:\x1b\[[0-9;]*m)*(\([A-Za-z_][^()]*\bpid=\d+[^()]*\))")
_BEGINS = re.compile(rb"== run (run-[0-9a-z-]+) ==")
_NAMES = re.compile(rb"\brun-[0-9a-f]{16}\b")
_ABOUT = re.compile(rb"\[(tenants/[a-z0-9-]+/jobs/[a-z0-9-]+)\]")
_ABOUT_SOMEBODY = re.compile(rb"\[tenants/[^\]\s]*$")  # the last line may still be written


@dataclass
class RunLines:
    """Reads a backend job's log in pieces of any size, from `read_bytes` on, and finds the lines of one run.

    Workers begin a run each at its own time; a source that has begun none (the driver) is where the newest of them is.
    A line that names a run is that run's, whoever wrote it: Ray tells of a report seconds after it was made.
    """

    run: str
    host: str
    read_bytes: int = 0  # of the log: up to there every line is dealt with
    newest: str = ""
    begun: dict[str, str] = field(default_factory=dict)  # what each source has begun last
    cutting: bool = False  # what comes is the rest of a line that was cut
    _unfinished: bytes = b""

    def feed(self, piece: bytes) -> list[bytes]:
        """The run's lines that end in this piece, which comes behind the one before."""
        *lines, self._unfinished = (self._unfinished + piece).split(b"\n")
        found = [shown for line in lines if (shown := self._finished(line + b"\n")) is not None]
        if self.cutting:
            self.read_bytes += len(self._unfinished)
            self._unfinished = b""
        elif len(self._unfinished) > MAX_LINE_BYTES:
            cut, self._unfinished = self._unfinished, b""
            if (shown := self._finished(cut)) is not None:
                found.append(shown)
            self.cutting = True
        return found

    def unfinished(self) -> list[bytes]:
        """The last line as far as it is written, if it is the run's. It comes again, whole, once it has ended."""
        line = self._unfinished
        return [line] if line and self._run_of(line, self.begun.get(_source(line))) == self.run else []

    def again(self) -> None:
        """The next piece begins at `read_bytes`."""
        self._unfinished = b""

    def state(self) -> dict[str, Any]:
        """What `restored` needs to go on at `read_bytes`, for JSON."""
        return {"read_bytes": self.read_bytes, "newest": self.newest, "begun": dict(self.begun), "cutting": self.cutting}

    @classmethod
    def restored(cls, run: str, host: str, state: dict[str, Any]) -> "RunLines":
        return cls(run, host, state["read_bytes"], state["newest"], dict(state["begun"]), state["cutting"])

    def _finished(self, line: bytes) -> bytes | None:
        """The line as it is shown, if it is the run's."""
        self.read_bytes += len(line)
        if self.cutting:
            self.cutting = False
            return None
        if len(line) > MAX_LINE_BYTES + 1:
            line = line[:MAX_LINE_BYTES] + CUT
        source = _source(line)
        if (begins := _BEGINS.search(line)) is not None:
            self._begin(source, begins[1].decode())
        return line if self._run_of(line, self.begun.get(source)) == self.run else None

    def _begin(self, source: str, run: str) -> None:
        self.newest = run
        self.begun.pop(source, None)
        self.begun[source] = run
        if len(self.begun) > _MAX_SOURCES:
            del self.begun[next(iter(self.begun))]

    def _run_of(self, line: bytes, begun: str | None) -> str:
        named = _NAMES.search(line)
        if named is not None:
            return named[0].decode()
        if begun is not None:
            return begun
        is_whole = line.endswith(b"\n") or b"run" not in line  # a run's name may be half written
        return (self.newest or self.host) if is_whole else ""


def of_job(lines: Iterable[bytes], job: str) -> bytes:
    """The job's own lines and those about nobody, as they stand."""
    return b"".join(line for line in lines if _may_see(line, job.encode()))


def _source(line: bytes) -> str:
    found = _SOURCE.match(line)
    return "" if found is None else found[1].decode("latin-1")


def _may_see(line: bytes, job: bytes) -> bool:
    about = _ABOUT.findall(line)
    return job in about or not (about or _ABOUT_SOMEBODY.search(line))
