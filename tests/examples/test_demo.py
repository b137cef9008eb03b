"""The demo's report and contact sheet."""

from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from PIL import Image

from examples.demo import BUILD, SPEC, has_learned, report
from lorafleet import spec_file
from lorafleet.contact_sheet import CELL, Row, contact_sheet
from lorafleet.v1 import training_service_pb2 as pb

KEYS = [
    "job",
    "state",
    "steps",
    "held_out_loss_base",
    "held_out_loss_adapter",
    "seconds_submit_to_first_step",
    "pictures_per_second",
    "artifact_uri",
    "sheet",
]


def test_report_of_a_job_that_succeeded_tells_everything() -> None:
    job = pb.TrainingJob(
        name="tenants/default/jobs/demo",
        state=pb.JOB_STATE_SUCCEEDED,
        progress=pb.Progress(step=200, held_out_loss_base=0.33, held_out_loss=0.09),
        artifact=pb.Artifact(uri="s3://artifacts/demo/adapter"),
        create_time=Timestamp(seconds=100),
        first_step_time=Timestamp(seconds=130, nanos=500_000_000),
    )
    assert report(job, 53.14, BUILD / "before-after.png") == {
        "job": "tenants/default/jobs/demo",
        "state": "SUCCEEDED",
        "steps": 200,
        "held_out_loss_base": 0.33,
        "held_out_loss_adapter": 0.09,
        "seconds_submit_to_first_step": 30.5,
        "pictures_per_second": 53.1,
        "artifact_uri": "s3://artifacts/demo/adapter",
        "sheet": "build/demo/before-after.png",
    }


def test_report_of_a_job_that_never_started_has_the_same_keys() -> None:
    assert list(report(pb.TrainingJob(state=pb.JOB_STATE_FAILED), 0.0, None)) == KEYS


@pytest.mark.parametrize(
    ("state", "base", "adapter", "learned"),
    [
        ("SUCCEEDED", 0.33, 0.09, True),
        ("SUCCEEDED", 0.33, 0.32, False),
        ("SUCCEEDED", 0.33, float("nan"), False),
        ("SUCCEEDED", None, None, False),
        ("FAILED", 0.33, 0.09, False),
    ],
)
def test_demo_ends_well_only_if_the_lora_has_learned_the_style(
    state: str, base: float | None, adapter: float | None, learned: bool
) -> None:
    assert has_learned({"state": state, "held_out_loss_base": base, "held_out_loss_adapter": adapter}) is learned


def test_sheet_shows_a_column_for_each_prompt_and_a_row_for_each_stage() -> None:
    def pictures(colour: str) -> list[Image.Image]:
        return [Image.new("RGB", (64, 64), colour)] * 3

    sheet = contact_sheet(["a fox", "a cat", "a very long prompt " * 5], [Row("base", pictures("red")), Row("LoRA", pictures("blue"))])
    colours = {colour: count for count, colour in sheet.getcolors(maxcolors=2**20) or []}
    assert colours[255, 0, 0] == colours[0, 0, 255] == 3 * CELL * CELL


def test_spec_of_the_demo_is_a_good_one() -> None:
    assert spec_file.load(Path(SPEC)).validation.prompts
