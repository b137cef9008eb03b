"""Both clients against a real `lorafleet serve` that is killed, cut off and started again; Ray alone is a stand-in."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from lorafleet import spec
from lorafleet.client import Client
from lorafleet.errors import NotFound
from lorafleet.states import has_ended, label
from tests.lorafleet.both_clients import KINDS, opened
from tests.service.serving import Served, served
from tests.service.stand_in_ray import stand_in_ray

pytestmark = pytest.mark.timeout(120)


class Fleet:
    """A server on one state directory, which may be killed and started again at the same address."""

    def __init__(self, folder: Path, ray_address: str) -> None:
        self.folder = folder
        self._options = ("--ray-address", ray_address, "--warm-idle-s", "0", "--max-running-runs", "4")
        self._stack = ExitStack()
        self._served: Served | None = None
        for name, content in {"base/model_index.json": "{}", "pictures/a.png": "png"}.items():
            (folder / name).parent.mkdir()
            (folder / name).write_text(content)

    @property
    def address(self) -> str:
        assert self._served is not None
        return self._served.address

    def start(self) -> None:
        self._served = self._stack.enter_context(served(self.folder / "state", *self._options))

    def kill(self) -> None:
        assert self._served is not None
        self._served.kill()

    def stop(self) -> None:
        self._stack.close()

    def spec(self, max_steps: int) -> spec.Spec:
        places = {"base_model": {"uri": f"file://{self.folder}/base"}, "dataset": {"uri": f"file://{self.folder}/pictures"}}
        return spec.parse({**places, "training": {"max_steps": max_steps}})


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with stand_in_ray() as ray:
        fleet = Fleet(tmp_path_factory.mktemp("fleet"), ray.address)
        fleet.start()
        yield fleet
        fleet.stop()


@pytest.fixture(params=KINDS)
async def client(request: pytest.FixtureRequest, fleet: Fleet) -> AsyncIterator[Any]:
    async with opened(request.param, fleet.address, tenant="acme") as client:
        yield client


async def test_watch_and_log_go_on_when_the_server_was_killed(fleet: Fleet, client: Any) -> None:
    job = await client.create(fleet.spec(max_steps=60))
    seen, killed = list[Any](), False

    async def read_log() -> str:
        return "".join([piece.text async for piece in client.logs(job.name, follow=True)])

    reading = asyncio.create_task(read_log())
    async for change in client.watch(job.name, timeout_s=90):
        seen.append(change)
        if change.progress.step >= 5 and not killed:
            killed = True
            await asyncio.to_thread(fleet.kill)
            await asyncio.to_thread(fleet.start)
    assert label(seen[-1]) == "SUCCEEDED"
    steps = [change.progress.step for change in seen]
    assert steps == sorted(steps), "no change twice, none out of order"
    assert len(seen) == len({change.etag for change in seen})
    assert (await asyncio.wait_for(reading, 60)).splitlines() == [f"step {step}" for step in range(1, 61)]


async def test_create_whose_answer_is_lost_makes_one_job(fleet: Fleet, client: Any, request: pytest.FixtureRequest) -> None:
    kind = request.node.callspec.params["client"]
    job_id = f"lost-{kind}"
    async with relayed(fleet.address) as relay, opened(kind, relay.address, tenant="acme") as far:
        assert await there(far, job_id) is None  # connected: from here on the relay sees calls and answers alone
        relay.hold = True
        creating = asyncio.create_task(far.create(fleet.spec(max_steps=1), job_id=job_id))
        accepted = await until_there(client, job_id)
        assert not creating.done()
        relay.cut()
        assert (await asyncio.wait_for(creating, 30)).uid == accepted.uid


async def test_wait_gives_the_job_once_it_has_ended(fleet: Fleet, client: Any) -> None:
    job = await client.create(fleet.spec(max_steps=2))
    assert label(await client.wait(job.name, timeout_s=60)) == "SUCCEEDED"


async def test_cancelled_job_stops(fleet: Fleet, client: Any) -> None:
    job = await client.create(fleet.spec(max_steps=10_000))
    async for change in client.watch(job.name, timeout_s=60):
        if label(change) == "RUNNING":
            break
    await client.cancel(job.name)
    assert label(await client.wait(job.name, timeout_s=60)) == "CANCELLED"


async def test_artifact_is_downloaded_whole(fleet: Fleet, client: Any, tmp_path: Path) -> None:
    job = await client.create(fleet.spec(max_steps=1))
    await client.wait(job.name, timeout_s=60)
    manifest = await client.download(job.name, tmp_path / "adapter")
    assert list(manifest.files) == ["adapter.safetensors"]
    assert {path.name for path in (tmp_path / "adapter").iterdir()} == {"adapter.safetensors", "manifest.json"}


def test_one_client_serves_many_threads(fleet: Fleet) -> None:
    with Client(fleet.address, tenant="acme") as client, ThreadPoolExecutor(8) as pool:
        names = list(pool.map(lambda number: client.create(fleet.spec(max_steps=1), job_id=f"thread-{number}").name, range(8)))
        ended = list(pool.map(lambda name: client.wait(name, timeout_s=60), names))
    assert all(has_ended(job) for job in ended)
    assert [job.name for job in ended] == names


async def there(client: Any, job_id: str) -> Any:
    with suppress(NotFound):
        return await client.get(job_id)
    return None


async def until_there(client: Any, job_id: str) -> Any:
    """Polls with a deadline."""
    for _ in range(1000):
        if (job := await there(client, job_id)) is not None:
            return job
        await asyncio.sleep(0.02)
    raise AssertionError(f"{job_id} was not accepted in time")


class Relay:
    """Passes bytes between a client and the server. While `hold` is set answers are kept back; `cut` ends all connections."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._writers = set[asyncio.StreamWriter]()
        self.address = ""
        self.hold = False

    def cut(self) -> None:
        self.hold = False
        for writer in self._writers:
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self._server.rpartition(":")
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        self._writers |= {writer, far_writer}
        with suppress(OSError):
            await asyncio.gather(self._pass(reader, far_writer, lambda: False), self._pass(far_reader, writer, lambda: self.hold))
        for end in (writer, far_writer):
            end.transport.abort()
        self._writers -= {writer, far_writer}

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, held: Callable[[], bool]) -> None:
        while data := await reader.read(65536):
            if not held():  # kept back for ever: the connection is cut before anybody could miss it
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


@asynccontextmanager
async def relayed(server: str) -> AsyncIterator[Relay]:
    relay = Relay(server)
    listening = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
    relay.address = f"127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    yield relay
    listening.close()
    relay.cut()
