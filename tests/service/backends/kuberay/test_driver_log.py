"""The driver's log as it is read on: no byte is missed, none comes twice, and what was read before is not sent again."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime

import pytest

from service.backends.kuberay import driver_log
from service.backends.kuberay.driver_log import Mark, Marks, behind, gathered, timed

PREFIX = b"run-1| "


class Container:
    """A kubelet's file of one container."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, bytes]] = []  # time, line
        self.num_sent = 0

    def write(self, time: str, *lines: bytes) -> None:
        self.lines += [(time, line) for line in lines]

    async def read(self, query: dict[str, str]) -> AsyncIterator[bytes]:
        since = query.get("sinceTime")
        for time, line in self.lines:
            if since is None or datetime.fromisoformat(time[:19] + "+00:00") >= datetime.fromisoformat(since):
                self.num_sent += 1
                yield time.encode() + b" " + line


def at(seconds: int, ns: int = 0) -> str:
    return f"2026-11-25T10:00:{seconds:02}.{ns:09}Z"


async def read(container: Container, marks: Marks, start: int) -> bytes:
    mark = marks.before(start)
    pieces = behind(start - mark.end_bytes, gathered(container.read(dict(mark.query)), PREFIX, mark, marks))
    return b"".join([piece async for piece in pieces])


def own(*lines: bytes) -> Sequence[bytes]:
    return [PREFIX + line for line in lines]


async def test_what_is_new_is_read_and_what_was_read_is_not_sent_again():
    container, marks = Container(), Marks()
    container.write(at(1), *own(b"a\n", b"b\n"), b"ray's own\n")
    container.write(at(2), *own(b"c\n"))
    first = await read(container, marks, 0)
    assert first == b"a\nb\nc\n"
    container.write(at(3, 5), *own(b"d\n"))
    container.num_sent = 0
    assert await read(container, marks, len(first)) == b"d\n"
    assert container.num_sent == 2, "of the second that was read last, and the new one"


async def test_lines_of_one_time_are_told_apart():
    container, marks = Container(), Marks()
    container.write(at(1, 7), *own(b"a\n", b"b\n"))
    first = await read(container, marks, 0)
    container.write(at(1, 7), *own(b"c\n"))
    container.write(at(1, 8), *own(b"d\n"))
    assert await read(container, marks, len(first)) == b"c\nd\n"


async def test_a_line_that_is_still_written_comes_again_whole():
    container, marks = Container(), Marks()
    container.write(at(1), *own(b"a\n"))
    container.write(at(2), *own(b"beg"))
    assert await read(container, marks, 0) == b"a\nbeg"
    container.lines[-1] = (at(2), PREFIX + b"begun\n")
    assert await read(container, marks, 2) == b"begun\n"


async def test_a_file_that_was_put_away_is_no_gap():
    container, marks = Container(), Marks()
    container.write(at(1), *own(b"a\n", b"b\n"))
    first = await read(container, marks, 0)
    container.lines.clear()
    container.write(at(5), *own(b"c\n"))
    assert await read(container, marks, len(first)) == b"c\n"


@pytest.mark.parametrize("start", range(13))
async def test_it_is_read_from_any_byte_on_whatever_is_remembered(start: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(driver_log, "PIECE_BYTES", 3)
    monkeypatch.setattr(driver_log, "MAX_MARKS", 3)
    container, marks = Container(), Marks()
    container.write(at(1), *own(b"a\n", b"b\n"), b"other\n")
    container.write(at(2), *own(b"c\n", b"d\n"))
    container.write(at(3), *own(b"e\n", b"f\n"))
    whole = await read(container, marks, 0)
    assert whole == b"a\nb\nc\nd\ne\nf\n"
    assert await read(container, marks, start) == whole[start:]


def test_times_are_read_to_the_nanosecond_and_in_any_zone():
    here = 1_795_600_800_123_456_789
    assert timed(b"2026-11-25T10:00:00.123456789Z x y\n") == (here, b"x y\n")
    assert timed(b"2026-11-25T11:00:00.123456789+01:00 x\n") == (here, b"x\n")
    assert timed(b"2026-11-25T10:00:00.123456790Z x\n") == (here + 1, b"x\n")
    for words in (b"unable to retrieve container logs for containerd://1\n", b"2026-11-25T10:00:00 x\n", b"1.5 x\n", b"\n"):
        assert timed(words) is None
    assert Mark(time_ns=here).query == {"sinceTime": "2026-11-25T10:00:00Z"}
