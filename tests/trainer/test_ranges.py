"""Objects read by range come whole and in order, of one version, a bounded part of them at a time, through a store that breaks off."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from lorafleet.errors import RunFailed
from tests.breaking_store import ETAG, BreakingStore, breaking_store
from tests.trainer.in_store import uploaded
from trainer import ranges, storage
from trainer.ranges import Object
from trainer.storage import Entry, Folder

CONTENT = bytes(range(256)) * 5


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "RANGE_BYTES", 100)
    quick = {"init_backoff": timedelta(milliseconds=1), "max_backoff": timedelta(milliseconds=10), "base": 2}
    monkeypatch.setitem(storage._RETRY, "backoff", quick)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[BreakingStore]:
    with breaking_store(CONTENT) as store:
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        yield store


def object_of(size_bytes: int = len(CONTENT), etag: str = ETAG) -> Object:
    return Object(folder=Folder("s3://bucket"), entry=Entry("x", size_bytes, f"{etag}/{size_bytes}"))


def test_several_objects_come_whole_and_in_order(s3: dict[str, str], tmp_path: Path):
    contents = {"a": CONTENT, "b": b"", "c": CONTENT[:100], "d": CONTENT[:101]}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    folder = Folder(uploaded(tmp_path))
    listed = [Object(folder=folder, entry=entry) for entry in folder.list()]
    pieces = [bytes(piece) for piece in ranges.of_all(listed)]
    assert b"".join(pieces) == b"".join(contents.values())
    assert len(pieces) == sum(each.num_ranges for each in listed) == 13 + 0 + 1 + 2


def test_files_on_disk_are_read_the_same_way(tmp_path: Path):
    (tmp_path / "x").write_bytes(CONTENT)
    folder = Folder(tmp_path.as_uri())
    (entry,) = folder.list()
    assert b"".join(ranges.of_all([Object(folder=folder, entry=entry)])) == CONTENT


def test_a_range_that_breaks_off_is_read_on_by_itself(store: BreakingStore):
    store.break_off = 3
    assert b"".join(ranges.of_all([object_of()])) == CONTENT
    assert len(store.asked) == 13 + 3, "the others are read once"


def test_a_store_that_never_ends_an_answer_is_given_up_on(store: BreakingStore, monkeypatch: pytest.MonkeyPatch):
    store.break_off = 10**9
    monkeypatch.setitem(storage._RETRY, "retry_timeout", timedelta(milliseconds=50))
    with pytest.raises(RunFailed, match="s3://bucket/x: the store does not answer") as caught:
        next(ranges.of_all([object_of()]))
    assert (caught.value.reason, caught.value.retryable) == ("STORE_UNAVAILABLE", True)


def test_what_trying_again_does_not_mend_is_told_at_once(s3: dict[str, str]):
    with pytest.raises(RunFailed, match="bucket does not exist") as caught:
        next(ranges.of_all([object_of()]))
    assert not caught.value.retryable


def test_an_object_that_is_replaced_meanwhile_is_an_error_that_tells_what_changed(s3: dict[str, str], tmp_path: Path):
    (tmp_path / "x").write_bytes(CONTENT)
    folder = Folder(uploaded(tmp_path))
    (was,) = folder.list()
    pieces = ranges.of_all([Object(folder=folder, entry=was)])
    next(pieces)
    folder.put("x", CONTENT[::-1])
    (now,) = folder.list()
    with pytest.raises(RunFailed, match=f"{folder.uri}/x changed while it was read") as caught:
        list(pieces)
    assert (caught.value.reason, caught.value.retryable) == ("OBJECT_CHANGED", True)
    assert f"1280 bytes long with the ETag {was.etag}, now it is 1280 with {now.etag}" in caught.value.message


@pytest.mark.parametrize(("size_bytes", "etag"), [(len(CONTENT), '"another"'), (len(CONTENT) - 1, ETAG)])
def test_a_store_that_compares_nothing_is_compared(size_bytes: int, etag: str, store: BreakingStore):
    with pytest.raises(RunFailed, match=f"it was {size_bytes} bytes long with the ETag {etag}, now it is 1280 with {ETAG}") as caught:
        list(ranges.of_all([object_of(size_bytes, etag)]))
    assert caught.value.reason == "OBJECT_CHANGED"


class Counting(Folder):
    """Knows how many of its ranges were asked for."""

    def __init__(self) -> None:
        super().__init__("s3://counted")
        self.asked = threading.Semaphore(0)

    def get_range_of(self, entry: Entry, start: int, length: int) -> memoryview:
        self.asked.release()
        return memoryview(CONTENT[start : start + length])


def test_no_more_is_asked_for_ahead_than_is_allowed():
    folder = Counting()
    pieces = ranges.of_all([Object(folder=folder, entry=object_of().entry)])
    assert bytes(next(pieces)) == CONTENT[:100]
    for _ in range(ranges.IN_FLIGHT + 1):
        assert folder.asked.acquire(timeout=30)
    assert not folder.asked.acquire(timeout=0.3), "the one that was given out, those ahead of it, and no other"
    assert b"".join(pieces) == CONTENT[100:]
