"""What a tenant has the service call is public, whatever it is written as, or lies in a network that the operators allow."""

from ipaddress import ip_address

import pytest

from lorafleet.errors import InvalidInput
from service.endpoints.addresses import chosen, parse_networks, parse_url, permitted

HOOK = parse_url("https://hooks.example.com/x")


@pytest.mark.parametrize("address", ["93.184.216.34", "1.1.1.1", "2606:4700::1111", "64:ff9b::101:101"])
def test_public_addresses_are_called(address: str):
    assert permitted(ip_address(address), ())


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.9.9.9", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1"),
        *("255.255.255.255", "198.18.0.1", "240.0.0.1", "192.0.2.1"),
        *("::", "::1", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1"),
        *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:a00:1::1", "2001:db8::1"),
    ],
)
def test_no_address_of_ours_is_called_however_it_is_written(address: str):
    assert not permitted(ip_address(address), ())


def test_operators_allow_networks():
    allowed = parse_networks(["10.1.0.0/16", "::1"], "--webhook-allow")
    assert permitted(ip_address("10.1.2.3"), allowed)
    assert permitted(ip_address("::1"), allowed)
    assert not permitted(ip_address("10.2.0.1"), allowed)
    with pytest.raises(InvalidInput, match="--webhook-allow"):
        parse_networks(["10.1.0.1/16"], "--webhook-allow")


def test_of_several_addresses_one_that_may_be_called_is_chosen_or_none():
    addresses = [ip_address("127.0.0.1"), ip_address("1.1.1.1")]
    assert chosen(addresses, HOOK, ()) == addresses[1]
    for none in ([], addresses[:1]):
        with pytest.raises(InvalidInput, match="no public address") as refused:
            chosen(none, HOOK, ())
        assert refused.value.reason == "ADDRESS_REFUSED"


def test_plain_http_is_for_allowed_networks_alone():
    plain = parse_url("http://hooks.example.com/")
    with pytest.raises(InvalidInput, match="write https://"):
        chosen([ip_address("1.1.1.1")], plain, ())
    assert chosen([ip_address("10.1.2.3")], plain, parse_networks(["10.0.0.0/8"], "")) == ip_address("10.1.2.3")


@pytest.mark.parametrize(
    "url",
    [
        *("", "hooks.example.com", "ftp://a/", "https://", "https:///x", "https://u:p@a/", "https://a@b/", "https://a/#x", "https://a:0/"),
        *(
            "https://a:99999/",
            "https://a b/",
            "https://a/\r\nX: y",
            "https://a/" + "x" * 2000,
            "https://exä.com/",
            "https://[::1",
            "https://%31/",
        ),
    ],
)
def test_what_is_no_url_of_an_endpoint_is_refused(url: str):
    with pytest.raises(InvalidInput):
        parse_url(url)


@pytest.mark.parametrize("url", ["https://2130706433/", "https://0x7f.1/", "https://017700000001/"])
async def test_an_address_in_odd_letters_is_a_name_and_goes_through_the_same_gate(url: str):
    """Resolvers read these as 127.0.0.1: what comes out of them is looked at, whatever went in."""
    from service.endpoints.delivery import NotDelivered, Sender

    with pytest.raises((InvalidInput, NotDelivered)):
        await Sender().send(url, b"{}", {})


def test_a_url_is_taken_apart():
    target = parse_url("https://Hooks.Example.com:8443/a?b=c")
    assert (target.host, target.port, target.path, target.authority) == ("hooks.example.com", 8443, "/a?b=c", "hooks.example.com:8443")
    assert parse_url("https://[2606:4700::1111]").authority == "[2606:4700::1111]"
