"""The command line: what it prints, and the exit codes that scripts rely on."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from google.rpc import code_pb2
from typer.testing import CliRunner, Result

from lorafleet import spec_proto
from lorafleet.cli import app
from lorafleet.commands import extensions
from lorafleet.v1 import training_service_pb2 as pb
from tests.lorafleet.fake_server import FakeServer, Refusal
from tests.lorafleet.jobs import a_batch, a_job, event
from tests.lorafleet.specs import SMALLEST
from tests.lorafleet.test_download import FILES, manifest_of

NOT_FOUND = Refusal(code_pb2.NOT_FOUND, "tenants/acme/jobs/fox does not exist", "JOB_NOT_FOUND")


@pytest.fixture(autouse=True)
def environment(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAFLEET_SERVER", server.address)
    monkeypatch.setenv("LORAFLEET_TENANT", "acme")


@pytest.fixture
def spec_file(tmp_path: Path) -> str:
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(SMALLEST))
    return str(path)


def lorafleet(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_submit_sends_the_file_with_overrides_and_prints_the_job(server: FakeServer, spec_file: str) -> None:
    server.answers("create", a_job())
    result = lorafleet("submit", spec_file, "--set", "adapter.rank=4", "--job-id", "fox", "-o", "json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["name"] == "tenants/acme/jobs/fox"
    (request,) = server.requests
    assert (request.parent, request.training_job_id) == ("tenants/acme", "fox")
    assert request.training_job.spec.adapter.rank == 4


def test_invalid_file_is_told_in_full_and_never_sent(server: FakeServer, spec_file: str) -> None:
    result = lorafleet("submit", spec_file, "--set", "adapter.rank=0", "--set", "training.max_steps=0")
    assert result.exit_code == 2
    assert "adapter.rank" in result.stderr
    assert "training.max_steps" in result.stderr
    assert server.requests == []


def test_refused_spec_exits_as_an_invalid_one(server: FakeServer, spec_file: str) -> None:
    server.answers("create", Refusal(code_pb2.INVALID_ARGUMENT, "1", "INVALID_SPEC", {"dataset.uri": "the bucket is missing"}))
    result = lorafleet("submit", spec_file)
    assert result.exit_code == 2
    assert "dataset.uri: the bucket is missing" in result.stderr


def test_dry_run_asks_the_server_and_submits_nothing(server: FakeServer, spec_file: str) -> None:
    server.answers("create", a_job())
    assert lorafleet("submit", spec_file, "--dry-run").exit_code == 0
    assert server.requests[0].validate_only


@pytest.mark.parametrize(("state", "code"), [("SUCCEEDED", 0), ("FAILED", 3), ("CANCELLED", 4)])
def test_submit_and_wait_exits_by_the_jobs_outcome(server: FakeServer, spec_file: str, state: str, code: int) -> None:
    server.answers("create", a_job(state="QUEUED"))
    server.answers("watch", [event("1", a_job(step=1)), event("2", a_job(state=state, step=200, message="the end"))])
    result = lorafleet("submit", spec_file, "--wait")
    assert result.exit_code == code
    assert f"fox  {state}  the end" in result.stdout


def test_watching_several_jobs_ends_when_all_have_and_exits_by_the_worst(server: FakeServer) -> None:
    server.answers("get", a_job())
    server.answers(
        "watch", [event("1", a_job("a", "SUCCEEDED")), event("2", a_job("other", "FAILED")), event("3", a_job("b", "CANCELLED"))]
    )
    result = lorafleet("watch", "a", "b")
    assert result.exit_code == 4
    assert "other" not in result.output


def test_watch_without_names_takes_what_has_not_ended(server: FakeServer) -> None:
    server.answers("list", lambda request: pb.ListTrainingJobsResponse(training_jobs=[a_job()] if "RUNNING" in request.filter else []))
    server.answers("watch", [event("1", a_job(state="SUCCEEDED"))])
    assert "fox  SUCCEEDED" in lorafleet("watch").stdout
    [listed] = [request for request in server.requests if isinstance(request, pb.ListTrainingJobsRequest)]
    assert listed.filter == "state = QUEUED OR state = ADMITTED OR state = STARTING OR state = RUNNING OR state = STOPPING"


def test_watch_for_programs_prints_every_change_as_a_line_of_json(server: FakeServer) -> None:
    server.answers("watch", [event("1", a_job(step=1)), event("2"), event("3", a_job(state="SUCCEEDED", step=2))])
    result = lorafleet("watch", "fox", "-o", "json")
    assert [json.loads(line)["progress"]["step"] for line in result.stdout.splitlines()] == [1, 2]


def test_interrupted_watch_leaves_the_job_alone_and_says_so(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    server.answers("watch", [event("1", a_job())])
    monkeypatch.setattr("lorafleet.progress_view.JobLines.__call__", interrupt)
    result = lorafleet("watch", "fox")
    assert result.exit_code == 130
    assert "fox goes on" in result.stderr
    assert [type(request).__name__ for request in server.requests] == ["WatchTrainingJobsRequest"]


@pytest.mark.parametrize("command", [("get", "fox"), ("cancel", "fox"), ("logs", "fox"), ("watch", "fox"), ("download", "fox", "x")])
def test_unknown_job_is_one_line_and_exit_code_1(server: FakeServer, command: tuple[str, ...]) -> None:
    for method in ("get", "cancel", "logs", "watch"):
        server.answers(method, NOT_FOUND)
    result = lorafleet(*command)
    assert (result.exit_code, result.stderr) == (1, "tenants/acme/jobs/fox does not exist\n")


def test_what_get_prints_as_yaml_can_be_submitted_again(server: FakeServer) -> None:
    server.answers("get", a_job())
    printed = yaml.safe_load(lorafleet("get", "fox", "-o", "yaml").stdout)
    assert printed["spec"] == spec_proto.fields(a_job().spec)
    assert printed["spec"]["training"]["seed"] == 0  # a number: plain protobuf JSON would quote it


def test_list_shows_a_row_for_each_job_and_no_more_than_asked_for(server: FakeServer) -> None:
    server.answers("list", pb.ListTrainingJobsResponse(training_jobs=[a_job("a"), a_job("b"), a_job("c")], next_page_token="2"))
    result = lorafleet("list", "--limit", "2", "--filter", "state = RUNNING")
    assert [line.split()[:2] for line in result.stdout.splitlines()[1:]] == [["a", "RUNNING"], ["b", "RUNNING"]]
    assert server.requests[0].filter == "state = RUNNING"


def test_logs_are_printed_as_they_are(server: FakeServer) -> None:
    server.answers(
        "logs", [pb.StreamTrainingJobLogsResponse(attempt=1, text="[bold]step 1\n"), pb.StreamTrainingJobLogsResponse(text="end\n")]
    )
    assert lorafleet("logs", "fox", "-f").stdout == "[bold]step 1\nend\n"
    assert server.requests[0].follow


def test_download_brings_the_committed_artifact(server: FakeServer, tmp_path: Path) -> None:
    store = tmp_path / "store"
    for path, data in {**FILES, "manifest.json": manifest_of(FILES)}.items():
        (store / path).parent.mkdir(parents=True, exist_ok=True)
        (store / path).write_bytes(data)
    artifact = pb.Artifact(uri=store.as_uri(), manifest_sha256=hashlib.sha256(manifest_of(FILES)).hexdigest())
    server.answers("get", a_job(state="SUCCEEDED", artifact=artifact))
    result = lorafleet("download", "fox", str(tmp_path / "fox"))
    assert result.exit_code == 0, result.output
    assert "2 files" in result.stdout
    assert (tmp_path / "fox/README.md").read_bytes() == FILES["README.md"]


def test_download_of_a_job_without_artifact_says_why(server: FakeServer, tmp_path: Path) -> None:
    server.answers("get", a_job(state="FAILED"))
    result = lorafleet("download", "fox", str(tmp_path / "fox"))
    assert (result.exit_code, result.stderr) == (1, "tenants/acme/jobs/fox is FAILED and has no artifact\n")


def test_validate_needs_no_server_and_shows_defaults(spec_file: str, server: FakeServer) -> None:
    assert lorafleet("validate", spec_file).exit_code == 0
    filled = yaml.safe_load(lorafleet("validate", spec_file, "-o", "yaml").stdout)
    assert filled["adapter"]["rank"] == 16
    assert lorafleet("validate", spec_file, "--set", "adapter.rank=0").exit_code == 2
    assert server.requests == []


def test_schema_is_json_schema() -> None:
    schema = json.loads(lorafleet("schema").stdout)
    assert schema["properties"]["adapter"]
    assert schema["additionalProperties"] is False


def test_wrong_usage_exits_2() -> None:
    assert lorafleet("submit").exit_code == 2
    assert lorafleet("sumbit").exit_code == 2


def test_help_tells_the_exit_codes() -> None:
    assert "3 a job failed" in lorafleet("--help").stdout


def test_serve_without_its_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "service.cli.serve", None)  # as if it, or what it needs, were not there
    result = lorafleet("serve")
    assert result.exit_code == 1
    assert "pip install 'lorafleet[service]'" in result.stderr


def test_command_of_another_package_is_found_by_its_entry_point() -> None:
    assert "serve" in extensions.names()


def test_command_line_starts_without_grpc_torch_or_ray() -> None:
    script = "import sys, lorafleet.cli; print(sorted({'grpc', 'torch', 'ray', 'sqlalchemy', 'service'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_job_that_waits_shows_its_place_and_what_it_waits_for(server: FakeServer) -> None:
    waiting = a_job(state="QUEUED", message="waits for 2 GPUs", queue_position=7)
    waiting.progress.Clear()
    server.answers("get", waiting)
    server.answers("list", pb.ListTrainingJobsResponse(training_jobs=[waiting]))
    details = lorafleet("get", "fox").stdout
    assert "place in the queue" in details
    assert "waits for 2 GPUs" in details
    assert "#7" in lorafleet("list").stdout
    server.answers("watch", [event("1", waiting), event("2", a_job(state="SUCCEEDED"))])
    assert "QUEUED #7  waits for 2 GPUs" in lorafleet("watch", "fox").stderr


def test_token_of_the_environment_or_the_command_line_is_sent(server: FakeServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server.answers("get", a_job())
    monkeypatch.setenv("LORAFLEET_TOKEN", "from-environment")
    assert lorafleet("get", "fox").exit_code == 0
    monkeypatch.delenv("LORAFLEET_TOKEN")
    (tmp_path / "token").write_text("from-file\n")
    assert lorafleet("--token-file", str(tmp_path / "token"), "get", "fox").exit_code == 0
    assert [sent["authorization"] for sent in server.metadata] == ["Bearer from-environment", "Bearer from-file"]


def test_token_that_others_could_read_on_the_way_is_not_sent() -> None:
    result = lorafleet("--token", "secret", "get", "fox", "--server", "192.0.2.1:7600")
    assert result.exit_code == 2
    assert "without TLS" in result.stderr
    assert "secret" not in result.stderr


@pytest.mark.parametrize(
    "line",
    [
        "--server {0} --tenant blue --token t get fox",
        "get --server {0} --tenant blue --token t fox",
        "get fox --server {0} --tenant blue --token t",
        "--server 127.0.0.1:1 --tenant red --token other get fox --server {0} --tenant blue --token t",
        "--token t get fox --tenant blue --server {0}",
    ],
)
def test_where_and_as_whom_may_stand_before_the_command_and_behind_it(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    for variable in ("SERVER", "TENANT", "TOKEN"):  # what is on the line counts
        monkeypatch.setenv(f"LORAFLEET_{variable}", "of-the-environment")
    server.answers("get", a_job())
    assert lorafleet(*line.format(server.address).split()).exit_code == 0
    assert server.requests[0].name == "tenants/blue/jobs/fox"
    assert server.metadata[0]["authorization"] == "Bearer t"


@pytest.mark.parametrize(
    "line",
    [
        "--server {0} --tenant blue --token t batch get b",
        "batch --server {0} --tenant blue --token t get b",
        "batch get b --server {0} --tenant blue --token t",
        "--server 127.0.0.1:1 batch --server {0} --tenant red --token t get b --tenant blue",
    ],
)
def test_they_may_stand_in_the_middle_too(server: FakeServer, line: str) -> None:
    server.answers("get_batch", a_batch())
    assert lorafleet(*line.format(server.address).split()).exit_code == 0
    assert server.requests[0].name == "tenants/blue/batches/b"
    assert server.metadata[0]["authorization"] == "Bearer t"


def test_what_one_call_was_given_is_not_the_next_ones(server: FakeServer) -> None:
    server.answers("get", a_job())
    for line in (("--tenant", "blue", "get", "fox", "--token", "t"), ("get", "fox")):
        assert lorafleet(*line).exit_code == 0
    assert [request.name for request in server.requests] == ["tenants/blue/jobs/fox", "tenants/acme/jobs/fox"]
    assert "authorization" not in server.metadata[1]


def test_every_command_that_calls_a_server_takes_credentials_behind_it() -> None:
    for path in (["get"], ["batch", "submit"], ["tenant", "create"], ["audit", "list"], ["doctor"], ["health"]):
        shown = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).stdout
        for option in ("--server", "--token", "--token-file", "--tls-ca", "--tls-cert"):
            assert option in shown, path
