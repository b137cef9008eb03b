"""What of an adapter's method contradicts its options, its family or its files is refused at its own field; what is left open fits it."""

from typing import Any

import pytest

from lorafleet.spec import parse
from lorafleet.spec_cautions import cautions
from tests.lorafleet.specs import with_fields
from tests.lorafleet.test_objective_rules import complaints

FLUX2 = {"uri": "file:///base", "family": "flux2"}
SD1 = {"uri": "file:///base", "family": "sd1"}


@pytest.mark.parametrize(
    ("sections", "field", "says"),
    [
        ({"adapter": {"factor": 8}}, "adapter.factor", 'nothing that "lora" goes by'),
        ({"adapter": {"method": "loha", "factor": 8}}, "adapter.factor", 'nothing that "loha" goes by'),
        ({"adapter": {"method": "lokr", "factor": 1}}, "adapter.factor", "2"),
        ({"adapter": {"min_rank": 2}}, "adapter.min_rank", 'nothing that "lora" goes by'),
        ({"adapter": {"method": "tlora", "rank": 4, "min_rank": 5}}, "adapter.min_rank", "5 is more than adapter.rank, 4"),
        ({"adapter": {"method": "tlora", "text_encoder": True}}, "adapter.text_encoder", "a text encoder hears nothing"),
        (
            {"adapter": {"method": "lokr", "initialization": "gaussian"}},
            "adapter.initialization",
            'none of "lokr", which begins with kaiming',
        ),
        ({"adapter": {"method": "tlora", "initialization": "pissa"}}, "adapter.initialization", "begins with kaiming or gaussian or orth"),
        ({"adapter": {"initialization": "pissa"}, "training": {"precision": "nf4"}}, "adapter.initialization", "precision nf4 has not"),
        ({"adapter": {"initialization": "pissa"}, "cluster": {"zero_stage": 2}}, "adapter.initialization", "zero_stage 2 cuts them"),
        (
            {"adapter": {"method": "tlora", "initialization": "orthogonal"}, "cluster": {"zero_stage": 1}},
            "adapter.initialization",
            "zero_stage 1 cuts them",
        ),
        (
            {"adapter": {"initialization": "pissa", "start": {"uri": "file:///a.safetensors"}}},
            "adapter.initialization",
            "and so is adapter.start",
        ),
        ({"adapter": {"rank": 3, "initialization": "orthogonal"}}, "adapter.initialization", "adapter.rank, 3, is odd"),
        ({"adapter": {"initialization": "zeros"}}, "adapter.initialization", "'gaussian'"),
        ({"adapter": {"start": {"resize": True}}}, "adapter.start", "needs uri, job or adapter"),
        ({"adapter": {"start": {"uri": "file:///a", "job": "first"}}}, "adapter.start", "both say what to go on from: choose one"),
        ({"adapter": {"start": {"job": "first", "digest": "ab" * 32}}}, "adapter.start", "no uri: leave it out"),
        ({"adapter": {"start": {"uri": "file:///a", "digest": "ab"}}}, "adapter.start.digest", "pattern"),
        ({"adapter": {"start": {"job": "tenants/acme/first"}}}, "adapter.start.job", "write its id, or tenants/TENANT/jobs/JOB"),
        ({"adapter": {"start": {"job": "jobs/First"}}}, "adapter.start.job", "write its id, or tenants/TENANT/jobs/JOB"),
        ({"adapter": {"method": "oft", "alpha": 1.0}}, "adapter.alpha", 'nothing that "oft" goes by'),
        ({"adapter": {"method": "oft", "rank": 1}}, "adapter.rank", '1 is too small for "oft", of which it is at least 2'),
        ({"adapter": {"method": "oft"}, "output": {"formats": ["diffusers"]}}, "output.formats", 'no "oft" of any family; write kohya'),
        ({"adapter": {"method": "loha"}, "output": {"formats": ["diffusers"]}}, "output.formats", 'no "loha" of any family; write kohya'),
        (
            {"base_model": SD1, "adapter": {"method": "lokr"}, "output": {"formats": ["kohya", "diffusers"]}},
            "output.formats",
            'diffusers loads no "lokr" of sd1',
        ),
    ],
)
def test_a_contradiction_is_told_at_its_field(sections: dict[str, Any], field: str, says: str):
    found = complaints(**sections)
    assert list(found) == [field]
    assert says in found[field]


@pytest.mark.parametrize(
    "sections",
    [
        {"adapter": {"method": "tlora", "rank": 3, "initialization": "orthogonal"}},  # its halves are not of the rank
        {"adapter": {"method": "tlora", "initialization": "orthogonal"}, "training": {"precision": "int8"}},  # of no weights
        {"adapter": {"initialization": "orthogonal"}, "cluster": {"zero_stage": 2}},  # nothing is subtracted
        {"adapter": {"initialization": "gaussian", "start": {"uri": "file:///a.safetensors"}}},  # what the file lacks
        {"adapter": {"start": {"job": "tenants/acme/jobs/first"}}},
        {"adapter": {"start": {"job": "first", "uri": "file:///a", "digest": "ab" * 32}}},  # as the service fills it in
    ],
)
def test_a_beginning_that_stands_in_nothings_way_is_taken(sections: dict[str, Any]):
    assert parse(with_fields(**sections))


@pytest.mark.parametrize(
    ("base", "method", "formats"),
    [
        (None, "lora", ("diffusers", "kohya")),
        (None, "loha", ("kohya",)),
        (None, "lokr", ()),
        (SD1, "lokr", ("kohya",)),
        (FLUX2, "lokr", ("diffusers", "kohya")),
    ],
)
def test_formats_that_are_left_open_are_those_that_hold_the_method(base: dict[str, Any] | None, method: str, formats: tuple[str, ...]):
    found = parse(with_fields(**({"base_model": base} if base else {}), adapter={"method": method}))
    assert found.output.formats == formats
    assert parse(found.model_dump()) == found
    if base is None and not formats:
        assert "formats" not in found.model_dump()["output"], "its family decides"
        assert found.on("sd1").output.formats == ("kohya",)


def test_options_that_are_not_asked_for_are_left_out_of_what_is_stored():
    written = parse(with_fields(adapter={"method": "lokr", "initialization": "kaiming"})).model_dump()["adapter"]
    assert not {"factor", "min_rank", "initialization"}.intersection(written), "an older trainer takes it, too"
    assert parse(with_fields(adapter={"method": "lokr", "factor": 8})).model_dump()["adapter"]["factor"] == 8


def test_it_is_told_that_readers_of_a_tlora_know_no_noise():
    assert not list(cautions(parse(with_fields())))
    (told,) = cautions(parse(with_fields(adapter={"method": "tlora"})))
    assert told.startswith("adapter.method: a file of tlora is a LoRA of its whole rank, which readers apply at every time")
