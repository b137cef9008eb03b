"""Reports: nothing is lost while the control plane is away, directives are heard, a replaced run stops."""

from collections.abc import Iterator
from concurrent import futures

import grpc
import pytest

from lorafleet.errors import RunFailed
from lorafleet.v1 import report_service_pb2 as pb
from lorafleet.v1 import report_service_pb2_grpc as rpc
from lorafleet.v1.training_service_pb2 import Artifact
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
        return pb.ReportResponse(acked_sequence=self._acked.get(request.source, 0), directives=directives, next_report_s=0.05)

    def steps(self) -> list[int]:
        return [event.progress.step for event in self.events if event.HasField("progress")]

    def ends(self) -> list[pb.StyleEnded]:
        return [event.ended for event in self.events if event.HasField("ended")]


def serve(plane: ControlPlane, port: int = 0) -> tuple[grpc.Server, int]:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    rpc.add_ReportServiceServicer_to_server(plane, server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
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


def test_a_replaced_run_stops_itself(plane: ControlPlane, port: int):
    plane.stale = True
    with reporter(port) as reports, pytest.raises(StaleAttempt):
        until(lambda: reports.must_stop(JOB), 10, "the refusal")


def test_the_token_is_never_shown():
    assert "s3cret" not in repr(Address("run-1", "127.0.0.1:1", "s3cret"))
