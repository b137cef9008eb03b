"""Plans for users: the items of every pack, and why."""

from pathlib import Path
from typing import Any

import pytest

from lorafleet import spec
from lorafleet.errors import InvalidSpec
from service.control.memory import GIB
from service.control.packing import PackLimits, Sharing
from service.core.clock import FakeClock
from service.planning.base_shapes import ShapeCache
from service.planning.planner import Planner, Policy, sharing_of
from service.store.client import Store
from tests.service.planning.test_base_kinds import SCHEDULERS, write_scheduler
from tests.service.planning.test_base_shapes import DEMO, write_base


def wanted(**changes: Any) -> spec.Spec:
    fields = {"base_model": {"uri": f"file://{DEMO}"}, "dataset": {"uri": "file:///pictures", "resolution": 64}}
    return spec.parse({**fields, **changes})


def planner(**policy: Any) -> Planner:
    return Planner(ShapeCache(Store(), FakeClock()), Policy(**policy))


async def test_a_batch_of_twenty_makes_two_packs_with_their_arithmetic():
    made = await planner(limits=PackLimits(max_pack_size=16, worker_memory_bytes=8 * GIB)).plan("acme", [wanted()] * 20)
    assert [len(pack.items) for pack in made.packs] == [16, 4]
    assert sorted(item for pack in made.packs for item in pack.items) == list(range(20))
    assert made.memory_limit_bytes == 8 * GIB
    first = made.packs[0]
    assert "16 adapters" in first.arithmetic
    assert 0 < first.memory_bytes < 8 * GIB
    assert "fp32, 64 px" in first.key
    assert [pack.closed_by for pack in made.packs] == ["FULL", "NO_MORE_ITEMS"]


async def test_a_style_that_fits_no_worker_is_named_with_the_arithmetic():
    large = wanted(training={"micro_batch_size": 1024})
    with pytest.raises(InvalidSpec) as refused:
        await planner(limits=PackLimits(worker_memory_bytes=2 * GIB)).plan("acme", [wanted(), large])
    (violation,) = refused.value.violations
    assert violation.field == "items[1]"
    assert "but a worker has 2.0 GiB" in violation.message


async def test_what_trains_alone_says_why():
    made = await planner().plan("acme", [wanted(cluster={"zero_stage": 2}), wanted(), wanted()])
    assert [list(pack.items) for pack in made.packs] == [[0], [1, 2]]
    assert "trains alone: cluster.zero_stage is 2" in made.packs[0].key


async def test_methods_ranks_and_optimizers_train_together_and_their_idle_rows_are_counted():
    """Two LoRAs that differ in what rows of a bank may differ in share one; whoever else is there is alone in a bank."""
    alike = [wanted(adapter={"alpha": 4.0}), wanted(adapter={"initialization": "gaussian"}, training={"learning_rate": 1e-3})]
    apart = [
        wanted(adapter={"method": "oft", "rank": 4}),
        wanted(adapter={"rank": 4}),
        wanted(training={"optimizer": "prodigy", "learning_rate": 1.0, "lr_scheduler": "constant"}),
        wanted(training={"micro_batch_size": 2}),
        wanted(training={"ema_decay": 0.99}),
        wanted(training={"lora_plus_ratio": 4.0}),
        wanted(adapter={"dropout": 0.1}),
        wanted(adapter={"initialization": "pissa"}),
    ]
    (pack,) = (await planner().plan("acme", [*alike, *apart])).packs
    assert list(pack.items) == list(range(10))
    assert " + of 9 idle rows " in pack.arithmetic


async def test_new_tokens_are_a_bank_apart_and_alone_they_take_the_memory_of_no_adapter():
    one: dict[str, Any] = {"tokens": [{"token": "<s1>"}]}
    other = {"tokens": [{"token": "<s2>"}]}
    two = {"tokens": [{"token": "<s1>", "num_vectors": 2}]}
    given = [wanted(textual_inversion=each) for each in (one, other, two, {**one, "alone": True})]
    (pack,) = (await planner().plan("acme", [wanted(), *given])).packs
    assert " + of 3 idle rows " in pack.arithmetic
    (alone,) = (await planner().plan("acme", [given[3]])).packs
    assert alone.adapter_bytes == 0 < (await planner().plan("acme", [wanted()])).packs[0].adapter_bytes


async def test_a_beginning_that_is_subtracted_takes_memory():
    plain, pissa, gaussian = [
        (await planner().plan("acme", [wanted(adapter={"initialization": each})])).packs[0].memory_bytes
        for each in ("kaiming", "pissa", "gaussian")
    ]
    assert plain == gaussian < pissa


async def test_styles_whose_blocks_are_recomputed_share_no_pass_with_others_and_take_less():
    again = wanted(training={"gradient_checkpointing": True})
    made = await planner().plan("acme", [again, wanted(), again])
    recomputed, kept = made.packs
    assert [list(recomputed.items), list(kept.items)] == [[0, 2], [1]]
    assert "gradient checkpointing" in recomputed.key
    assert recomputed.memory_bytes < kept.memory_bytes, "of two styles than of one"


async def test_styles_that_are_compiled_share_no_pass_with_others():
    compiled = wanted(training={"compile": "blocks"})
    made = await planner().plan("acme", [compiled, wanted(), compiled])
    assert [list(pack.items) for pack in made.packs] == [[0, 2], [1]]
    assert "compiled: blocks" in made.packs[0].key


async def test_pictures_of_a_regularisation_set_and_of_every_resolution_are_counted():
    data = {"uri": "file:///pictures", "resolutions": [96, 64], "regularization": {"uri": "file:///dogs", "weight": 1.0}}
    alone = (await planner().plan("acme", [wanted(training={"micro_batch_size": 2})])).packs[0]
    more = (await planner().plan("acme", [wanted(dataset=data, training={"micro_batch_size": 2})])).packs[0]
    assert "activations of 2 pictures" in alone.arithmetic
    assert "activations of 4 pictures" in more.arithmetic
    assert more.picture_bytes == pytest.approx(alone.picture_bytes * (1 + (96 / 64) ** 2))
    assert "fp32, 64, 96 px" in more.key


async def test_styles_whose_texts_are_read_otherwise_are_encoded_apart():
    flux = {"base_model": {"uri": "file:///base", "family": "flux"}}
    small = wanted(**flux, training={"text_precision": "int8"})
    made = await planner().plan("acme", [small, wanted(**flux), small])
    assert [list(pack.items) for pack in made.packs] == [[0, 2], [1]]
    assert "with texts in int8" in made.packs[0].key


async def test_a_base_that_cannot_be_read_is_planned_by_number(tmp_path: Path):
    made = await planner(limits=PackLimits(max_pack_size=2)).plan("acme", [wanted(base_model={"uri": f"file://{tmp_path}"})] * 3)
    assert [len(pack.items) for pack in made.packs] == [2, 1]
    assert "could not be read" in made.packs[0].arithmetic


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, ""),
        ({"cluster": {"zero_stage": 1}}, "zero_stage"),
        ({"cluster": {"zero_stage": 1, "offload": "cpu"}}, "zero_stage"),
        ({"adapter": {"text_encoder": True}}, ""),
    ],
)
def test_sharded_styles_train_alone(changes, why):
    assert bool(why) == bool(wanted(**changes).why_alone)
    assert why in wanted(**changes).why_alone


def test_an_isolated_tenant_shares_with_itself_alone_whatever_it_says():
    open_to_all = wanted(scheduling={"sharing": "anyone"})
    assert sharing_of("acme", open_to_all, {"acme"}) is Sharing.TENANT
    assert sharing_of("blue", open_to_all, {"acme"}) is Sharing.ANYONE
    assert sharing_of("acme", wanted(scheduling={"sharing": "nobody"}), {"acme"}) is Sharing.NOBODY


async def test_a_base_whose_objective_is_not_trained_is_refused_with_its_item(tmp_path: Path):
    text, said = SCHEDULERS["sample"]
    uri = write_base(tmp_path)
    write_scheduler(tmp_path, text)
    with pytest.raises(InvalidSpec) as refused:
        await planner().plan("acme", [wanted(), wanted(base_model={"uri": uri})])
    (violation,) = refused.value.violations
    assert violation.field == "items[1]"
    assert said in violation.message
