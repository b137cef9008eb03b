"""Bases of 1.x and 2.x, written once, and packs on them."""

from pathlib import Path

import pytest

from tests.trainer import shapes
from tests.trainer.packs import Packs
from tests.trainer.sd.bases import copy, write_sd2
from trainer.group import Group


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sd-bases")
    return {
        "sd1": copy(folder / "sd1"),
        "sd2": write_sd2(folder / "sd2"),
        "sd2-v": write_sd2(folder / "sd2-v", prediction_type="v_prediction"),
    }


@pytest.fixture(scope="session")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shapes.write(tmp_path_factory.mktemp("sd-data") / "shapes")


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory, group: Group) -> Packs:
    return Packs(tmp_path_factory.mktemp("sd-styles"), group)
