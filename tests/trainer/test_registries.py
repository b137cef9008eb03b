"""What the catalog names the trainer implements, and nothing beside it; workers that stand by have it imported."""

import sys
from typing import Any

import pytest

from lorafleet import catalog
from lorafleet.catalog.registry import Registry
from lorafleet.spec import ClusterSpec
from trainer.adapters.methods import METHODS
from trainer.engine import select_accelerator
from trainer.families import FAMILIES
from trainer.losses import LOSSES
from trainer.optimizers import OPTIMIZERS


@pytest.mark.parametrize(
    ("implemented", "known"),
    [(FAMILIES, catalog.FAMILIES), (METHODS, catalog.METHODS), (OPTIMIZERS, catalog.OPTIMIZERS), (LOSSES, catalog.LOSSES)],
)
def test_every_entry_of_the_catalog_is_implemented_and_has_its_facts(implemented: Registry[Any], known: Registry[Any]):
    assert implemented.names() == known.names()
    assert [each.facts for each in implemented.all()] == list(known.all())


def test_a_module_that_helps_is_no_entry():
    with pytest.raises(LookupError, match=r"no model family 'protocol' in this version; there is .*sd1, sd2, "):
        FAMILIES.get("protocol")


def test_workers_that_stand_by_have_every_family_imported():
    from trainer import warm_up

    warm_up.warm_up(select_accelerator(ClusterSpec()))
    assert {f"trainer.families.{name}" for name in catalog.FAMILIES.names()} <= sys.modules.keys()
