"""Reports to several servers at once: when the one that takes them is gone, another does, and nothing is lost or doubled."""

from lorafleet.errors import RunFailed
from tests.service.serving import until
from tests.trainer.test_report import JOB, ControlPlane, serve
from trainer.report import Address, Reporter


def test_when_a_server_is_gone_the_other_address_takes_the_reports():
    plane = ControlPlane()  # both servers see one database
    first, first_port = serve(plane)
    second, second_port = serve(plane)
    address = Address("run-1", f"ipv4:127.0.0.1:{first_port},127.0.0.1:{second_port}", "s3cret", interval_s=0.05)
    with Reporter(address, source="driver") as reports:
        reports.progress(JOB, phase="training", step=1)
        until(lambda: plane.steps() == [1], 10, "the first report")
        first.stop(None).wait()
        reports.progress(JOB, phase="training", step=2)
        until(lambda: plane.steps() == [1, 2], 30, "the report to the other server")
        second.stop(None).wait()
        first, _ = serve(plane, first_port)
        reports.failed(JOB, RunFailed("no", reason="LOSS_NOT_FINITE"))
        assert reports.close(timeout_s=30)
    first.stop(None)
    assert [end.reason for end in plane.ends()] == ["LOSS_NOT_FINITE"]
    assert plane.steps() == [1, 2]
