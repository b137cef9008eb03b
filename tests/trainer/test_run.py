"""The driver: what it says when it ends before it can report."""

import errno

import pytest

from service.backends import driver_message
from tests.refusing_store import refusing_store
from trainer import style_isolation
from trainer.run import main

RAYS_WORDS = "Job entrypoint command failed with exit code 1, last available logs (truncated to 20,000 chars):\n"


@pytest.mark.parametrize(("code", "reason"), [("ExpiredToken", "STORE_CREDENTIALS_EXPIRED"), ("InvalidArgument", "DRIVER_EXITED")])
def test_its_last_line_tells_the_backend_whether_it_waits_for_the_operators(
    code: str, reason: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    with refusing_store(400, code) as env:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        assert main(["--manifest", "s3://artifacts/runs/run-1/run.json"]) == 1
    said = capsys.readouterr().out
    assert "s3://artifacts/runs/run-1/run.json" in driver_message.last_lines(RAYS_WORDS + said)
    assert driver_message.reason(RAYS_WORDS + said) == reason


@pytest.mark.parametrize(
    "line", ["lorafleet run: MADE_UP: x", "[tenants/acme/jobs/x] the run failed: lorafleet run: DISK_FULL: x", "DISK_FULL: x", "Traceback"]
)
def test_no_other_last_words_let_work_wait(line: str):
    assert driver_message.reason(f"{RAYS_WORDS}{line}") == "DRIVER_EXITED"


def test_a_disk_that_fills_up_under_a_style_is_the_operators():
    failed = style_isolation.failure_of(OSError(errno.ENOSPC, "No space left on device"), "writing")
    assert (failed.reason, failed.retryable) == ("DISK_FULL", True)
