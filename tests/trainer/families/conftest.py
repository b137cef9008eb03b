"""The tiny bases of each family and one data set, written once; packs of styles on them."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.trainer import shapes
from tests.trainer.families.rows import ROWS
from tests.trainer.families.styles import Families
from trainer.group import Group


@pytest.fixture(scope="session")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shapes.write(tmp_path_factory.mktemp("families-data") / "shapes")


@pytest.fixture(scope="session")
def bases_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Path]]:
    folder = tmp_path_factory.mktemp("families-bases")

    @cache
    def written(family: str) -> dict[str, Path]:
        row = ROWS[family]
        return {variant: row.write(folder / family / variant, variant) for variant in row.variants}

    return written


@pytest.fixture(scope="module")
def families(
    tmp_path_factory: pytest.TempPathFactory, group: Group, bases_of: Callable[[str], dict[str, Path]], data_set: Path
) -> Callable[[str], Families]:
    folder = tmp_path_factory.mktemp("families-styles")
    return cache(lambda family: Families(folder / family, group, family, bases_of(family), data_set))
