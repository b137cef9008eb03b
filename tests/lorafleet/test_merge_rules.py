"""What a spec has made of its adapter in the end: what does not go together is told with the rest, each at its field."""

from typing import Any

import pytest

from lorafleet import spec, spec_proto
from lorafleet.errors import InvalidSpec
from lorafleet.spec_merge import MergeSpec

ONE = {"uri": "s3://bucket/one.safetensors"}


def parsed(merge: Any, **sections: Any) -> spec.Spec:
    return spec.parse(
        {"base_model": {"uri": "s3://bucket/base"}, "dataset": {"uri": "s3://bucket/d"}, "output": {"merge": merge}, **sections}
    )


def told(merge: Any, **sections: Any) -> list[str]:
    with pytest.raises(InvalidSpec) as caught:
        parsed(merge, **sections)
    return [f"{each.field}: {each.message}" for each in caught.value.violations]


@pytest.mark.parametrize(
    ("merge", "complaint"),
    [
        ({}, "output.merge.adapters: names none: say what to combine with, or set output.merge.fuse"),
        ({"fuse": True, "adapters": [ONE]}, "output.merge.fuse: stands beside output.merge.adapters"),
        ({"fuse": True, "kind": "svd"}, "output.merge.kind: weights of a base hold the sum itself"),
        ({"adapters": [ONE], "rank": 4}, "output.merge.rank: cat is exact, and its rank the sum of the ranks; kind svd makes it less"),
        ({"adapters": [ONE], "kind": "svd", "rank": 4, "energy": 0.5}, "output.merge.energy: gives the rank, as rank does"),
        ({"adapters": [ONE], "kind": "svd", "density": 0.5}, "output.merge.density: svd leaves nothing out"),
        ({"adapters": [ONE, {**ONE, "weight": 2.0}]}, "output.merge.adapters: has s3://bucket/one.safetensors twice"),
        ({"adapters": [{**ONE, "weight": 0.0}], "weight": 0.0}, "output.merge.weight: nothing is left: all weights are zero"),
        ({"adapters": [{"uri": "/tmp/x"}]}, "output.merge.adapters[0].uri: '/tmp/x' is not a store URI"),
        ({"adapters": [ONE], "kind": "sum"}, "output.merge.kind: "),
        ({"adapters": [{**ONE, "weight": float("nan")}]}, "output.merge.adapters[0].weight: "),
    ],
)
def test_what_does_not_go_together_is_told_at_its_field(merge: dict[str, Any], complaint: str):
    assert any(each.startswith(complaint) for each in told(merge)), told(merge)


def test_all_that_is_wrong_is_told_with_what_is_wrong_elsewhere():
    found = told({"adapters": [ONE], "rank": 4, "density": 0.5}, training={"max_steps": 0})
    assert [each.partition(":")[0] for each in found] == ["training.max_steps", "output.merge.rank", "output.merge.density"]


def test_new_tokens_alone_have_no_adapter_to_merge():
    tokens = {"alone": True, "tokens": [{"token": "<fox>"}]}
    found = told({"adapters": [ONE]}, textual_inversion=tokens)
    assert any(each.startswith("output.merge: is of an adapter, and textual_inversion.alone") for each in found), found


def test_a_good_one_crosses_the_wire_as_it_is_and_none_is_left_out():
    asked = parsed({"adapters": [{**ONE, "weight": 0.5}], "kind": "ties_svd", "density": 0.3})
    assert spec_proto.from_proto(spec_proto.to_proto(asked)) == asked
    assert asked.output.merged_with == (ONE["uri"],)
    plain = spec.parse({"base_model": {"uri": "s3://bucket/base"}, "dataset": {"uri": "s3://bucket/d"}})
    assert "merge" not in plain.model_dump(mode="json")["output"]
    assert MergeSpec(fuse=True).uris == ()
