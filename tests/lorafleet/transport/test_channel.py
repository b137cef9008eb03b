"""Channels: the token travels with every call of every shape, TLS is what the credentials say, and no token in plaintext."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from lorafleet.credentials import Credentials, is_local
from lorafleet.errors import InvalidInput
from lorafleet.transport.channel import open_aio_channel, open_channel
from tests.certificates import Authority, server_pair

SHAPES = ["unary_unary", "unary_stream", "stream_unary", "stream_stream"]


def _authorization(context: grpc.ServicerContext) -> bytes:
    return str(dict(context.invocation_metadata()).get("authorization", "")).encode()


def _one(_request: Any, context: grpc.ServicerContext) -> bytes:
    return _authorization(context)


def _many(_request: Any, context: grpc.ServicerContext) -> Iterator[bytes]:
    yield _authorization(context)


def _server() -> grpc.Server:
    """Answers every call with the authorization that it came with."""
    server = grpc.server(ThreadPoolExecutor(2))
    methods = {shape: getattr(grpc, f"{shape}_rpc_method_handler")(_many if shape.endswith("stream") else _one) for shape in SHAPES}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", methods),))
    return server


@pytest.fixture(scope="module")
def plain() -> Iterator[str]:
    server = _server()
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def secure(authority: Authority) -> Iterator[str]:
    """Takes callers with a certificate of the authority alone."""
    server, pair = _server(), server_pair(authority)
    tls = grpc.ssl_server_credentials([(pair.key.read_bytes(), pair.cert.read_bytes())], authority.file.read_bytes(), True)
    port = server.add_secure_port("127.0.0.1:0", tls)
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


def blocking(server: str, credentials: Credentials, shape: str) -> str:
    asked, answered = shape.split("_")
    with open_channel(server, credentials) as channel:
        answer: Any = getattr(channel, shape)(f"/test.Echo/{shape}")(b"" if asked == "unary" else iter([b""]), timeout=20)
        return (answer if answered == "unary" else next(iter(answer))).decode()


def in_asyncio(server: str, credentials: Credentials, shape: str) -> str:
    async def call() -> str:
        asked, answered = shape.split("_")
        async with open_aio_channel(server, credentials) as channel:
            answer: Any = getattr(channel, shape)(f"/test.Echo/{shape}")(b"" if asked == "unary" else iter([b""]), timeout=20)
            return (await answer if answered == "unary" else (await anext(aiter(answer)))).decode()

    return asyncio.run(call())


BOTH = pytest.mark.parametrize("call", [blocking, in_asyncio])
Call = Callable[[str, Credentials, str], str]


@BOTH
@pytest.mark.parametrize("shape", SHAPES)
def test_the_token_travels_with_every_call(call: Call, shape: str, plain: str) -> None:
    assert call(plain, Credentials(token="abc"), shape) == "Bearer abc"
    assert call(plain, Credentials(), shape) == ""


@BOTH
def test_a_token_file_is_read_anew_at_each_call(call: Call, plain: str, tmp_path: Path) -> None:
    credentials = Credentials(token_file=tmp_path / "token")
    for token in ("first", "second"):
        (tmp_path / "token").write_text(f"{token}\n")
        assert call(plain, credentials, "unary_unary") == f"Bearer {token}"


@BOTH
def test_mutual_tls_carries_token_and_certificate(call: Call, secure: str, authority: Authority) -> None:
    own = authority.issue("client", cn="ada")
    credentials = Credentials(token="abc", tls_ca=authority.file, tls_cert=own.cert, tls_key=own.key)
    assert call(secure, credentials, "unary_unary") == "Bearer abc"


@BOTH
def test_an_authority_may_be_given_as_text(call: Call, secure: str, authority: Authority) -> None:
    own = authority.issue("client-2", cn="ada")
    credentials = Credentials(token="abc", tls_ca_pem=authority.file.read_text(), tls_cert=own.cert, tls_key=own.key)
    assert call(secure, credentials, "unary_unary") == "Bearer abc"
    for wrong, said in (({"tls_ca": authority.file}, "both set"), ({"tls_ca_pem": "none"}, "no certificate in PEM form")):
        with pytest.raises(InvalidInput, match=said):
            call(secure, Credentials(**{"tls_ca_pem": authority.file.read_text(), **wrong}), "unary_unary")


@BOTH
@pytest.mark.parametrize("shown", ["none", "another authority's"])
def test_a_caller_without_the_right_certificate_is_not_let_in(call: Call, secure: str, authority: Authority, shown: str, tmp_path) -> None:
    other = Authority(tmp_path, "other").issue("client", cn="ada")
    own = {} if shown == "none" else {"tls_cert": other.cert, "tls_key": other.key}
    with pytest.raises(grpc.RpcError):
        call(secure, Credentials(tls_ca=authority.file, **own), "unary_unary")


@BOTH
def test_a_server_of_another_authority_is_not_spoken_with(call: Call, secure: str, authority: Authority, tmp_path: Path) -> None:
    own = authority.issue("client", cn="ada")
    with pytest.raises(grpc.RpcError):
        call(secure, Credentials(tls_ca=Authority(tmp_path, "other").file, tls_cert=own.cert, tls_key=own.key), "unary_unary")


@BOTH
@pytest.mark.parametrize("server", ["10.0.0.1:7600", "lorafleet.example:443", "dns:///lorafleet.example", "0.0.0.0:7600"])
def test_a_token_is_never_sent_in_plaintext_off_loopback(call: Call, server: str) -> None:
    with pytest.raises(InvalidInput, match="--tls") as refused:
        call(server, Credentials(token="s3cret"), "unary_unary")
    assert refused.value.reason == "TOKEN_OVER_PLAINTEXT"
    assert "s3cret" not in refused.value.message


@BOTH
def test_a_token_in_plaintext_goes_through_no_proxy(call: Call, plain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("grpc_proxy", "http://127.0.0.1:9")
    assert call(plain, Credentials(token="abc"), "unary_unary") == "Bearer abc"


@pytest.mark.parametrize(
    ("credentials", "told"),
    [
        ({"token": "a", "token_file": Path("b")}, "both set"),
        ({"tls_cert": Path("a")}, "needs its key"),
        ({"tls_ca": Path("/nowhere/ca.pem")}, "cannot read /nowhere/ca.pem .certificate authority."),
        ({"tls_ca": Path(__file__)}, "holds no certificate"),
    ],
)
def test_credentials_that_cannot_be_used_are_refused_at_once(credentials: dict[str, Any], told: str) -> None:
    for opened in (open_channel, open_aio_channel):
        with pytest.raises(InvalidInput, match=told):
            opened("127.0.0.1:1", Credentials(**credentials))


@pytest.mark.parametrize("text", ["", "a b", "a\nb", "tökén"])
def test_a_token_file_without_a_token_is_told(text: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(text)
    with pytest.raises(InvalidInput, match=r"token is empty|something other than one token"):
        Credentials(token_file=tmp_path / "token").bearer()


def test_credentials_are_printed_without_their_token() -> None:
    assert "s3cret" not in repr(Credentials(token="s3cret"))


@pytest.mark.parametrize(
    "server", ["127.0.0.1:1", "localhost:1", "[::1]:1", "127.0.0.2", "unix:/a", "dns:///localhost:1", "ipv4:127.0.0.1:1"]
)
def test_what_stays_on_this_machine_is_local(server: str) -> None:
    assert is_local(server)


@pytest.mark.parametrize(
    "server",
    ["8.8.8.8:1", "[::]:1", "localhost.example:1", "dns://8.8.8.8/localhost:1", "xds:///localhost:1", "ipv4:127.0.0.1:1,8.8.8.8:1", ""],
)
def test_what_may_leave_this_machine_is_not(server: str) -> None:
    assert not is_local(server)
