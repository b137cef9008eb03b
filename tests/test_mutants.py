"""Every guard of `make mutants` is where its patch says, so that the next run of it tells of tests and not of moved code."""

import ast
from pathlib import Path

import pytest

from tests.mutants.guards import Guard, guards

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("guard", guards(), ids=lambda guard: guard.name)
def test_its_patch_applies_and_leaves_a_module(guard: Guard):
    text = (REPOSITORY / guard.path).read_text()
    assert text.count(guard.before) == 1, f"move the patch of {guard.name!r} along with its guard in {guard.path}"
    ast.parse(text.replace(guard.before, guard.after))
    for test in guard.tests.split():
        assert (REPOSITORY / test.partition("::")[0]).exists(), test


def test_names_are_told_apart():
    names = [guard.name for guard in guards()]
    assert len(names) == len(set(names))
