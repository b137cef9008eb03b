"""The batch demo submits what it says: sixteen styles that differ and can train in one run."""

import hashlib
import json
from collections.abc import Iterator
from io import BytesIO
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import yaml
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import code_pb2
from PIL import Image

from examples import demo_batch, restyle
from examples.demo import PICTURES
from examples.demo_batch import STYLES
from examples.demo_store import Store
from examples.processes import Servers
from lorafleet import spec
from lorafleet.batch import file as batch_file
from lorafleet.batch.file import BatchFile
from lorafleet.batch.overlay import laid_over
from lorafleet.v1 import batch_service_pb2 as batch_pb
from lorafleet.v1 import training_service_pb2 as pb
from tests.lorafleet.fake_server import FakeServer, Refusal
from tests.lorafleet.jobs import a_batch, a_job, batch_event

STORE = Store(base_model_uri="s3://base-models/emoji-sd", dataset_uri="s3://data-sets/emoji-style", artifacts_uri="s3://artifacts")


@pytest.fixture
def submitted(tmp_path: Path) -> BatchFile:
    """The demo's batch as `lorafleet batch submit` reads it."""
    file = tmp_path / "styles.yaml"
    file.write_text(yaml.safe_dump(demo_batch.batch(STORE), sort_keys=False))
    return batch_file.load(file)


def test_the_batch_file_is_a_good_one_with_an_item_for_each_style(submitted: BatchFile):
    assert submitted.batch_id == demo_batch.BATCH
    assert [item["job_id"] for item in submitted.items] == list(STYLES)
    assert len(set(STYLES)) == 16


def test_every_style_learns_from_pictures_of_its_own(submitted: BatchFile):
    uris = [item["dataset"]["uri"] for item in submitted.items]
    assert uris[:2] == ["s3://data-sets/emoji-style/poster-mint", "s3://data-sets/emoji-style/woodcut"]
    assert len(set(uris)) == 16


def test_the_styles_can_share_a_run(submitted: BatchFile):
    specs = [
        spec.parse({name: value for name, value in laid_over(submitted.defaults, item).items() if name != "job_id"})
        for item in submitted.items
    ]
    assert {each.cluster.zero_stage for each in specs} == {0}
    assert not any(each.adapter.text_encoder for each in specs)
    shared = {"base_model", "cluster", "training", "adapter"}
    assert len({each.model_dump_json(include=shared) for each in specs}) == 1


def test_all_rows_of_the_sheet_show_the_same_prompts(submitted: BatchFile):
    assert len(submitted.defaults["validation"]["prompts"]) == 6


def test_data_sets_are_small_and_neighbours_share_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(demo_batch, "STYLES", ("sepia", "ink"))
    assert demo_batch.draw_styles(tmp_path) == 128
    sepia, ink = ({row["file_name"] for row in restyle.read_metadata(tmp_path / style)} for style in ("sepia", "ink"))
    assert sepia.isdisjoint(ink)


def test_no_two_of_the_styles_look_alike():
    """More than the styles of restyle.py differ at least: a LoRA that learns a style half must still be told from its neighbours."""
    pictures = [Image.open(path) for path in sorted(PICTURES.glob("*.png"))[::32]]
    drawn = {style: np.stack([np.asarray(restyle.STYLES[style](picture), np.float32) for picture in pictures]) for style in STYLES}
    assert [pair for pair in combinations(STYLES, 2) if np.abs(drawn[pair[0]] - drawn[pair[1]]).mean() < 16] == []


# The story, against a control plane whose answers are given in advance.


@pytest.fixture
def server() -> Iterator[FakeServer]:
    server = FakeServer()
    yield server
    server.stop()


@pytest.fixture
def build(tmp_path: Path, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(demo_batch, "BUILD", tmp_path)
    monkeypatch.setattr(demo_batch, "STYLES", ("sepia", "ink"))
    monkeypatch.setattr(demo_batch, "serve", lambda *_, **__: server.address)
    return tmp_path


def trained(build: Path, style: str) -> pb.TrainingJob:
    """A job with a sample picture in its artifact, as the trainer commits it."""
    picture = BytesIO()
    Image.new("RGB", (64, 64), "red").save(picture, "PNG")
    path = "samples/000.png"
    entry = {"size_bytes": len(picture.getvalue()), "sha256": hashlib.sha256(picture.getvalue()).hexdigest()}
    manifest = json.dumps({"format": "lorafleet-artifact-1", "files": {path: entry}}).encode()
    folder = build / "store" / style
    (folder / "samples").mkdir(parents=True)
    (folder / path).write_bytes(picture.getvalue())
    (folder / "manifest.json").write_bytes(manifest)
    artifact = pb.Artifact(uri=folder.as_uri(), manifest_sha256=hashlib.sha256(manifest).hexdigest())
    times = {"create_time": Timestamp(seconds=100), "end_time": Timestamp(seconds=460)}
    return a_job(style, "SUCCEEDED", step=150, artifact=artifact, attempts=[pb.Attempt(run="run-a", pack_size=2)], **times)


def play(server: FakeServer, *jobs: pb.TrainingJob) -> int:
    server.answers("create_batch", a_batch("styles"))
    server.answers("get_batch", a_batch("styles"))
    server.answers("watch_batch", [batch_event(str(number), job) for number, job in enumerate(jobs)])
    server.answers("list_batch_jobs", batch_pb.ListBatchJobsResponse(training_jobs=jobs))
    with Servers(log_dir=demo_batch.BUILD) as servers:
        return demo_batch.run("file", servers)


def test_demo_leaves_a_sheet_a_report_and_every_artifact(server: FakeServer, build: Path, capsys: pytest.CaptureFixture[str]):
    assert play(server, trained(build, "sepia"), trained(build, "ink")) == 0
    report = json.loads((build / "report.json").read_text())
    assert (report["packs"], report["wall_seconds"], report["styles_per_hour"]) == (1, 360.0, 20.0)
    assert [style["steps"] for style in report["styles"]] == [150, 150]
    assert (build / "sheet.png").is_file()
    assert (build / "adapters" / "ink" / "manifest.json").is_file()
    assert "2 styles in 1 pack, 360 s: 20 an hour" in capsys.readouterr().err


def test_a_style_that_fails_fails_the_demo_and_is_in_the_report(server: FakeServer, build: Path):
    failed = a_job("ink", "FAILED", reason="LOSS_NOT_FINITE", message="at step 3")
    assert play(server, trained(build, "sepia"), failed) == 1
    reasons = [style["reason"] for style in json.loads((build / "report.json").read_text())["styles"]]
    assert reasons == ["", "LOSS_NOT_FINITE"]


def test_a_batch_that_is_refused_fails_the_demo(server: FakeServer, build: Path):
    refusal = Refusal(code_pb2.INVALID_ARGUMENT, "no", violations={"items[0].dataset.uri": "is empty"})
    for method in ("create_batch", "get_batch"):
        server.answers(method, refusal)
    with Servers(log_dir=build) as servers:
        assert demo_batch.run("file", servers) == 1
    assert not (build / "report.json").exists()
