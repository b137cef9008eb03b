"""The log: every line says what it is about, JSON is one object a line, and no secret gets through."""

import asyncio
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime

import grpc
import pytest

from lorafleet.control_characters import is_harmless
from lorafleet.errors import Unavailable
from lorafleet.v1 import training_service_pb2 as pb
from service.access.api_tokens import new_token
from service.access.identity import Identity, current_identity
from service.core import log_context
from service.core.wakeups import Bell
from service.observability.health import Pulse
from service.observability.log_lines import BLANK, JsonLines, LogFormat, LogLevel, TextLines, redacted, set_up
from service.reconcile import launch, loop, observe, stop
from service.runs.tokens import RunTokens
from tests.service.api.conftest import api  # noqa: F401 (a fixture)
from tests.service.api.served import Api
from tests.service.world import World


class Kept(logging.Handler):
    """Formats as the server does, when the server does: what a line is about is known at that moment alone."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(formatter)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))

    def about(self, message: str) -> dict[str, str]:
        """The first line with that in its message."""
        return next(line for line in map(json.loads, self.lines) if message in line["message"])


@pytest.fixture
def kept() -> Iterator[Kept]:
    handler = Kept(JsonLines())
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield handler
    root.removeHandler(handler)
    root.setLevel(before)


SECRETS = {
    "bearer": ("authorization: Bearer abc.def-ghi", "abc.def-ghi"),
    "jwt": ("token eyJhbGciOiJub25lIn0.eyJzdWIiOiJtZSJ9.c2ln was refused", "eyJzdWIiOiJtZSJ9"),
    "api token": ((text := new_token().text), text.rsplit("_", 1)[1]),
    "run token": ((run := RunTokens(b"k" * 32).of("run-0123456789abcdef", datetime.now(UTC))), run.rsplit(".", 1)[1]),
    "database url": ("postgresql://lorafleet:hunter2hunter2@db/lorafleet", "hunter2hunter2"),
    "presigned url": ("https://b/k?X-Amz-Credential=AKIA123&X-Amz-Signature=0a1b2c3d", "0a1b2c3d"),
    "a setting": ("{'aws_secret_access_key': 'wJalrXUtnFEMI'}", "wJalrXUtnFEMI"),
    "environment style": ("AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI", "wJalrXUtnFEMI"),
    "private key": ("-----BEGIN PRIVATE KEY-----\nMIIEvQ\n-----END PRIVATE KEY-----", "MIIEvQ"),
}


@pytest.mark.parametrize("kind", SECRETS)
def test_secrets_are_blanked_out(kind: str):
    text, secret = SECRETS[kind]
    assert secret in text
    assert secret not in redacted(text)
    assert BLANK in redacted(text)


def test_the_secrets_that_this_process_was_given_are_blanked_out_wherever_they_stand():
    environment = {"AWS_SECRET_ACCESS_KEY": "q1w2e3r4t5"}
    assert redacted("signed with q1w2e3r4t5!", environment) == f"signed with {BLANK}!"


def test_what_is_no_secret_stays():
    told = "run-0123456789abcdef takes 3 of the queue: s3://bucket/key at http://ray:8265; resume token is too old"
    assert redacted(told) == told


@pytest.mark.parametrize("formatter", [TextLines(), JsonLines()])
def test_a_traceback_tells_no_secret_either(formatter: logging.Formatter):
    try:
        raise ValueError("refused: Bearer abc.def")
    except ValueError as error:
        record = logging.LogRecord("x", logging.ERROR, __file__, 1, "failed for %s", ("Bearer abc.def",), (type(error), error, None))
    assert "abc.def" not in formatter.format(record)


def test_json_is_one_object_a_line_with_the_traceback_as_a_field(kept: Kept):
    log = logging.getLogger("test")
    try:
        raise RuntimeError("two\nlines")
    except RuntimeError:
        log.exception("it\nfailed")
    [line] = [line for line in kept.lines if "failed" in line]
    assert "\n" not in line
    told = json.loads(line)
    assert (told["level"], told["logger"], told["message"]) == ("error", "test", "it\nfailed")
    assert told["traceback"].endswith("RuntimeError: two\nlines")


def test_a_callers_name_cannot_write_a_line_of_our_log():
    with log_context.scope(job="x\n2026 ERROR forged"):
        text = TextLines().format(logging.LogRecord("x", logging.INFO, __file__, 1, "told", (), None))
    assert "\n" not in text


HOSTILE = "x\x1b]0;title\x07\x9b2J\u202e\r\n2026-11-30 12:00:00,000 ERROR service: forged"


def test_no_message_or_traceback_begins_a_line_or_does_anything_to_a_terminal():
    try:
        raise ValueError(HOSTILE)
    except ValueError as error:
        record = logging.LogRecord("x", logging.ERROR, __file__, 1, "failed: %s", (HOSTILE,), (type(error), error, None))
    first, *others = TextLines().format(record).split("\n")
    assert first.endswith("failed: x\\x1b]0;title\\x07\\x9b2J\\u202e")
    assert len(others) >= 3
    assert all(line.startswith("    ") for line in others)
    assert all(map(is_harmless, others))


def test_nothing_in_json_does_anything_to_a_terminal_either():
    line = JsonLines().format(logging.LogRecord("x", logging.ERROR, __file__, 1, "%s", (HOSTILE,), None))
    assert is_harmless(line)
    assert json.loads(line)["message"] == HOSTILE


def test_what_is_bound_ends_with_its_scope():
    with log_context.scope(loop="admit"):
        log_context.bind(run="run-1")
        assert log_context.bound() == {"loop": "admit", "run": "run-1"}
    assert log_context.bound() == {}


def test_the_principal_is_told():
    token = current_identity.set(Identity(principal="alice"))
    try:
        line = json.loads(JsonLines().format(logging.LogRecord("x", logging.INFO, __file__, 1, "told", (), None)))
    finally:
        current_identity.reset(token)
    assert line["principal"] == "alice"


async def test_lines_of_a_loop_name_the_run_and_its_jobs(kept: Kept, world: World):
    stopping = asyncio.Event()

    async def all_steps() -> bool:
        worked = await launch.launch_once(world.tools) or await observe.observe_once(world.tools) or await stop.stop_once(world.tools)
        if not worked:
            stopping.set()
        return worked

    name = await world.submit("a")
    from service.reconcile.admit import admit_once

    await admit_once(world.tools)
    await loop.run(loop.Loop(name="test", step=all_steps), Bell(), stopping, Pulse())
    line = kept.about("launched run-")
    assert line["loop"] == "test"
    assert line["run"] == world.backend.launches[0]
    assert line["jobs"] == str(name)


async def test_lines_of_a_call_name_its_method_peer_principal_job_and_trace(kept: Kept, api: Api):  # noqa: F811
    request = api.request(training_job_id="a", request_id="0e8f6a0c-0000-4000-8000-000000000001")
    await api.jobs.CreateTrainingJob(request, metadata=(("traceparent", f"00-{'ab' * 16}-{'cd' * 8}-00"),))
    line = kept.about("accepted tenants/acme/jobs/a")
    assert line["method"] == "TrainingService/CreateTrainingJob"
    assert line["tenant"] == "tenants/acme"
    assert line["request_id"] == "0e8f6a0c-0000-4000-8000-000000000001"
    assert line["peer"].startswith("ipv4:127.0.0.1")
    assert line["principal"] == "anonymous"
    assert line["trace_id"] == "ab" * 16
    await api.jobs.CancelTrainingJob(pb.CancelTrainingJobRequest(name="tenants/acme/jobs/a"))
    assert kept.about("cancelling")["job"] == "tenants/acme/jobs/a"


async def test_calls_do_not_inherit_from_each_other(kept: Kept, api: Api):  # noqa: F811
    with pytest.raises(grpc.aio.AioRpcError):
        await api.jobs.GetTrainingJob(pb.GetTrainingJobRequest(name="tenants/acme/jobs/none"))
    await api.jobs.CreateTrainingJob(api.request(training_job_id="b"))
    assert "job" not in kept.about("accepted tenants/acme/jobs/b")


async def test_a_failing_step_names_its_loop(kept: Kept):
    stopping = asyncio.Event()

    async def step() -> bool:
        stopping.set()
        raise Unavailable("the store is away")

    await loop.run(loop.Loop(name="logs", step=step, every_s=0), Bell(), stopping, Pulse())
    assert kept.about("the store is away")["loop"] == "logs"


def test_set_up_chooses_the_format(capsys: pytest.CaptureFixture[str]):
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        set_up(LogLevel.INFO, LogFormat.JSON)
        logging.getLogger("x").info("told")
        logging.getLogger("httpx").info("too much")
    finally:
        root.handlers[:], root.level = handlers, level
        logging.getLogger("httpx").setLevel(logging.NOTSET)
    [line] = capsys.readouterr().err.splitlines()
    assert json.loads(line)["message"] == "told"
