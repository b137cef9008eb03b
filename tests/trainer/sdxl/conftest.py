"""One tiny SDXL base for each objective and one data set, written once; packs of styles on them."""

from pathlib import Path

import pytest

from tests.trainer import shapes
from tests.trainer.sdxl import tiny_base
from tests.trainer.sdxl.styles import Sdxl
from trainer.group import Group


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sdxl-bases")
    return {objective: tiny_base.write(folder / objective, objective) for objective in tiny_base.SCHEDULERS}


@pytest.fixture(scope="session")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shapes.write(tmp_path_factory.mktemp("sdxl-data") / "shapes")


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory, group: Group, bases: dict[str, Path], data_set: Path) -> Sdxl:
    return Sdxl(tmp_path_factory.mktemp("sdxl-styles"), group, bases, data_set)
