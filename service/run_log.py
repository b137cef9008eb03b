"""Whose lines are whose in the log of a backend job that trains many styles, one run after another. Pure.

The trainer writes every line about a style with `[tenants/T/jobs/J]` in it, and its workers write `== run RUN ==` when
they begin a run. Ray puts `(RayTrainWorker pid=123) ` before what workers write, and mixes the lines of several.
"""

import re
from collections.abc import Iterable, Iterator

_SOURCE = re.compile(rb"\s*(?:\x1b\[[0-9;]*m)*(\([A-Za-z_][^()]*\bpid=\d+[^()]*\))")
_BEGINS = re.compile(rb"== run (run-[0-9a-z-]+) ==")
_NAMES = re.compile(rb"\brun-[0-9a-f]{16}\b")
_ABOUT = re.compile(rb"\[(tenants/[a-z0-9-]+/jobs/[a-z0-9-]+)\]")
_ABOUT_SOMEBODY = re.compile(rb"\[tenants/[^\]\s]*$")  # the last line may still be written


def of_job(text: bytes, *, job: str, run: str, host: str) -> bytes:
    """The job's own lines of that run and those about nobody, as they stand.

    What grows at its end grows here at its end: whoever has read some of it goes on behind.
    """
    return b"".join(line for line in _of_run(text.splitlines(keepends=True), run.encode(), host.encode()) if _may_see(line, job.encode()))


def _of_run(lines: Iterable[bytes], run: bytes, host: bytes) -> Iterator[bytes]:
    """Workers begin a run each at its own time; a source that has begun none (the driver) is where the newest of them is.

    A line that names a run is that run's, whoever wrote it: Ray tells of a report seconds after it was made.
    """
    newest = host
    begun: dict[bytes, bytes] = {}
    for line in lines:
        source = _source(line)
        if (begins := _BEGINS.search(line)) is not None:
            newest = begins[1]
            begun[source] = newest
        if _run_of(line, begun.get(source), newest) == run:
            yield line


def _run_of(line: bytes, begun: bytes | None, newest: bytes) -> bytes:
    named = _NAMES.search(line)
    if named is not None:
        return named[0]
    if begun is not None:
        return begun
    return newest if line.endswith(b"\n") or b"run" not in line else b""  # a run's name may be half written


def _source(line: bytes) -> bytes:
    found = _SOURCE.match(line)
    return b"" if found is None else found[1]


def _may_see(line: bytes, job: bytes) -> bool:
    about = _ABOUT.findall(line)
    return job in about or not (about or _ABOUT_SOMEBODY.search(line))
