"""Tells whose lines are whose in the log of a backend job that trains many styles, one run after another. Pure; holds one line at most.

The trainer begins every line of its own with whose it is (`trainer/run_log.py`): `[tenants/T/jobs/J] `, or of other work its name, or
`[run] `; a style's text can begin none. A line without either, of a library or of Ray, goes on from the line before, unless it looks like a
record's first. Workers write `== run RUN ==` when they begin a run. Ray puts `(RayTrainWorker pid=123) ` before what
workers write, and mixes the lines of several.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

MAX_LINE_BYTES = 64 * 1024  # of which a longer line shows the beginning
CUT = b" ... (cut)\n"
_MAX_SOURCES = 4096  # that are remembered: more than a run has processes
_SOURCE = re.compile(
    rb"\s*(?:\x1b\[[0-9;]*m)*(\((?:(?:[A-Za-z_][^()]*)?\bpid=\d+|raylet|autoscaler|gcs_server|runtime_env)[^()]*\))(?:\x1b\[[0-9;]*m)* ?"
)
_MARK = re.compile(rb"\[(run|tenants/[a-z0-9-]+/[a-z]+/[a-z0-9-]+)\](?= |$)")
# A record's first line, as loggers write it: `2026-11-30 12:00:00,123 INFO lorafleet.run: `, `[2026-…] [INFO] [engine.py:1] `.
_HEAD = re.compile(rb"\[?(?:\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d[.,]?\d*\]?\s+)?\[?(?:DEBUG|INFO|WARNING|ERROR|CRITICAL)\b\]?(?: [\w.]+:)?\s*")
_BEGINS = re.compile(rb"(?:rank \d+ )?(?:\w+ [\w.]+: )?== run (run-[0-9a-z-]+) ==")
_NAMES = re.compile(rb"\brun-[0-9a-f]{16}\b")
_HALF_A_MARK = re.compile(rb"\s*(?:\([^)]*|\[[^\]]*)$")  # of the last line, which is still written


class Line(NamedTuple):
    """A line of one run, and the job that it is about; none: it is about all of the run."""

    text: bytes
    about: str


class _Sorted(NamedTuple):
    """What a line is: whose run, whose job."""

    run: str
    about: str


@dataclass
class RunLines:
    """Reads a backend job's log in pieces of any size, from `read_bytes` on, and finds the lines of one run.

    Workers begin a run each at its own time; a source that has begun none (the driver) is where the newest of them is.
    A line of Ray's own that names a run is that run's: Ray tells of a report seconds after it was made.
    """

    run: str
    host: str
    read_bytes: int = 0  # of the log: up to there every line is dealt with
    newest: str = ""
    begun: dict[str, str] = field(default_factory=dict)  # what each source has begun last
    owners: dict[str, str] = field(default_factory=dict)  # whom each source's last line was about
    before: _Sorted = field(default_factory=lambda: _Sorted("", ""))  # the last line of all
    cutting: bool = False  # what comes is the rest of a line that was cut
    _unfinished: bytes = b""

    def feed(self, piece: bytes) -> list[Line]:
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

    def unfinished(self) -> list[Line]:
        """The last line as far as it is written, if it is the run's. It comes again, whole, once it has ended."""
        line = self._unfinished
        if not line or _HALF_A_MARK.match(_HEAD.sub(b"", _rest(line), count=1)):
            return []
        found = self._sorted(line, _source(line), _rest(line))
        return [Line(line, found.about)] if found.run == self.run else []

    def again(self) -> None:
        """The next piece begins at `read_bytes`."""
        self._unfinished = b""

    def state(self) -> dict[str, Any]:
        """What `restored` needs to go on at `read_bytes`, for JSON."""
        return {
            "read_bytes": self.read_bytes,
            "newest": self.newest,
            "begun": dict(self.begun),
            "cutting": self.cutting,
            "owners": dict(self.owners),
            "before": list(self.before),
        }

    @classmethod
    def restored(cls, run: str, host: str, state: dict[str, Any]) -> "RunLines":
        """From a state of any version: earlier ones knew no owners."""
        owners, before = dict(state.get("owners", {})), _Sorted(*state.get("before", ("", "")))
        return cls(run, host, state["read_bytes"], state["newest"], dict(state["begun"]), owners, before, state["cutting"])

    def _finished(self, line: bytes) -> Line | None:
        """The line as it is shown, if it is the run's."""
        self.read_bytes += len(line)
        if self.cutting:
            self.cutting = False
            return None
        if len(line) > MAX_LINE_BYTES + 1:
            line = line[:MAX_LINE_BYTES] + CUT
        self.read(line)
        return Line(line, self.before.about) if self.before.run == self.run else None

    def read(self, line: bytes) -> None:
        """Sorts the next line: `before` says where it belongs."""
        source, rest = _source(line), _rest(line)
        if (begins := _begins(rest)) is not None:
            self.newest = begins
            _remember(self.begun, source, begins)
        self.before = self._sorted(line, source, rest)
        _remember(self.owners, source, self.before.about)

    def _sorted(self, line: bytes, source: str, rest: bytes) -> _Sorted:
        about = _about(rest)
        if about is None and not source and self.before.about:
            return self.before  # what the driver prints goes on from whatever it printed before
        owner = self.owners.get(source, "") if about is None else about
        named = None if owner or _MARK.match(rest) else _NAMES.search(line)
        if named is not None:
            return _Sorted(named[0].decode(), owner)
        return _Sorted(self._run_of(line, self.begun.get(source)), owner)

    def _run_of(self, line: bytes, begun: str | None) -> str:
        if begun is not None:
            return begun
        is_whole = line.endswith(b"\n") or b"run" not in line  # a run's name may be half written
        return (self.newest or self.host) if is_whole else ""


def of_job(lines: Iterable[Line], job: str) -> bytes:
    """The job's own lines and those about nobody, as they stand."""
    return b"".join(line.text for line in lines if line.about in {"", job})


def of_nobody(text: str) -> str:
    """The lines that are about no style."""
    lines, shown = RunLines("", ""), list[bytes]()
    for line in text.encode(errors="replace").splitlines(keepends=True):
        lines.read(line)
        if not lines.before.about:
            shown.append(line)
    return b"".join(shown).decode(errors="replace")


def _source(line: bytes) -> str:
    found = _SOURCE.match(line)
    return "" if found is None else found[1].decode("latin-1")


def _rest(line: bytes) -> bytes:
    found = _SOURCE.match(line)
    return (line if found is None else line[found.end() :]).lstrip()


def _about(rest: bytes) -> str | None:
    """The job that a line says it is about, empty for the run; None: it says nothing, and goes on from another."""
    if (mark := _MARK.match(rest)) is not None:
        return "" if mark[1] == b"run" else mark[1].decode()
    if (head := _HEAD.match(rest)) is None:
        return "" if _begins(rest) is not None else None
    mark = _MARK.match(rest, head.end())  # as earlier trainers wrote it
    return "" if mark is None or mark[1] == b"run" else mark[1].decode()


def _begins(rest: bytes) -> str | None:
    found = _BEGINS.match(rest.removeprefix(b"[run] "))
    return None if found is None else found[1].decode()


def _remember(known: dict[str, str], source: str, what: str) -> None:
    known.pop(source, None)
    known[source] = what
    if len(known) > _MAX_SOURCES:
        del known[next(iter(known))]
