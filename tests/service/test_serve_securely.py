"""`lorafleet serve` as a process with TLS and an authenticator: who has a good token is answered, the others are refused."""

from pathlib import Path

import grpc
import pytest

from lorafleet import spec
from lorafleet.client import Client, Credentials
from lorafleet.errors import NotFound, Unauthenticated
from lorafleet.states import label
from lorafleet.v1 import report_service_pb2 as rpb
from lorafleet.v1 import report_service_pb2_grpc
from service.backends.ray_head import free_ports
from tests.certificates import Authority, server_pair
from tests.service.access.provider import AUDIENCE, ISSUER, Provider
from tests.service.serving import served
from tests.service.stand_in_ray import stand_in_ray


def test_a_server_with_tls_and_oidc_knows_its_admin_and_nobody_else(tmp_path: Path) -> None:
    authority, provider = Authority(tmp_path), Provider("a")
    pair = server_pair(authority)
    (tmp_path / "jwks.json").write_bytes(provider.jwks())
    options = {
        "--ray-address": "http://127.0.0.1:1",  # joins a Ray that is not there
        "--tls-cert": pair.cert,
        "--tls-key": pair.key,
        "--oidc-issuer": ISSUER,
        "--oidc-audience": AUDIENCE,
        "--oidc-jwks": tmp_path / "jwks.json",
        "--admin": "oidc:ada",
    }

    def jobs(server: str, token: str) -> list[object]:
        with Client(server, tenant="acme", credentials=Credentials(token=token, tls_ca=authority.file)) as client:
            return list(client.list())

    with served(tmp_path / "state", *(str(part) for option in options.items() for part in option)) as server:
        assert jobs(server.address, provider.token()) == []
        for token, reason in (("", "TOKEN_MISSING"), ("abc", "TOKEN_INVALID"), (provider.token(aud="x"), "WRONG_AUDIENCE")):
            with pytest.raises(Unauthenticated) as refused:
                jobs(server.address, token)
            assert refused.value.reason == reason
        with pytest.raises(NotFound):
            jobs(server.address, provider.token(sub="eve"))


def test_runs_report_to_a_port_of_their_own_where_nobody_is_asked_for_a_certificate(tmp_path: Path) -> None:
    """Users need a certificate at the public port; a run has none, and its token is good at the other one."""
    authority = Authority(tmp_path)
    pair, ada = server_pair(authority), authority.issue("ada", cn="ada")
    for name, content in {"base/model_index.json": "{}", "pictures/a.png": "png"}.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(content)
    places = {"base_model": {"uri": f"file://{tmp_path}/base"}, "dataset": {"uri": f"file://{tmp_path}/pictures"}}
    report_to = f"127.0.0.1:{free_ports(1)[0]}"
    with stand_in_ray() as ray:
        options = {
            "--ray-address": ray.address,
            "--tls-cert": pair.cert,
            "--tls-key": pair.key,
            "--tls-client-ca": authority.file,
            "--admin": "cert:ada",
            "--report-listen": report_to,
            "--report-tls-ca": authority.file,
        }
        known = Credentials(tls_ca=authority.file, tls_cert=ada.cert, tls_key=ada.key)
        with served(tmp_path / "state", *(str(part) for option in options.items() for part in option)) as server:
            with Client(server.address, tenant="acme", credentials=known) as client:
                client.create_tenant("acme")
                client.add_grant(f"file://{tmp_path}")
                job = client.create(spec.parse({**places, "training": {"max_steps": 2}}))
                assert label(client.wait(job.name, timeout_s=60)) == "SUCCEEDED"
            roots = grpc.ssl_channel_credentials(authority.file.read_bytes())
            codes = [_report_without_a_token(address, roots) for address in (server.address, report_to)]
            assert codes == [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAUTHENTICATED], "no handshake, and no token"
            without = Credentials(tls_ca=authority.file)
            with Client(report_to, tenant="acme", credentials=without) as client, pytest.raises(Unauthenticated) as refused:
                list(client.list())
            assert refused.value.reason == "TOKEN_MISSING", "users are known there as everywhere"


def _report_without_a_token(address: str, roots: grpc.ChannelCredentials) -> grpc.StatusCode:
    with grpc.secure_channel(address, roots) as channel, pytest.raises(grpc.RpcError) as error:
        report_service_pb2_grpc.ReportServiceStub(channel).Report(rpb.ReportRequest(run="run-1", source="driver"), timeout=20)
    assert isinstance(error.value, grpc.Call)
    return error.value.code()
