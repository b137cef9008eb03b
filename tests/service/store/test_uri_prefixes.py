"""A grant holds its folder and nothing beside it, however the URI is spelt."""

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.store.uri_prefixes import Granted, lies_in, mistake, parts, problem, within


@pytest.mark.parametrize(
    ("uri", "prefix"),
    [
        ("s3://acme", "s3://acme"),
        ("s3://acme/", "s3://acme"),
        ("s3://acme/a/b", "s3://acme"),
        ("s3://acme/a/b", "s3://acme/a/"),
        ("s3://acme-raw/a", "s3://acme-*"),
        ("s3://data/acme-1/x", "s3://data/acme-*"),
        ("file:///srv/acme/pictures", "file:///srv/acme"),
        ("file:///srv/acme%20two/x", "file:///srv/acme two"),
    ],
)
def test_what_lies_under_a_prefix(uri: str, prefix: str):
    assert within(uri, prefix)


@pytest.mark.parametrize(
    ("uri", "prefix"),
    [
        ("s3://acme-evil/a", "s3://acme"),
        ("s3://acmf/a", "s3://acme-*"),
        ("s3://acme/ab", "s3://acme/a"),
        ("s3://acme", "s3://acme/a"),
        ("s3://acme/a/../../other", "s3://acme"),
        ("s3://acme/a/%2e%2e/%2e%2e/other", "s3://acme"),
        ("s3://acme/a/%252e%252e/other", "s3://acme"),
        ("s3://acme//a", "s3://acme"),
        ("s3://acme/./a", "s3://acme"),
        ("s3://acme/a%2f..%2f..", "s3://acme"),
        ("s3://acme\\..\\other", "s3://acme"),
        ("s3://acme/a?versionId=1", "s3://acme"),
        ("s3://acme/a#b", "s3://acme"),
        ("s3://acme/a\x00b", "s3://acme"),
        ("S3://acme/a", "s3://acme"),
        ("s3:///acme/a", "s3://acme"),
        ("file://srv/acme", "file:///srv/acme"),
        ("file:///srv/acme/../other", "file:///srv/acme"),
        ("file:///srv/acme-evil", "file:///srv/acme"),
        ("http://acme/a", "s3://acme"),
        ("", "s3://acme"),
    ],
)
def test_what_does_not(uri: str, prefix: str):
    assert not within(uri, prefix)


NAME = st.text(st.sampled_from("abz.-_%2eE5fF/\\*?# \x00é"), max_size=12)


@given(st.lists(NAME, max_size=4), st.sampled_from(["s3://acme", "file:///srv/acme"]))
def test_no_spelling_leaves_the_prefix(tail: list[str], prefix: str):
    """Whoever resolves the URI later, decoding it as often as it likes, stays where the grant is."""
    uri = "/".join([prefix, *tail])
    if not within(uri, prefix):
        return
    assert not any(name in {"", ".", ".."} for name in uri.removesuffix("/").split("://")[1].lstrip("/").split("/"))
    while (found := parts(uri)) is not None:
        assert ".." not in found
        assert "\\" not in uri
        decoded = quote_free(uri)
        if decoded == uri:
            return
        assert within(decoded, prefix) or prefix.startswith("file")
        uri = decoded


def quote_free(uri: str) -> str:
    from urllib.parse import unquote

    return unquote(uri)


@given(st.text(min_size=1, max_size=8), st.text(min_size=1, max_size=8))
def test_a_longer_name_is_another_name(name: str, more: str):
    assert not within(f"s3://{quote(name, safe='')}{more}", f"s3://{quote(name, safe='')}") or more.strip("/") == "" or "/" in more


def test_a_star_in_an_output_folder_is_a_letter_like_any_other():
    assert not lies_in("s3://acme/run-1", "s3://acme/run*")


@pytest.mark.parametrize("prefix", ["", "s3://", "file:///", "s3://*", "s3://a*b/c", "s3://*/c", "s3://acme/../x", "gs://acme", "acme"])
def test_what_cannot_be_granted(prefix: str):
    assert mistake(prefix) is not None


def test_the_message_says_what_is_granted():
    granted = [Granted("s3://acme-*"), Granted("s3://out", may_write=True)]
    told = problem("dataset.uri", "s3://raw/cats", granted, tenant="acme")
    assert str(told) == 'dataset.uri: bucket "raw" is not granted to tenant "acme"; granted: s3://acme-*, s3://out'
    told = problem("output.uri", "s3://acme-1/cats", granted, tenant="acme", write=True)
    assert str(told) == 'output.uri: bucket "acme-1" is not granted to tenant "acme" for writing; granted for writing: s3://out'
    assert problem("output.uri", "s3://out/x", granted, tenant="acme", write=True) is None
