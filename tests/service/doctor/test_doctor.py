"""`lorafleet doctor`: what is well is told so, what is wrong is named with what to do, and the exit code says which."""

import asyncio
import json
import socket
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from typer.testing import CliRunner

from service.backends.http import Answer, Http
from service.db.database import Database
from service.doctor import machine, stores
from service.doctor.clocks import skew
from service.doctor.command import doctor
from service.doctor.databases import check_database
from service.doctor.findings import Finding, State, run
from service.store.client import Store
from tests.service.api.conftest import api  # noqa: F401 (a fixture)
from tests.service.api.served import Api

app = typer.Typer()
app.command()(doctor)


def examined(*options: str) -> tuple[int, dict[str, dict[str, str]]]:
    """The exit code, and the findings by what was looked at; of several about one thing the worst."""
    environment = dict.fromkeys(("LORAFLEET_SERVER", "LORAFLEET_RAY_ADDRESS", "LORAFLEET_TOKEN"), "")
    result = CliRunner().invoke(app, [*options, "-o", "json"], env=environment)
    findings: dict[str, dict[str, str]] = {}
    for finding in json.loads(result.stdout):
        known = findings.get(finding["check"])
        if known is None or list(State).index(State(finding["state"])) > list(State).index(State(known["state"])):
            findings[finding["check"]] = finding
    return result.exit_code, findings


def worst(findings: Sequence[Finding]) -> Finding:
    order = [State.FAILED, State.WARNING, State.OK, State.SKIPPED]
    return min(findings, key=lambda finding: order.index(finding.state))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_good_machine_passes_and_nothing_is_left_behind(tmp_path: Path):
    code, findings = examined("--state-dir", str(tmp_path), "--listen", f"127.0.0.1:{free_port()}")
    assert code == 0, findings
    for check in ("artifacts", "cache", "--listen", "Ray"):
        assert findings[check]["state"] == "ok", findings[check]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_the_table_has_every_finding_and_says_what_to_do(tmp_path: Path):
    result = CliRunner().invoke(app, ["--state-dir", str(tmp_path), "--ray-address", "http://127.0.0.1:1"], env={"COLUMNS": "300"})
    assert result.exit_code == 1
    assert "RAY" in result.stdout.upper()
    assert "check that http://127.0.0.1:1 is the dashboard's address and is up" in result.stdout


def test_every_failure_and_every_warning_says_what_to_do(tmp_path: Path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    code, findings = examined(
        *("--state-dir", str(tmp_path), "--artifacts", f"file://{blocked}/inside", "--ray-address", "http://127.0.0.1:1"),
        *("--listen", "here", "--report-address", "127.0.0.1:1", "--tls-cert", str(blocked), "--oidc-jwks", str(tmp_path / "none")),
        *("--database-url", "postgresql://nobody:secretsecret@127.0.0.1:1/none"),
    )
    assert code == 1
    for check in ("artifacts", "Ray", "--listen", "report address", "TLS", "OIDC", "database"):
        assert findings[check]["state"] == "failed", findings[check]
        assert findings[check]["todo"]
    assert "secretsecret" not in json.dumps(findings)


async def test_the_schema_is_looked_at_and_an_old_one_is_to_be_upgraded(db: Database, database_path: Path):
    url = f"sqlite:///{database_path}"
    assert worst(await check_database(url)).state == State.OK
    await asyncio.to_thread(_set_revision, database_path, "0001")
    finding = worst(await check_database(url))
    assert finding.state == State.FAILED
    assert "lorafleet db upgrade" in finding.todo


def _set_revision(path: Path, revision: str) -> None:
    import sqlite3

    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))


async def test_a_store_that_loses_what_is_written_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async def forgets(store: Store, uri: str, data: bytes) -> None:
        pass

    monkeypatch.setattr(Store, "put", forgets)
    assert worst(await stores.check_store("artifacts", f"file://{tmp_path}")).state == State.FAILED


async def test_a_store_without_conditional_writes_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async def overwrites(store: Store, uri: str, data: bytes) -> bool:
        return True

    monkeypatch.setattr(Store, "put_if_absent", overwrites)
    finding = worst(await stores.check_store("artifacts", f"file://{tmp_path}"))
    assert finding.state == State.FAILED
    assert "If-None-Match" in finding.message


@pytest.mark.parametrize(
    ("apart_s", "state"), [(0.1, State.OK), (-0.1, State.OK), (6, State.WARNING), (-90, State.FAILED), (3600, State.FAILED)]
)
def test_clocks_that_are_apart(apart_s: float, state: State):
    assert skew("clock", apart_s).state == state


def certificate(folder: Path, ends_in: timedelta, *names: str) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "lorafleet")])
    now = datetime.now(UTC)
    built = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key()).serial_number(1)
    built = built.not_valid_before(now - timedelta(days=100)).not_valid_after(now + ends_in)
    built = built.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
    path = folder / "tls.crt"
    path.write_bytes(built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    return path


@pytest.mark.parametrize(
    ("days", "reached_as", "state"),
    [
        (90, "fleet.example:443", State.OK),
        (90, "a.fleets.example:443", State.OK),
        (90, "other.example:443", State.FAILED),
        (7, "fleet.example:443", State.WARNING),
        (-1, "fleet.example:443", State.FAILED),
    ],
)
async def test_certificates(tmp_path: Path, days: int, reached_as: str, state: State):
    path = certificate(tmp_path, timedelta(days=days), "fleet.example", "*.fleets.example")
    assert worst(await machine.check_certificate(path, reached_as)).state == state


async def test_a_ray_that_refuses_the_token_is_told_from_one_that_is_away(monkeypatch: pytest.MonkeyPatch):
    async def refuses(http: Http, method: str, url: str, *, token: str | None, body: object = None) -> Answer:
        return Answer(401, "")

    monkeypatch.setattr(Http, "call", refuses)
    [finding] = await machine.check_ray("http://ray:8265", "token")
    assert (finding.state, finding.todo) == (State.FAILED, "check RAY_AUTH_TOKEN")


async def test_a_full_disk_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine, "MIN_FREE_BYTES", 2**60)
    assert worst(await machine.check_disk(tmp_path / "not" / "there")).state == State.FAILED


async def test_a_port_that_is_taken_is_a_warning_for_it_may_be_ours():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        [finding] = await machine.check_port("--listen", f"127.0.0.1:{other.getsockname()[1]}")
    assert finding.state == State.WARNING


async def test_each_of_several_report_addresses_is_tried():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        there, nobody = f"127.0.0.1:{other.getsockname()[1]}", f"127.0.0.1:{free_port()}"
        findings = await machine.check_report_address(f"ipv4:{there},{nobody}")
    assert [finding.state for finding in findings] == [State.OK, State.FAILED]
    assert nobody in findings[1].message


async def test_keys_of_the_identity_provider(tmp_path: Path):
    keys = tmp_path / "jwks.json"
    keys.write_text(json.dumps({"keys": [{"kid": "a", "kty": "EC", "use": "sig"}]}))
    assert worst(await machine.check_keys(str(keys))).state == State.OK
    keys.write_text(json.dumps({"keys": []}))
    assert worst(await machine.check_keys(str(keys))).state == State.FAILED


async def test_a_check_that_breaks_or_hangs_is_a_finding_and_stops_no_other(monkeypatch: pytest.MonkeyPatch):
    from service.doctor import findings

    monkeypatch.setattr(findings, "TIMEOUT_S", 0.05)

    async def breaks() -> list[Finding]:
        raise RuntimeError("bug")

    async def hangs() -> list[Finding]:
        await asyncio.Event().wait()
        return []

    async def good() -> list[Finding]:
        return [findings.ok("good", "well")]

    found = await run([("breaks", breaks), ("hangs", hangs), ("good", good)])
    assert [(finding.check, finding.state) for finding in found] == [("breaks", "failed"), ("hangs", "failed"), ("good", "ok")]


async def test_from_the_client_side_it_connects_is_let_in_and_tells_the_version(api: Api):  # noqa: F811
    code, findings = await asyncio.to_thread(examined, "--server", api.address)
    assert code == 0
    assert {check: finding["state"] for check, finding in findings.items()} == {
        "connect": "ok",
        "access": "ok",
        "version": "ok",
        "round trip": "ok",
    }


async def test_a_bad_tenant_is_told(api: Api):  # noqa: F811
    code, findings = await asyncio.to_thread(examined, "--server", api.address, "--tenant", "Not A Tenant")
    assert code == 1
    assert findings["access"]["state"] == "failed"


def test_a_server_that_is_not_there_fails_with_what_to_do():
    code, findings = examined("--server", f"127.0.0.1:{free_port()}")
    assert code == 1
    assert findings["connect"]["todo"]


@pytest.mark.parametrize("check", ["store", "keys", "ray", "listen", "database", "exception"])
async def test_no_finding_tells_a_password_of_a_url(check: str, monkeypatch: pytest.MonkeyPatch):
    url = "http://lorafleet:hunter2@127.0.0.1:1"
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2-secret")

    async def breaks() -> Sequence[Finding]:
        raise RuntimeError(f"cannot connect to {url}")

    checks = {
        "store": lambda: stores.check_store("artifacts", "s3://bucket/lorafleet"),
        "keys": lambda: machine.check_keys(url),
        "ray": lambda: machine.check_ray(url, None),
        "listen": lambda: machine.check_port("--listen", f"{url}/x"),
        "database": lambda: check_database("postgresql://lorafleet:hunter2@127.0.0.1:1/x?password=hunter2"),
        "exception": breaks,
    }
    findings = await run([(check, checks[check])])
    assert any(finding.state is State.FAILED for finding in findings)
    assert "hunter2" not in str(findings)
