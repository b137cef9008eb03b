"""`lorafleet estimate`: what a spec takes, and what would make it less, by the server's own plan."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lorafleet.cli import app
from lorafleet.estimate import variants
from lorafleet.spec import Spec
from lorafleet.v1 import batch_service_pb2 as pb
from tests.lorafleet.fake_server import FakeServer

FIELDS: dict[str, dict[str, Any]] = {
    "base_model": {"uri": "file:///base", "family": "sd1"},
    "dataset": {"uri": "file:///pictures"},
    "output": {"uri": "file:///out"},
}
GIB = 2**30


def spec(**parts: dict[str, Any]) -> Spec:
    return Spec.model_validate({**FIELDS, **parts})


def titles(of: Spec) -> list[str]:
    return [each.title for each in variants(of)]


def test_what_makes_it_less_is_no_other_training():
    fields = {"training": {"micro_batch_size": 4, "gradient_accumulation_steps": 2}, "adapter": {"rank": 32}}
    assert titles(spec(**fields)) == [
        "training.micro_batch_size=1, training.gradient_accumulation_steps=8",
        "training.gradient_checkpointing=True",
        "training.precision=bf16",
        "training.precision=int8",
        "training.precision=nf4",
        "adapter.rank=16",
    ]


@pytest.mark.parametrize(
    ("fields", "left_out"),
    [
        ({"training": {"precision": "int8"}}, ["bf16", "int8"]),
        ({"training": {"precision": "nf4"}}, ["bf16", "int8", "nf4"]),
        ({"adapter": {"method": "dora"}}, ["int8", "nf4"]),
        ({"cluster": {"zero_stage": 3}}, ["int8", "nf4"]),
    ],
)
def test_what_the_rules_refuse_or_what_would_be_more_is_not_offered(fields: dict[str, Any], left_out: list[str]):
    offered = [title.rpartition("=")[2] for title in titles(spec(**fields)) if "precision" in title]
    assert offered == [name for name in ("bf16", "int8", "nf4") if name not in left_out]


@pytest.mark.parametrize(("given", "offered"), [({}, ["int8", "nf4"]), ({"text_precision": "int8"}, ["nf4"])])
def test_large_text_encoders_may_be_smaller_where_there_are_any(given: dict[str, str], offered: list[str]):
    flux = spec(base_model={**FIELDS["base_model"], "family": "flux"}, training=given)
    assert [title for title in titles(flux) if "text_precision" in title] == [f"training.text_precision={name}" for name in offered]


@pytest.mark.parametrize("method", ["lora", "rslora", "dora"])
@pytest.mark.parametrize("zero_stage", [0, 3])
def test_every_variant_is_a_good_spec(method: str, zero_stage: int):
    of = spec(adapter={"method": method, "rank": 8}, cluster={"zero_stage": zero_stage}, training={"micro_batch_size": 2})
    fields = of.model_dump(mode="json", exclude_unset=True)
    for each in variants(of):
        assert Spec.model_validate(each.of(fields)) != of
    assert Spec.model_validate(fields) == of, "the spec itself is as it was"


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "spec.yaml"
    path.write_text(json.dumps({**FIELDS, "training": {"precision": "int8", "gradient_checkpointing": True}, "adapter": {"rank": 16}}))
    return str(path)


def planned(*sizes: int) -> list[pb.PlannedPack]:
    return [
        pb.PlannedPack(
            items=[index],
            memory_bytes=size,
            arithmetic=f"base and all of {index}",
            adapter_bytes=3 * 2**20,
            picture_bytes=2**18,
            caption_bytes=5 * 2**20,
        )
        for index, size in enumerate(sizes)
    ]


def estimate(server: FakeServer, *arguments: str):
    return CliRunner().invoke(app, ["estimate", *arguments, "--server", server.address])


def test_the_arithmetic_and_what_makes_it_less_are_told_the_most_first(server: FakeServer, file: str):
    server.answers("plan_batch", pb.PlanBatchResponse(packs=planned(8 * GIB, 4 * GIB, 7 * GIB)[::-1], memory_limit_bytes=6 * GIB))
    result = estimate(server, file)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[:5] == [
        "memory   8.00 GiB on each worker",
        "         base and all of 0",
        "adapter  3.0 MiB in fp32, half of that in fp16 or bf16",
        "cache    0.25 MiB of latents for each picture, 5.00 MiB of text for each caption",
        "worker   6.00 GiB: it does not fit",
    ]
    assert [line.split()[0] for line in lines[7:]] == ["training.precision=nf4", "adapter.rank=8"]
    assert [line.split()[3] for line in lines[7:]] == ["50", "12"]


def test_what_saves_nothing_is_not_offered(server: FakeServer, file: str):
    server.answers("plan_batch", pb.PlanBatchResponse(packs=planned(8 * GIB, 8 * GIB, 8 * GIB)))
    assert "WITH" not in estimate(server, file).stdout


def test_a_base_that_could_not_be_read_is_told(server: FakeServer, file: str):
    server.answers("plan_batch", pb.PlanBatchResponse(packs=[pb.PlannedPack(items=[n], arithmetic="unknown: headers") for n in range(3)]))
    result = estimate(server, file)
    assert result.stdout.splitlines() == ["memory   unknown", "         unknown: headers"]


def test_for_programs_it_is_one_document(server: FakeServer, file: str):
    server.answers("plan_batch", pb.PlanBatchResponse(packs=planned(8 * GIB, 4 * GIB, 7 * GIB), memory_limit_bytes=6 * GIB))
    found = json.loads(estimate(server, file, "-o", "json").stdout)
    assert (found["memory_bytes"], found["adapter_bytes"], found["memory_limit_bytes"]) == (8 * GIB, 3 * 2**20, 6 * GIB)
    assert [each["changes"] for each in found["variants"]] == [{"training.precision": "nf4"}, {"adapter.rank": 8}]


def test_each_is_planned_alone(server: FakeServer, file: str):
    server.answers("plan_batch", pb.PlanBatchResponse(packs=planned(8 * GIB, 4 * GIB, 7 * GIB)))
    estimate(server, file)
    sent = [item.spec for request in server.requests[-1] for item in request.items.items]
    assert [each.scheduling.sharing for each in sent] == ["nobody"] * 3
    assert not any(each.output.uri for each in sent), "of which a plan takes no two alike"
    assert [each.training.precision for each in sent] == ["int8", "nf4", "int8"]
