"""The driver's log out of what its head container wrote. Pure but for waiting.

The API server gives a container's output from its beginning or from a second on, and not from a byte on. So it is asked for times,
and where each of them was in the driver's log is remembered: what was read before is not sent again, and a file that the kubelet
has put away since is no gap.
"""

from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from service.backends.kuberay.manifest import driver_line

PIECE_BYTES = 64 * 1024
MAX_MARKS = 32  # of a run: whoever reads it goes on near its end
MAX_RUNS = 1000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Where a line of the container ended in the driver's log."""

    end_bytes: int = 0
    time_ns: int = 0  # when the line was written
    num_same: int = 0  # lines of that time up to it: a clock may be coarse

    @property
    def query(self) -> Mapping[str, str]:
        """What gives the lines from here on, and some before: times are asked for by the second."""
        if not self.time_ns:
            return {}
        return {"sinceTime": (_EPOCH + timedelta(seconds=self.time_ns // 10**9)).strftime("%Y-%m-%dT%H:%M:%SZ")}


@dataclass
class Marks:
    """Of one run's log."""

    _by_end: dict[int, Mark] = field(default_factory=dict)

    def before(self, start: int) -> Mark:
        """The last one up to byte `start`."""
        return self._by_end[max(ends)] if (ends := [end for end in self._by_end if end <= start]) else Mark()

    def add(self, mark: Mark) -> None:
        self._by_end[mark.end_bytes] = mark
        if len(self._by_end) > MAX_MARKS:
            del self._by_end[min(self._by_end)]


class AllMarks:
    """Of the runs whose logs were read last, by the pod that they are read from."""

    def __init__(self) -> None:
        self._of: OrderedDict[tuple[str, str], Marks] = OrderedDict()

    def of(self, run_id: str, pod_uid: str) -> Marks:
        found = self._of.setdefault((run_id, pod_uid), Marks())
        self._of.move_to_end((run_id, pod_uid))
        if len(self._of) > MAX_RUNS:
            self._of.popitem(last=False)
        return found


async def gathered(lines: AsyncIterator[bytes], prefix: bytes, mark: Mark, marks: Marks) -> AsyncIterator[bytes]:
    """The driver's own lines behind `mark`, some at a time. `lines` have their times before them."""
    last, piece, left = mark, bytearray(), mark.num_same
    async for line in lines:
        if (found := timed(line)) is None:
            continue
        time_ns, line = found
        if time_ns < mark.time_ns or (time_ns == mark.time_ns and left > 0):
            left -= time_ns == mark.time_ns
            continue
        piece += driver_line(line, prefix)
        if line.endswith(b"\n"):  # or the rest is still to come, under the same time
            same = last.num_same + 1 if time_ns == last.time_ns else 1
            last = Mark(end_bytes=last.end_bytes, time_ns=time_ns, num_same=same)
            if len(piece) >= PIECE_BYTES:
                last = _marked(last, piece, marks)
                yield bytes(piece)
                piece.clear()
    if piece:
        if piece.endswith(b"\n"):
            _marked(last, piece, marks)
        yield bytes(piece)


def _marked(last: Mark, piece: bytes | bytearray, marks: Marks) -> Mark:
    """Behind the piece."""
    here = Mark(end_bytes=last.end_bytes + len(piece), time_ns=last.time_ns, num_same=last.num_same)
    marks.add(here)
    return here


def timed(line: bytes) -> tuple[int, bytes] | None:
    """The time of a line, in nanoseconds, and the line. The kubelet writes 2026-11-25T10:00:00.123456789+01:00, and words of its
    own without a time (None): that it cannot read the file."""
    text, _, rest = line.partition(b" ")
    whole, _, fraction = text.decode(errors="replace").partition(".")
    try:
        moment = datetime.fromisoformat(f"{whole}{fraction[9:]}".replace("Z", "+00:00"))
        return round((moment - _EPOCH).total_seconds()) * 10**9 + int(fraction[:9]), rest
    except (ValueError, TypeError):
        return None


async def behind(start: int, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """From byte `start` on: what was read before is passed over as it comes."""
    async for piece in pieces:
        if len(piece) > start:
            yield piece[start:]
        start = max(0, start - len(piece))
