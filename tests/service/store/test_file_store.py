"""No symbolic link leads out of a folder on disk, whoever put it there and when; those that stay inside are followed."""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from lorafleet.contract import confined_files
from lorafleet.contract.layout import JobLayout, join
from service.store import job_logs
from service.store.client import Store, StoreError

SECRET = b"another tenant's"


@pytest.fixture
def job(tmp_path: Path) -> JobLayout:
    """A job's folder, with links out of it: a file, a folder, and one that lies outside and is not there yet."""
    folder, elsewhere = tmp_path / "acme" / "job", tmp_path / "evil"
    (folder / "logs").mkdir(parents=True)
    elsewhere.mkdir()
    (elsewhere / "secret").write_bytes(SECRET)
    (folder / "logs" / "attempt-1.log").symlink_to(elsewhere / "secret")
    (folder / "adapter").symlink_to("../../evil", target_is_directory=True)
    (folder / "samples").symlink_to(elsewhere / "made", target_is_directory=True)
    return JobLayout(f"file://{folder}")


def within(job: JobLayout) -> Store:
    return Store().within(job.root)


@pytest.mark.parametrize("name", ["logs/attempt-1.log", "adapter/secret"])
async def test_nothing_is_read_through_a_link_out_of_the_folder(job: JobLayout, name: str):
    store, uri = within(job), join(job.root, name)
    for reading in (store.get(uri), store.get_range(uri, 0, 8), store.exists(uri), store.is_empty(join(job.root, "adapter"))):
        with pytest.raises(StoreError, match="by a symbolic link") as refused:
            await reading
        assert refused.value.reason == "LINK_OUT"
        assert "evil" not in refused.value.message, "where it leads is not told"


@pytest.mark.parametrize("name", ["adapter/secret", "adapter/new", "adapter/a/b", "samples/new"])
@pytest.mark.parametrize(
    "write",
    [lambda store, uri: store.put(uri, b"x"), lambda store, uri: store.put_if_absent(uri, b"x"), lambda store, uri: store.delete(uri)],
)
async def test_nothing_is_written_through_a_link_out_of_the_folder(
    job: JobLayout, tmp_path: Path, name: str, write: Callable[[Store, str], Awaitable[object]]
):
    with pytest.raises(StoreError, match="by a symbolic link"):
        await write(within(job), join(job.root, name))
    assert [path.name for path in (tmp_path / "evil").rglob("*")] == ["secret"]
    assert (tmp_path / "evil" / "secret").read_bytes() == SECRET


async def test_a_log_is_not_read_from_where_a_link_leads(job: JobLayout):
    with pytest.raises(StoreError):
        assert [piece async for piece in job_logs.read(Store(), job, 1, 0)] == []
    with pytest.raises(StoreError):
        await job_logs.append(Store(), job, 1, 5, b"more")


async def test_a_log_is_neither_read_nor_written_where_its_folder_is_a_link(job: JobLayout, tmp_path: Path):
    logs = tmp_path / "acme" / "job" / "logs"
    (logs / "attempt-1.log").unlink()
    logs.rmdir()
    logs.symlink_to(tmp_path / "evil")
    (tmp_path / "evil" / "attempt-1.log").write_bytes(SECRET)
    with pytest.raises(StoreError):
        assert [piece async for piece in job_logs.read(Store(), job, 1, 0)] == []
    with pytest.raises(StoreError):
        await job_logs.append(Store(), job, 1, 0, b"more")
    assert (tmp_path / "evil" / "attempt-1.log").read_bytes() == SECRET


async def test_writing_over_a_link_replaces_it(job: JobLayout, tmp_path: Path):
    await within(job).put(job.log(1), b"line\n")
    assert await within(job).get(job.log(1)) == b"line\n"
    assert (tmp_path / "evil" / "secret").read_bytes() == SECRET


async def test_an_object_that_is_a_link_is_refused_also_where_no_folder_is_named(job: JobLayout):
    with pytest.raises(StoreError, match="by a symbolic link"):
        await Store().get(job.log(1))


async def test_links_within_the_folder_and_above_it_are_followed(tmp_path: Path):
    (tmp_path / "real" / "blobs").mkdir(parents=True)
    (tmp_path / "alias").symlink_to("real")
    folder = tmp_path / "alias"
    (folder / "unet").symlink_to(tmp_path / "real" / "blobs")  # absolute, and by the other name
    (folder / "blobs" / "a").write_bytes(b"x")
    (folder / "unet" / "b").symlink_to("../blobs/a")
    store = Store().within(f"file://{folder}")
    assert await store.get(f"file://{folder}/unet/b") == b"x"
    assert await store.exists(f"file://{folder}/unet/b")
    await store.put(f"file://{folder}/unet/c", b"y")
    assert (tmp_path / "real" / "blobs" / "c").read_bytes() == b"y"


def test_a_folder_that_becomes_a_link_while_it_is_opened_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder, elsewhere = tmp_path / "job", tmp_path / "evil"
    (folder / "logs").mkdir(parents=True)
    elsewhere.mkdir()
    real = confined_files.real

    def and_then_swapped(path: Path, root: Path) -> Path:
        found = real(path, root)
        (folder / "logs").rmdir()
        (folder / "logs").symlink_to(elsewhere)
        return found

    monkeypatch.setattr(confined_files, "real", and_then_swapped)
    with pytest.raises(NotADirectoryError), confined_files.holding(folder / "logs" / "x", folder):
        pass


async def test_a_base_of_a_hugging_face_cache_has_its_files_beside_it(tmp_path: Path):
    repository = tmp_path / "models--acme--sd"
    snapshot = repository / "snapshots" / "abc"
    for folder in (repository / "blobs", snapshot):
        folder.mkdir(parents=True)
    (repository / "blobs" / "1").write_bytes(b"{}")
    (snapshot / "model_index.json").symlink_to("../../blobs/1")
    (tmp_path / "outside").write_bytes(SECRET)
    (snapshot / "secret").symlink_to(tmp_path / "outside")
    store = Store().within(confined_files.root_of_base(f"file://{snapshot}/"))
    assert await store.get(f"file://{snapshot}/model_index.json") == b"{}"
    with pytest.raises(StoreError):
        await store.get(f"file://{snapshot}/secret")
    assert confined_files.root_of_base("file:///srv/snapshots/abc") == "file:///srv/snapshots/abc"
    assert confined_files.root_of_base("s3://b") == "s3://b"


async def test_no_descriptor_is_left_open(job: JobLayout):
    store = within(job)
    await store.put(job.spec, b"{}")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        await store.get(job.spec)
        await store.is_empty(job.root)
        with pytest.raises(StoreError):
            await store.get(job.log(1))
    assert len(os.listdir("/proc/self/fd")) == before
