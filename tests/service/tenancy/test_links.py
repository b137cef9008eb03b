"""A symbolic link opens no folder that is not granted."""

from pathlib import Path

import pytest

from service.store.uri_prefixes import Granted
from service.tenancy.grants import Use, linked_out


@pytest.fixture
def granted(tmp_path: Path) -> Path:
    """What a tenant may write to, beside another's folder."""
    for name in ("acme/raw", "evil/pictures"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path / "acme"


@pytest.mark.parametrize("write", [False, True])
def test_a_link_out_of_what_is_granted_is_refused(granted: Path, write: bool):
    (granted / "link").symlink_to("../evil")
    for uri in (f"file://{granted}/link", f"file://{granted}/link/pictures", f"file://{granted}/link/new/out"):
        found = linked_out(Use("dataset.uri", uri, write=write), [Granted(f"file://{granted}", may_write=True)])
        assert found is not None
        assert "symbolic link" in found.message
        assert "evil" not in found.message, "where it leads is not told"


def test_a_link_within_it_and_one_above_it_are_fine(granted: Path):
    (granted / "curated").symlink_to("raw")
    (granted.parent / "alias").symlink_to("acme")
    for place in ("acme/curated", "acme/not yet there", "alias/raw"):
        for prefix in (f"file://{granted}", f"file://{granted.parent}/alias", f"file://{granted.parent}/ac*"):
            uri = f"file://{granted.parent}/{place}".replace(" ", "%20")
            assert linked_out(Use("dataset.uri", uri), [Granted(prefix)]) is None


def test_what_may_only_be_read_is_not_written_to_by_a_link(granted: Path):
    (granted / "link").symlink_to("../evil")
    reads = [Granted(f"file://{granted}", may_write=True), Granted(f"file://{granted.parent}/evil")]
    use = f"file://{granted}/link"
    assert linked_out(Use("dataset.uri", use), reads) is None
    assert linked_out(Use("output.uri", use, write=True), reads) is not None
