"""What the trainer reads and writes on disk lies in the folder that it was given: no symbolic link leads out of it."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import obstore
import pytest

from lorafleet.contract.layout import JobLayout
from lorafleet.errors import RunFailed
from trainer.storage import Folder

SECRET = b"another tenant's"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    folder = tmp_path / "evil"
    folder.mkdir()
    (folder / "secret").write_bytes(SECRET)
    return folder


@pytest.fixture
def job(tmp_path: Path, elsewhere: Path) -> JobLayout:
    """A job's folder whose checkpoints lie elsewhere, and one of whose files does."""
    folder = tmp_path / "job"
    folder.mkdir()
    (folder / "checkpoints").symlink_to(elsewhere, target_is_directory=True)
    (folder / "a").symlink_to("../evil/secret")
    return JobLayout(f"file://{folder}")


READS = {
    "get": lambda folder, path: folder.get(path),
    "get_or_none": lambda folder, path: folder.get_or_none(path),
    "get_range": lambda folder, path: folder.get_range(path, 0, 4),
    "sha256": lambda folder, path: folder.sha256(path),
    "read_all": lambda folder, path: folder.read_all([path]),
}
WRITES = {
    "put": lambda folder, path: folder.put(path, b"x"),
    "put_if_absent": lambda folder, path: folder.put_if_absent(path, b"x"),
    "write_all": lambda folder, path: folder.write_all({path: b"x"}),
    "delete": lambda folder, path: folder.delete([path]),
}


def refused(job: JobLayout, call) -> None:
    """In the job's folder by a path, and in a folder of it."""
    whole, checkpoints = Folder(job.root), Folder(job.checkpoints, within=job.root)
    for folder, path in ((whole, "checkpoints/secret"), (checkpoints, "secret"), (whole.child("checkpoints"), "secret")):
        with pytest.raises(RunFailed, match="by a symbolic link") as caught:
            call(folder, path)
        assert (caught.value.reason, caught.value.retryable) == ("LINK_OUT", False)
        assert "evil" not in caught.value.message


@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
def test_nothing_is_read_through_a_link_out_of_the_folder(job: JobLayout, read):
    refused(job, read)
    with pytest.raises(RunFailed, match="by a symbolic link"):
        read(Folder(job.root), "a")


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_nothing_is_written_through_a_link_out_of_the_folder(job: JobLayout, elsewhere: Path, write):
    refused(job, write)
    assert [(path.name, path.read_bytes()) for path in elsewhere.iterdir()] == [("secret", SECRET)]


def test_writing_over_a_link_replaces_it(job: JobLayout, elsewhere: Path):
    Folder(job.root).put("a", b"mine")
    assert Folder(job.root).get("a") == b"mine"
    assert (elsewhere / "secret").read_bytes() == SECRET


def test_what_is_listed_through_a_link_is_told_as_outside(job: JobLayout):
    assert Folder(job.root).scan().linked_out == {"a", "checkpoints/secret"}
    assert Folder(job.checkpoints, within=job.root).scan().linked_out == {"secret"}


def test_links_within_the_folder_and_to_it_are_followed(tmp_path: Path):
    (tmp_path / "real" / "store").mkdir(parents=True)
    (tmp_path / "alias").symlink_to("real")
    folder = Folder(f"file://{tmp_path}/alias")
    (tmp_path / "real" / "by-name").symlink_to(tmp_path / "real" / "store")
    folder.put("by-name/a", b"x")
    assert (tmp_path / "real" / "store" / "a").read_bytes() == b"x"
    assert folder.get("by-name/a") == b"x"


def swapping(monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], swap: Callable[[], object]) -> None:
    """What obstore is asked for, it is asked for after the swap: all that was looked at is something else by then."""
    for name in names:
        monkeypatch.setattr(obstore, name, partial(_after, swap, getattr(obstore, name)))


def _after(swap: Callable[[], object], asked: Callable[..., Any], *given: Any, **options: Any) -> Any:
    swap()
    return asked(*given, **options)


def becomes_link(place: Path, target: Path) -> None:
    if not place.is_symlink():
        place.rename(place.with_name(f"{place.name}-before"))
        place.symlink_to(target)


@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
@pytest.mark.parametrize("place", ["b/secret", "b"])
def test_what_becomes_a_link_while_it_is_read_is_not_followed(
    tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[..., Any], place: str
):
    inner = tmp_path / "job" / "b"
    inner.mkdir(parents=True)
    (inner / "secret").write_bytes(b"mine")
    mine = read(Folder(f"file://{tmp_path}/job"), "b/secret")
    swapping(
        monkeypatch,
        ("get", "get_range", "get_async"),
        lambda: becomes_link(tmp_path / "job" / place, elsewhere / "secret" if place != "b" else elsewhere),
    )
    assert read(Folder(f"file://{tmp_path}/job"), "b/secret") == mine


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_a_folder_that_becomes_a_link_while_it_is_written_to_is_not_followed(
    tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[..., Any]
):
    inner = tmp_path / "job" / "b"
    inner.mkdir(parents=True)
    swapping(monkeypatch, ("put", "put_async", "delete"), lambda: becomes_link(inner, elsewhere))
    write(Folder(f"file://{tmp_path}/job"), "b/secret")
    assert [(path.name, path.read_bytes()) for path in elsewhere.iterdir()] == [("secret", SECRET)]


def test_a_pipe_in_a_files_place_makes_no_run_wait(tmp_path: Path):
    os.mkfifo(tmp_path / "a")
    for read in READS.values():
        with pytest.raises(RunFailed, match="no plain file"):
            read(Folder(f"file://{tmp_path}"), "a")
