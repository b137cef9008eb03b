"""The side port over a real socket: what it answers, and that bad requests neither hang nor break it."""

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator

import pytest

from lorafleet.errors import InvalidInput, Unavailable
from service.observability import probes
from service.observability.health import Pulse, Readiness
from service.observability.probes import Page, health_pages, probing
from service.settings.serve_settings import parse_metrics_listen


async def breaks() -> Page:
    raise RuntimeError("secret detail")


@pytest.fixture
def readiness() -> Readiness:
    return Readiness({})


@pytest.fixture
async def address(readiness: Readiness) -> AsyncIterator[str]:
    async with probing(("127.0.0.1", 0), {**health_pages(Pulse(), readiness), "/breaks": breaks}) as address:
        yield address


async def get(address: str, path: str) -> tuple[int, str]:
    def ask() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    return await asyncio.to_thread(ask)


async def sent(address: str, data: bytes) -> bytes:
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(data)
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer


async def test_live_and_ready_are_two_questions(address: str, readiness: Readiness):
    assert (await get(address, "/healthz/live"))[0] == 200
    assert (await get(address, "/healthz/ready?verbose"))[0] == 200
    readiness.drain()
    status, body = await get(address, "/healthz/ready")
    assert status == 503
    assert json.loads(body)["parts"]["drain"].startswith("draining")
    assert (await get(address, "/healthz/live"))[0] == 200, "a draining process is not to be killed"


async def test_other_paths_methods_and_noise_are_answered(address: str):
    assert (await get(address, "/etc/passwd"))[0] == 404
    assert b"405" in await sent(address, b"POST /healthz/live HTTP/1.1\r\n\r\n")
    assert b"400" in await sent(address, b"\x16\x03\x01 noise\r\n\r\n")
    head = await sent(address, b"HEAD /healthz/live HTTP/1.1\r\n\r\n")
    assert b"200 OK" in head
    assert head.endswith(b"\r\n\r\n")


async def test_a_failing_page_tells_nothing_of_why(address: str, caplog: pytest.LogCaptureFixture):
    status, body = await get(address, "/breaks")
    assert status == 500
    assert "secret" not in body
    assert "secret detail" in caplog.text


async def test_a_head_without_end_is_cut_off(address: str):
    assert await sent(address, b"GET / HTTP/1.1\r\n" + b"x" * 2 * probes.MAX_HEAD_BYTES) == b""


async def test_who_says_nothing_is_let_go(address: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(probes, "READ_WITHIN_S", 0.05)
    assert await sent(address, b"GET") == b""


async def test_a_taken_port_is_named(address: str):
    host, port = address.split(":")
    with pytest.raises(Unavailable, match="--metrics-listen"):
        async with probing((host, int(port)), {}):
            pass


@pytest.mark.parametrize("listen", ["7601", ":7601", "host:x", "host:70000"])
def test_what_is_no_address_is_refused(listen: str):
    with pytest.raises(InvalidInput, match="--metrics-listen"):
        parse_metrics_listen(listen)


def test_the_side_port_is_off_unless_set():
    assert parse_metrics_listen("") is None
    assert parse_metrics_listen("[::]:7601") == ("::", 7601)
