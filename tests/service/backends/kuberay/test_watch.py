"""Watching: nothing is missed, nothing is asked twice, and what is not known is not told. Over real HTTP."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from lorafleet.errors import Unavailable
from service.backends.kuberay import api, watch
from service.backends.kuberay.api import Api, ApiRefusal
from service.backends.kuberay.watch import PODS, Namespace, Watched
from tests.service.backends.kuberay.api_server import ApiServer

DEADLINE_S = 60


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    server = ApiServer()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def connection(server: ApiServer, tmp_path: Path) -> AsyncIterator[Api]:
    connection = Api(server.kubeconfig(tmp_path))
    yield connection
    await connection.close()


@pytest.fixture
async def pods(connection: Api) -> AsyncIterator[Watched]:
    watched = Watched(connection, PODS, "runs")
    yield watched
    await watched.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 (what is waited for is elsewhere)
            await asyncio.sleep(0.02)


def names(pods: Watched) -> set[str]:
    return {pod["metadata"]["name"] for pod in pods.there.under("run-1")}


async def begun(pods: Watched) -> None:
    pods.start()
    await pods.ready()


async def test_what_is_there_is_listed_in_pages_and_what_comes_is_heard(server: ApiServer, pods: Watched):
    for name in "abcde":
        await server.put(name)
    await begun(pods)
    assert names(pods) == set("abcde")
    assert server.lists == 3
    await server.put("f")
    await server.put("a", "MODIFIED", phase="Failed")
    await server.put("b", "DELETED")
    await until(lambda: names(pods) == set("acdef"))
    [changed] = [pod for pod in pods.there.all() if pod["metadata"]["name"] == "a"]
    assert changed["status"] == {"phase": "Failed"}
    assert [pod["metadata"]["name"] for pod in pods.departed.under("run-1")] == ["b"]
    assert server.lists == 3


async def test_a_watch_that_was_cut_goes_on_where_it_was(server: ApiServer, pods: Watched):
    await begun(pods)
    await server.put("a")
    await until(lambda: names(pods) == {"a"})
    seen = server.version
    server.cut()
    await server.put("b")
    await until(lambda: names(pods) == {"a", "b"})
    assert server.lists == 1
    assert server.watches[-1] == str(seen)


async def test_a_bookmark_moves_the_place_on(server: ApiServer, pods: Watched):
    await begun(pods)
    await server.bookmark()
    at = server.version
    await asyncio.sleep(0.3)
    server.cut()
    await until(lambda: server.watches[-1] == str(at))
    assert server.lists == 1


async def test_what_was_missed_beyond_recall_is_listed_again_and_its_deletions_are_seen(server: ApiServer, pods: Watched):
    await server.put("a")
    await server.put("b")
    await begun(pods)
    server.away = True
    server.cut()
    await server.put("a", "DELETED")
    await server.put("c")
    server.forget_history()
    server.away = False
    await until(lambda: names(pods) == {"b", "c"})
    assert [pod["metadata"]["name"] for pod in pods.departed.all()] == ["a"]
    assert pods.num_lists == 2


async def test_a_server_that_is_away_for_a_moment_is_no_trouble_and_for_longer_it_is_told(
    server: ApiServer, pods: Watched, monkeypatch: pytest.MonkeyPatch
):
    await server.put("a")
    await begun(pods)
    server.away = True
    server.cut()
    await asyncio.sleep(0.3)
    await pods.ready()
    monkeypatch.setattr(watch, "STALE_S", 0.2)
    with pytest.raises(Unavailable):
        await pods.ready()
    assert names(pods) == {"a"}  # nothing is concluded from silence
    server.away = False
    await until(lambda: pods.is_fresh)
    await pods.ready()


async def test_nothing_is_told_before_the_first_list(server: ApiServer, pods: Watched):
    server.away = True
    pods.start()
    with pytest.raises(Unavailable):
        await pods.ready()
    server.away = False
    await until(lambda: pods.is_fresh)
    await pods.ready()


async def test_who_may_not_watch_is_told_so(server: ApiServer, pods: Watched):
    server.refusal = (403, {"kind": "Status", "reason": "Forbidden", "message": 'pods is forbidden: User "u" cannot list'})
    pods.start()
    with pytest.raises(ApiRefusal, match="cannot list") as caught:
        await pods.ready()
    assert caught.value.reason == "KUBERNETES_FORBIDDEN"


async def test_credentials_go_with_every_request(server: ApiServer, pods: Watched):
    await begun(pods)
    await until(lambda: len(server.watches) == 1)
    assert set(server.tokens) == {"Bearer first"}


async def test_calls_are_answered_however_many_watches_are_open(server: ApiServer, connection: Api):
    namespaces = [Namespace(connection, f"runs-{number}") for number in range(40)]
    await asyncio.gather(*(namespace.ready() for namespace in namespaces))
    await until(lambda: server.num_open == 120)
    async with asyncio.timeout(DEADLINE_S):
        await connection.get("/apis/ray.io/v1/namespaces/runs/rayjobs")
    await asyncio.gather(*(namespace.stop() for namespace in namespaces))


def test_the_server_ends_a_silent_watch_before_it_is_taken_for_dead():
    assert watch.WATCH_FOR_S < api.WATCH_SILENT_S
