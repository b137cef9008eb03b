"""What is said of a batch before it is sent: every mistake of every item, and none of them ten thousand times."""

from typing import Any

import pytest

from lorafleet import spec_proto
from lorafleet.batch import items as batch_items
from lorafleet.batch.overlay import laid_over
from lorafleet.errors import InvalidSpec

DEFAULTS: dict[str, Any] = {"base_model": {"uri": "file:///base"}, "training": {"max_steps": 100}}


def an_item(name: str = "fox", **fields: Any) -> dict[str, Any]:
    return {"dataset": {"uri": f"file:///data/{name}"}, **fields}


def mistakes(defaults: dict[str, Any], items: list[dict[str, Any]], batch_id: str = "") -> dict[str, str]:
    with pytest.raises(InvalidSpec) as caught:
        batch_items.check(defaults, items, batch_id)
    return {violation.field: violation.message for violation in caught.value.violations}


def test_good_batch_is_left_alone() -> None:
    batch_items.check(DEFAULTS, [an_item("fox", job_id="fox"), an_item("cat")], "tonight")


def test_mistakes_of_all_items_are_told_at_once() -> None:
    items = [an_item(), an_item("cat", adapter={"rank": 0}, job_id="Cat"), {"training": {"max_stps": 1}}]
    assert list(mistakes(DEFAULTS, items)) == ["items[1].adapter.rank", "items[1].job_id", "items[2].dataset", "items[2].training.max_stps"]


def test_mistake_in_the_defaults_is_told_once_and_not_for_each_item() -> None:
    found = mistakes({**DEFAULTS, "adapter": {"rank": 0}}, [an_item(str(number)) for number in range(50)])
    assert list(found) == ["defaults.adapter.rank"]


def test_what_every_item_lacks_is_told_once() -> None:
    found = mistakes({}, [an_item(str(number)) for number in range(50)])
    assert found == {"items[*].base_model": "is required"}


def test_rule_between_a_default_and_an_items_field_is_the_items_mistake() -> None:
    defaults = {**DEFAULTS, "training": {"max_steps": 100, "lr_warmup_steps": 50}}
    assert list(mistakes(defaults, [an_item(), an_item("cat", training={"max_steps": 10})])) == ["items[1].training.lr_warmup_steps"]


def test_rule_that_defaults_break_alone_is_no_mistake_when_every_item_mends_it() -> None:
    defaults = {**DEFAULTS, "training": {"max_steps": 10, "lr_warmup_steps": 50}}
    batch_items.check(defaults, [an_item(training={"max_steps": 100})])


@pytest.mark.parametrize(("number", "says"), [(0, "is empty"), (10_001, "has 10,001 items; a batch holds at most 10,000")])
def test_batch_of_the_wrong_size_is_told(number: int, says: str) -> None:
    assert says in mistakes(DEFAULTS, [an_item(str(index)) for index in range(number)])["items"]


def test_two_items_with_one_output_or_one_id_are_told_each_with_the_other() -> None:
    items = [an_item(job_id="fox", output={"uri": "file:///out"}), an_item(), an_item(job_id="fox", output={"uri": "file:///out/"})]
    assert mistakes(DEFAULTS, items) == {
        "items[2].job_id": "'fox' is that of items[0] too",
        "items[2].output.uri": "'file:///out' is that of items[0] too",
    }


@pytest.mark.parametrize(
    ("section", "field", "value", "empty"), [("validation", "prompts", ["a fox"], []), ("adapter", "alpha", 8.0, None)]
)
def test_item_that_would_take_back_a_default_is_told_since_the_wire_cannot_say_it(
    section: str, field: str, value: object, empty: object
) -> None:
    found = mistakes({**DEFAULTS, section: {field: value}}, [an_item(), an_item("cat", **{section: {field: empty}})])
    assert list(found) == [f"items[1].{section}.{field}"]
    batch_items.check(DEFAULTS, [an_item("cat", **{section: {field: empty}})])


def test_no_more_than_a_hundred_mistakes_are_listed_and_the_rest_counted() -> None:
    found = mistakes(DEFAULTS, [an_item(adapter={"rank": -number}) for number in range(250)])
    assert len(found) == 101
    assert found["items"] == "and 150 more problems"


def test_batch_id_has_its_form() -> None:
    assert list(mistakes(DEFAULTS, [an_item()], "Tonight!")) == ["batch_id"]


def test_what_travels_means_what_was_written() -> None:
    item = an_item(labels={"customer": "7"}, training={"learning_rate": 1e-3}, adapter={"target_modules": ["to_q"]})
    (message,) = batch_items.item_messages([{**item, "job_id": "fox"}])
    assert message.job_id == "fox"
    there = laid_over(spec_proto.fields(batch_items.defaults_message(DEFAULTS)), spec_proto.fields(message.spec))
    assert there == laid_over(DEFAULTS, item)
