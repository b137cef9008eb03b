"""Reports: nothing is lost while the control plane is away, directives are heard, a replaced run stops."""

import json
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest

from lorafleet.contract.run_manifest import RunManifest, Style
from lorafleet.errors import RunFailed
from lorafleet.spec import BaseModelSpec, DatasetSpec, Spec
from lorafleet.v1 import report_service_pb2 as pb
from lorafleet.v1 import report_service_pb2_grpc as rpc
from lorafleet.v1.training_service_pb2 import Artifact
from service.backends.ray_head import free_ports
from tests.certificates import Authority, Pair, server_pair
from tests.service.serving import until
from trainer.report import Address, Reporter, StaleAttempt

JOB = "tenants/acme/jobs/one"


class ControlPlane(rpc.ReportServiceServicer):
    """Applies every event once, by source and sequence."""

    def __init__(self) -> None:
        self.events: list[pb.RunEvent] = []
        self.tokens: set[str] = set()
        self.stop = False
        self.stale = False
        self.lose_answers = 0
        self.newer_token = ""
        self.joining: list[pb.JoiningStyle] = []
        self._acked: dict[str, int] = {}

    def Report(self, request: pb.ReportRequest, context: grpc.ServicerContext) -> pb.ReportResponse:
        self.tokens |= {str(value) for key, value in context.invocation_metadata() if key == "authorization"}
        if self.stale:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "STALE_ATTEMPT")
        for event in request.events:
            if event.sequence > self._acked.get(request.source, 0):
                self._acked[request.source] = event.sequence
                self.events.append(event)
        if self.lose_answers:
            self.lose_answers -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "the answer is lost, the events are not")
        directives = [pb.Directive(job=JOB, action=pb.DIRECTIVE_ACTION_STOP)] if self.stop else []
        return pb.ReportResponse(
            acked_sequence=self._acked.get(request.source, 0),
            directives=directives,
            next_report_s=0.05,
            token=self.newer_token,
            joining=self.joining,
        )

    def steps(self) -> list[int]:
        return [event.progress.step for event in self.events if event.HasField("progress")]

    def ends(self) -> list[pb.StyleEnded]:
        return [event.ended for event in self.events if event.HasField("ended")]


def serve(plane: ControlPlane, port: int = 0, *, pair: Pair | None = None) -> tuple[grpc.Server, int]:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    rpc.add_ReportServiceServicer_to_server(plane, server)
    if pair is None:
        port = server.add_insecure_port(f"127.0.0.1:{port}")
    else:
        tls = grpc.ssl_server_credentials([(pair.key.read_bytes(), pair.cert.read_bytes())])
        port = server.add_secure_port(f"127.0.0.1:{port}", tls)
    server.start()
    return server, port


@pytest.fixture
def plane() -> ControlPlane:
    return ControlPlane()


@pytest.fixture
def port(plane: ControlPlane) -> Iterator[int]:
    server, port = serve(plane)
    yield port
    server.stop(None)


def reporter(port: int) -> Reporter:
    return Reporter(Address("run-1", f"127.0.0.1:{port}", "s3cret", interval_s=0.05), source="worker-0")


def test_events_arrive_once_and_in_order_with_the_runs_token(plane: ControlPlane, port: int):
    with reporter(port) as reports:
        reports.progress(JOB, phase="training", step=1, loss=0.5)
        until(lambda: plane.steps() == [1], 10, "the first report")
        reports.resumed(JOB, 7)
        reports.succeeded(JOB, 9, Artifact(uri="file:///a", manifest_sha256="00"))
        assert reports.close(timeout_s=10)
    assert [event.WhichOneof("event") for event in plane.events] == ["progress", "resumed", "ended"]
    assert plane.tokens == {"Bearer s3cret"}


def test_a_lost_answer_does_not_double_an_event(plane: ControlPlane, port: int):
    plane.lose_answers = 3
    with reporter(port) as reports:
        reports.failed(JOB, RunFailed("no", reason="LOSS_NOT_FINITE"))
        assert reports.close(timeout_s=20)
    assert [end.reason for end in plane.ends()] == ["LOSS_NOT_FINITE"]


def test_while_the_control_plane_is_away_the_end_is_kept_and_only_the_newest_progress(plane: ControlPlane):
    server, port = serve(plane)
    server.stop(None).wait()
    with reporter(port) as reports:
        for step in range(1, 500):
            reports.progress(JOB, phase="training", step=step)
        reports.stopped(JOB, 499)
        server, _ = serve(plane, port)
        assert reports.close(timeout_s=30)
    server.stop(None)
    assert plane.steps()[-1] == 499
    assert len(plane.steps()) <= 3
    assert [end.outcome for end in plane.ends()] == [pb.STYLE_OUTCOME_STOPPED]


def test_a_stop_is_heard(plane: ControlPlane, port: int):
    with reporter(port) as reports:
        assert not reports.must_stop(JOB)
        plane.stop = True
        until(lambda: reports.must_stop(JOB), 10, "the directive")
        assert not reports.must_stop("tenants/acme/jobs/other")


def test_a_joiner_whose_spec_is_not_understood_fails_alone_and_once(plane: ControlPlane, port: int):
    spec = Spec(base_model=BaseModelSpec(uri="file:///base"), dataset=DatasetSpec(uri="file:///pictures"))
    good = Style(job="tenants/acme/jobs/good", spec=spec, output_uri="file:///out")
    newer = json.loads(good.model_dump_json())
    newer["spec"]["training"] |= {"field_of_next_year": "secret-value", "max_steps": "secret-value"}
    plane.joining = [
        pb.JoiningStyle(job="tenants/acme/jobs/newer", style_json=json.dumps(newer)),
        pb.JoiningStyle(job=good.job, style_json=good.model_dump_json()),
    ]
    with reporter(port) as reports:
        until(lambda: [style.job for style in reports.joining()] == [good.job], 10, "the joiner that is understood")
        until(lambda: bool(plane.ends()), 10, "the end of the other")
        reports.progress(JOB, phase="training", step=1)
        until(lambda: plane.steps() == [1], 10, "a report after that")
    assert [(end.outcome, end.reason, end.retryable) for end in plane.ends()] == [(pb.STYLE_OUTCOME_FAILED, "INVALID_SPEC", False)]
    assert "field_of_next_year" in plane.ends()[0].message
    assert "secret-value" not in plane.ends()[0].message


def test_reports_go_on_after_one_that_broke_unforeseen(plane: ControlPlane, port: int, monkeypatch: pytest.MonkeyPatch):
    broken = iter([True])

    def hear_next(_self: Reporter, _response: pb.ReportResponse) -> None:
        if next(broken, False):
            raise RuntimeError("never seen before")

    monkeypatch.setattr(Reporter, "_hear_next", hear_next)
    with reporter(port) as reports:
        until(lambda: bool(plane.tokens), 10, "the report that breaks")
        reports.progress(JOB, phase="training", step=1)
        until(lambda: plane.steps() == [1], 10, "a report after that")


def test_a_run_reports_past_a_proxy_that_would_see_its_token(plane: ControlPlane, port: int, monkeypatch: pytest.MonkeyPatch):
    """A proxy is for the way out. In plaintext it would read the token, on loopback or not: `grpc_proxy` is gRPC's own name for it."""
    [nobody] = free_ports(1)
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{nobody}")
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    for target in (
        f"127.0.0.1:{port}",
        f"ipv4:127.0.0.1:{port},127.0.0.1:{nobody}",
    ):  # several addresses: not only loopback, for all we know
        with Reporter(Address("run-1", target, "s3cret", interval_s=0.05), "driver") as reporter:
            reporter.progress(JOB, step=1)
            assert reporter.flush(timeout_s=20), target


def test_reports_that_fail_are_logged_and_so_is_their_end(plane: ControlPlane, port: int, caplog: pytest.LogCaptureFixture):
    plane.lose_answers = 3
    with caplog.at_level("INFO", logger="lorafleet.report"), reporter(port) as speaks:
        speaks.progress(JOB, step=1)
        assert speaks.flush(timeout_s=20)
    told = [record.getMessage() for record in caplog.records]
    assert sum("UNAVAILABLE: the answer is lost" in each for each in told) == 1, "each of them, or none"
    assert any("answers again" in each for each in told)
    assert "s3cret" not in caplog.text


def test_a_replaced_run_stops_itself(plane: ControlPlane, port: int):
    plane.stale = True
    with reporter(port) as reports, pytest.raises(StaleAttempt):
        until(lambda: reports.must_stop(JOB), 10, "the refusal")


def test_the_token_is_never_shown():
    assert "s3cret" not in repr(Address("run-1", "127.0.0.1:1", "s3cret"))


def test_a_newer_token_is_reported_with_from_then_on(plane: ControlPlane, port: int):
    plane.newer_token = "newer"
    with reporter(port):
        until(lambda: plane.tokens == {"Bearer s3cret", "Bearer newer"}, 10, "the newer token")
        plane.newer_token = ""
        plane.tokens.clear()
        until(lambda: bool(plane.tokens), 10, "another report")
    assert plane.tokens == {"Bearer newer"}


def test_a_run_reports_over_tls_to_whom_its_manifests_authority_has_signed(plane: ControlPlane, tmp_path: Path):
    authority = Authority(tmp_path)
    server, port = serve(plane, pair=server_pair(authority))
    manifest = RunManifest(
        run="run-1",
        attempt=1,
        pack=(),
        cache_uri="file:///cache",
        report_address=f"127.0.0.1:{port}",
        report_tls=True,
        report_tls_ca=authority.file.read_text(),
        storage_dir="/storage",
    )
    address = Address.of(RunManifest.model_validate_json(manifest.model_dump_json()), None, token="s3cret")
    with Reporter(address, source="driver") as reports:
        reports.progress(JOB, phase="training", step=1)
        assert reports.flush(timeout_s=20)
    assert plane.steps() == [1]
    server.stop(None)


def test_a_run_tells_nothing_to_a_control_plane_of_another_authority(plane: ControlPlane, tmp_path: Path):
    server, port = serve(plane, pair=server_pair(Authority(tmp_path, "impostor")))
    trusted = Authority(tmp_path).file.read_text()
    with Reporter(Address("run-1", f"127.0.0.1:{port}", "s3cret", tls=True, tls_ca=trusted, interval_s=0.05), source="driver") as reports:
        reports.progress(JOB, phase="training", step=1)
        assert not reports.flush(timeout_s=2)
    assert not plane.tokens
    server.stop(None)
