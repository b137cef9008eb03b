"""`lorafleet batch`: what it sends, what it prints, and the exit codes that scripts rely on."""

import hashlib
import json
import sys
from io import BytesIO
from pathlib import Path

import pytest
import yaml
from google.rpc import code_pb2
from PIL import Image
from typer.testing import CliRunner, Result

from lorafleet.cli import app
from lorafleet.v1 import batch_service_pb2 as batch_pb
from lorafleet.v1 import training_service_pb2 as pb
from tests.lorafleet.fake_server import FakeServer, Refusal
from tests.lorafleet.jobs import a_batch, a_job, batch_event
from tests.lorafleet.test_download import FILES, manifest_of

BATCH = {
    "batch_id": "tonight",
    "defaults": {"base_model": {"uri": "file:///base"}},
    "items": [{"job_id": "fox", "dataset": {"uri": "file:///d/fox"}}, {"dataset": {"uri": "file:///d/cat"}}],
}


@pytest.fixture(autouse=True)
def environment(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAFLEET_SERVER", server.address)
    monkeypatch.setenv("LORAFLEET_TENANT", "acme")


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "styles.yaml"
    path.write_text(yaml.safe_dump(BATCH))
    return str(path)


def lorafleet(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["batch", *arguments])


def artifact_in(store: Path, files: dict[str, bytes]) -> pb.Artifact:
    for path, data in {**files, "manifest.json": manifest_of(files)}.items():
        (store / path).parent.mkdir(parents=True, exist_ok=True)
        (store / path).write_bytes(data)
    return pb.Artifact(uri=store.as_uri(), manifest_sha256=hashlib.sha256(manifest_of(files)).hexdigest())


# Submit and plan.


def test_submit_sends_the_file_and_prints_the_batch(server: FakeServer, file: str) -> None:
    server.answers("create_batch", a_batch(QUEUED=2))
    result = lorafleet("submit", file, "--set", "training.max_steps=50", "-o", "json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["name"] == "tenants/acme/batches/tonight"
    ((header, items),) = server.requests
    assert (header.header.parent, header.header.batch_id) == ("tenants/acme", "tonight")
    assert header.header.defaults.training.max_steps == 50
    assert [item.job_id for item in items.items.items] == ["fox", ""]


def test_submit_of_folders_makes_an_item_of_each(server: FakeServer, tmp_path: Path) -> None:
    for name in ("Fox", "Cat"):
        (tmp_path / "styles" / name).mkdir(parents=True)
    server.answers("create_batch", a_batch())
    places = ("--each", f"{(tmp_path / 'styles').as_uri()}/*/", "--set", "base_model.uri=file:///base")
    own = ("--set", "dataset.trigger_phrase={name} style", "--job-ids", "{name}-2")
    result = lorafleet("submit", *places, *own, "--batch-id", "folders")
    assert result.exit_code == 0, result.output
    ((header, items),) = server.requests
    assert header.header.batch_id == "folders"
    assert [(item.job_id, item.spec.dataset.trigger_phrase, item.spec.labels["folder"]) for item in items.items.items] == [
        ("cat-2", "Cat style", "Cat"),
        ("fox-2", "Fox style", "Fox"),
    ]


def test_invalid_batch_is_told_in_full_and_never_sent(server: FakeServer, file: str) -> None:
    result = lorafleet("submit", file, "--set", "adapter.rank=0", "--batch-id", "NO")
    assert result.exit_code == 2
    assert "defaults.adapter.rank" in result.stderr
    assert server.requests == []


def test_what_the_server_refuses_is_told_by_its_place_in_the_file(server: FakeServer, tmp_path: Path) -> None:
    path = tmp_path / "styles.csv"
    path.write_text("base_model.uri,dataset.uri\nfile:///b,file:///d/a\nfile:///b,file:///d/b\n")
    server.answers("create_batch", Refusal(code_pb2.INVALID_ARGUMENT, "1", "INVALID_SPEC", {"items[1].dataset.uri": "the folder is empty"}))
    result = lorafleet("submit", str(path))
    assert result.exit_code == 2
    assert "row 2 (line 3): dataset.uri: the folder is empty" in result.stderr


def test_validate_only_asks_the_server_and_submits_nothing(server: FakeServer, file: str) -> None:
    server.answers("create_batch", a_batch())
    result = lorafleet("submit", file, "--validate-only")
    assert result.exit_code == 0
    assert server.requests[0][0].header.validate_only
    assert result.stdout == ""


@pytest.mark.parametrize("arguments", [(), ("styles.yaml", "--each", "s3://styles/*/"), ("styles.yaml", "--job-ids", "{name}")])
@pytest.mark.parametrize("command", ["submit", "plan"])
def test_neither_file_nor_folders_or_both_or_ids_for_a_file_is_wrong_usage(command: str, arguments: tuple[str, ...]) -> None:
    result = lorafleet(command, *arguments)
    assert result.exit_code == 2
    assert "--each" in result.stderr


@pytest.mark.parametrize(("state", "code"), [("SUCCEEDED", 0), ("FAILED", 3), ("CANCELLED", 4)])
def test_submit_and_wait_exits_by_the_worst_outcome(server: FakeServer, file: str, state: str, code: int) -> None:
    server.answers("create_batch", a_batch(QUEUED=2))
    server.answers("get_batch", a_batch(QUEUED=2))
    last = a_job("fox", state, step=9, reason="NAN_LOSS", message="the end")
    server.answers("watch_batch", [batch_event("1", a_job("cat", "SUCCEEDED")), batch_event("2"), batch_event("3", last)])
    result = lorafleet("submit", file, "--wait")
    assert result.exit_code == code, result.output
    assert f"{1 + (code == 0)} of 2 styles succeeded" in result.stdout
    assert (f"fox  {state}  the end" in result.stdout) == (code != 0)
    assert ("batch retry tonight" in result.stderr) == (state == "FAILED")


def test_plan_shows_each_pack_with_its_styles(server: FakeServer, file: str) -> None:
    pack = batch_pb.PlannedPack(items=[1, 0], memory_bytes=3 * 2**30, arithmetic="1 + 2", key="sd1 fp32", closed_by="NO_MORE_ITEMS")
    server.answers("plan_batch", batch_pb.PlanBatchResponse(packs=[pack], memory_limit_bytes=8 * 2**30))
    result = lorafleet("plan", file)
    assert result.exit_code == 0, result.output
    heading, row = result.stdout.splitlines()
    assert heading.split()[:3] == ["PACK", "STYLES", "MEMORY"]
    assert " ".join(row.split()) == "1 2 3.00 GiB no_more_items sd1 fp32 1, fox"
    assert result.stderr == "2 styles in 1 pack; a worker has 8.00 GiB\n"
    assert json.loads(lorafleet("plan", file, "-o", "json").stdout)["packs"][0]["arithmetic"] == "1 + 2"


# Looking at batches.


def test_watch_for_programs_prints_every_change_as_a_line_of_json(server: FakeServer) -> None:
    server.answers("get_batch", a_batch(num_jobs=1))
    server.answers("watch_batch", [batch_event("1", a_job(step=1)), batch_event("2"), batch_event("3", a_job(state="SUCCEEDED", step=2))])
    result = lorafleet("watch", "tonight", "-o", "json")
    assert [json.loads(line)["progress"]["step"] for line in result.stdout.splitlines()] == [1, 2]


def test_interrupted_watch_leaves_the_batch_alone_and_says_so(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    server.answers("get_batch", a_batch())
    server.answers("watch_batch", [batch_event("1", a_job())])
    monkeypatch.setattr("lorafleet.batch.view.BatchLines.__call__", interrupt)
    result = lorafleet("watch", "tonight")
    assert result.exit_code == 130
    assert "tonight goes on" in result.stderr
    assert "CancelBatchRequest" not in [type(request).__name__ for request in server.requests]


def test_list_and_get_show_counts(server: FakeServer) -> None:
    server.answers("list_batches", batch_pb.ListBatchesResponse(batches=[a_batch("a", 3, SUCCEEDED=1, RUNNING=2), a_batch("b")]))
    server.answers("get_batch", a_batch(FAILED=1, QUEUED=1))
    listed = [line.split() for line in lorafleet("list", "--limit", "1").stdout.splitlines()]
    assert listed == [["BATCH", "STYLES", "ENDED", "AGE", "STATES"], ["a", "3", "1", "1", "succeeded,", "2", "running"]]
    assert "1 failed, 1 queued" in lorafleet("get", "tonight").stdout
    assert yaml.safe_load(lorafleet("get", "tonight", "-o", "yaml").stdout)["num_jobs"] == 2


def test_jobs_of_a_batch_are_listed_by_filter(server: FakeServer) -> None:
    server.answers("list_batch_jobs", batch_pb.ListBatchJobsResponse(training_jobs=[a_job("a"), a_job("b")]))
    result = lorafleet("jobs", "tonight", "--filter", "state = RUNNING")
    assert [line.split()[:2] for line in result.stdout.splitlines()[1:]] == [["a", "RUNNING"], ["b", "RUNNING"]]
    assert server.requests[0].filter == "state = RUNNING"


@pytest.mark.parametrize(("command", "method"), [("cancel", "cancel_batch"), ("retry", "retry_failed")])
def test_cancel_and_retry_name_the_batch_and_print_it(server: FakeServer, command: str, method: str) -> None:
    server.answers(method, a_batch(QUEUED=2))
    assert "2 queued" in lorafleet(command, "tonight").stdout
    assert server.requests[0].name == "tenants/acme/batches/tonight"


@pytest.mark.parametrize("command", [("get",), ("jobs",), ("cancel",), ("retry",), ("watch",), ("report", "x"), ("download", "x")])
def test_unknown_batch_is_one_line_and_exit_code_1(server: FakeServer, command: tuple[str, ...]) -> None:
    for method in ("get_batch", "list_batch_jobs", "cancel_batch", "retry_failed"):
        server.answers(method, Refusal(code_pb2.NOT_FOUND, "there is no batch tonight", "BATCH_NOT_FOUND"))
    result = lorafleet(command[0], "tonight", *command[1:])
    assert (result.exit_code, result.stderr) == (1, "there is no batch tonight\n")


# Report and download.


def jobs_with_artifacts(tmp_path: Path) -> list[pb.TrainingJob]:
    picture = BytesIO()
    Image.new("RGB", (64, 64), "red").save(picture, "PNG")
    sheet = artifact_in(tmp_path / "store/fox", {"samples/000.png": picture.getvalue(), "a.safetensors": b"x"})
    return [a_job("fox", "SUCCEEDED", step=200, artifact=sheet), a_job("cat", "FAILED", reason="NAN_LOSS", message="no | number")]


def test_report_writes_losses_failures_and_a_sheet(server: FakeServer, tmp_path: Path) -> None:
    server.answers("get_batch", a_batch(SUCCEEDED=1, FAILED=1))
    server.answers("list_batch_jobs", batch_pb.ListBatchJobsResponse(training_jobs=jobs_with_artifacts(tmp_path)))
    folder = tmp_path / "report"
    for _ in range(2):  # over the first one
        result = lorafleet("report", "tonight", str(folder))
        assert (result.exit_code, result.stdout) == (0, f"report.json, report.md, sheet.png in {folder}\n"), result.output
    assert sorted(path.name for path in folder.iterdir()) == ["report.json", "report.md", "sheet.png"]
    assert [style["state"] for style in json.loads((folder / "report.json").read_text())["styles"]] == ["SUCCEEDED", "FAILED"]
    assert "| cat | NAN_LOSS | no \\| number |" in (folder / "report.md").read_text()
    colours = {colour: count for count, colour in Image.open(folder / "sheet.png").getcolors(maxcolors=2**20) or []}
    assert colours[255, 0, 0] == 128 * 128


def test_report_without_pillow_says_what_to_install(server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.answers("get_batch", a_batch(SUCCEEDED=1, FAILED=1))
    server.answers("list_batch_jobs", batch_pb.ListBatchJobsResponse(training_jobs=jobs_with_artifacts(tmp_path)))
    monkeypatch.setitem(sys.modules, "PIL", None)
    for name in ("lorafleet.batch.sheet", "lorafleet.contact_sheet"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    result = lorafleet("report", "tonight", str(tmp_path / "report"))
    assert result.exit_code == 0, result.output
    assert "pip install 'lorafleet[report]'" in result.stderr.replace("\n", " ")
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == ["report.json", "report.md"]


def test_report_of_pictures_that_are_gone_says_so_and_goes_on(server: FakeServer, tmp_path: Path) -> None:
    jobs = jobs_with_artifacts(tmp_path)
    (tmp_path / "store/fox/samples/000.png").write_bytes(b"no picture")
    server.answers("get_batch", a_batch())
    server.answers("list_batch_jobs", batch_pb.ListBatchJobsResponse(training_jobs=jobs))
    result = lorafleet("report", "tonight", str(tmp_path / "report"))
    assert result.exit_code == 0, result.output
    assert "no pictures of fox: samples/000.png" in result.stderr


def test_download_brings_every_artifact_once_and_goes_on_after_a_bad_one(server: FakeServer, tmp_path: Path) -> None:
    good, bad, later = (artifact_in(tmp_path / "store" / name, FILES) for name in ("good", "bad", "later"))
    (tmp_path / "store/bad/README.md").unlink()
    jobs = [a_job("bad", "SUCCEEDED", artifact=bad), a_job("good", "SUCCEEDED", artifact=good), a_job("later", "RUNNING")]
    folder = tmp_path / "adapters"

    server.answers("list_batch_jobs", batch_pb.ListBatchJobsResponse(training_jobs=jobs))
    result = lorafleet("download", "tonight", str(folder))
    assert result.exit_code == 1
    assert "tenants/acme/jobs/bad: " in result.stderr
    assert result.stdout.startswith("1 of 3 adapters, 0.0 MB, verified, in ")
    assert (folder / "good/README.md").read_bytes() == FILES["README.md"]

    (tmp_path / "store/bad/README.md").write_bytes(FILES["README.md"])
    jobs[2] = a_job("later", "SUCCEEDED", artifact=later)
    server.answers("list_batch_jobs", batch_pb.ListBatchJobsResponse(training_jobs=jobs))
    again = lorafleet("download", "tonight", str(folder), "-o", "json")
    assert again.exit_code == 0, again.output
    assert [(one["job"][-5:], one["is_new"]) for one in json.loads(again.stdout)] == [("s/bad", True), ("/good", False), ("later", True)]
    assert sorted(path.name for path in folder.iterdir()) == ["bad", "good", "later"]


def test_failures_of_one_kind_are_told_once_with_the_names_of_all(server: FakeServer) -> None:
    alike = [a_job(id, "FAILED", message="the bucket is away") for id in ("fox", "hare", "owl")]
    server.answers("get_batch", a_batch(num_jobs=4))
    server.answers(
        "watch_batch", [batch_event(str(number), job) for number, job in enumerate([*alike, a_job("cat", "FAILED", message="no")])]
    )
    told = lorafleet("watch", "tonight").stdout
    assert told.count("the bucket is away") == 1
    assert "  likewise hare, owl\n" in told
    assert "cat  FAILED  no" in told
