"""Paths of what is wrong in a document, as all of our messages write them."""

import pytest

from lorafleet.field_paths import field_path


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ((), ""),
        (("adapter", "rank"), "adapter.rank"),
        (("adapter", "target_modules", 2), "adapter.target_modules[2]"),
        (("items", 0, "spec"), "items[0].spec"),
        (("labels", "Team", "[key]"), "labels.Team"),
        (("labels", "[key]", "name"), "labels.[key].name"),
    ],
)
def test_the_path_names_the_field(location: tuple[int | str, ...], path: str):
    assert field_path(location) == path
