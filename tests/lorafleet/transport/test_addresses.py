"""Host and port go together and come apart again, also where the host has colons of its own."""

import re
from pathlib import Path

import pytest

import lorafleet
from lorafleet.transport.addresses import host_of, joined, split


@pytest.mark.parametrize(
    ("host", "address"),
    [("127.0.0.1", "127.0.0.1:7600"), ("::1", "[::1]:7600"), ("fe80::1%eth0", "[fe80::1%eth0]:7600"), ("a.example", "a.example:7600")],
)
def test_what_is_joined_comes_apart_the_same(host: str, address: str) -> None:
    assert joined(host, 7600) == address
    assert split(address) == (host, 7600)
    assert host_of(address) == host_of(host) == host


@pytest.mark.parametrize(
    "address",
    [
        "",
        "a",
        ":1",
        "a:",
        "a:b",
        "::1:7600",
        "[::1]",
        "[::1:7600",
        "::1]:7600",
        "[a]:1",
        "a:65536",
        "a:-1",
        "a:١",
        "a:" + "9" * 5000,
        "http://a:1",
        "a,b:1",
    ],
)
def test_what_is_not_host_and_port_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="is not HOST:PORT"):
        split(address)


def test_nobody_joins_or_splits_them_alone() -> None:
    root = Path(lorafleet.__file__).parents[1]
    alone = re.compile(r"""host\}:\{|strip\("\[\]"\)""")
    files = [path for package in ("lorafleet", "service", "trainer", "examples", "bench") for path in (root / package).rglob("*.py")]
    assert [path.relative_to(root).as_posix() for path in files if alone.search(path.read_text())] == ["lorafleet/transport/addresses.py"]
