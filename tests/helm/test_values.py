"""Values that are wrong are refused, all of them at once and each by its name; those that are right reach `lorafleet serve`."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from lorafleet.contract.s3_settings import STYLE_ENV
from service.cli.serve import serve
from tests.helm.charts import CHART, REPOSITORY, SETS, Object, control_plane, env_of, named, refusal, rendered, violations

DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("replicaCount=0", "/replicaCount"),
        ("replicas=3", "replicas"),
        ("serve.maxRunningRuns=many", "/serve/maxRunningRuns"),
        ("serve.warmIdleSeconds=3", "warmIdleSeconds"),
        ("serve.backend=slurm", "/serve/backend"),
        ("storage.artifacts=/data", "/storage/artifacts"),
        ("access.admins={ada}", "/access/admins/0"),
        ("access.oidc.jwks=http://keys", "/access/oidc/jwks"),
        ("runs.namespace=Runs", "/runs/namespace"),
        ("runs.podTemplate=x", "podTemplate"),
        ("runs.profiles.default.head.memory=lots", "/runs/profiles/default/head/memory"),
        ("runs.tenants.acme.storeSecret=acme", "namespace"),
        ("runNamespaces.podSecurity=lax", "/runNamespaces/podSecurity"),
        ("dev.minio.rootPassword=short", "/dev/minio/rootPassword"),
        ("networkPolicy.store.port=0", "/networkPolicy/store/port"),
    ],
)
def test_a_value_that_is_none_is_refused_by_its_name(setting: str, told: str) -> None:
    assert told in refusal("--set", setting)


def test_every_value_that_breaks_the_schema_is_told_at_once() -> None:
    said = refusal("--set", "replicaCount=0", "--set", "tls.secretName=UPPER", "--set", "nonsense=1")
    assert all(each in said for each in ("/replicaCount", "/tls/secretName", "nonsense"))


def test_nothing_set_says_all_that_must_be_set() -> None:
    said = refusal(values=None)
    assert [line.partition(":")[0] for line in said.splitlines() if line.startswith("- ")] == [
        "- database.secretName",
        "- storage.artifacts",
        "- access",
    ]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["database.secretName=x"], "database.secretName and dev.postgresql.enabled are both set"),
        (["database.caSecretName=x"], "dev.postgresql speaks no TLS"),
        (["storage.caSecretName=x"], "dev.minio speaks no TLS"),
        (["storage.secretName=x"], "set them, or dev.minio.enabled"),
        (["access.apiTokens=false", "access.oidc.issuer="], "nobody could call"),
        (["access.oidc.issuer="], "nobody could be an administrator"),
        (["access.oidc.audience="], "access.oidc.audience: must be set"),
        (["access.oidc.jwksJson="], "access.oidc.jwks: must be set"),
        (["access.oidc.jwks=https://keys"], "which keys are meant"),
        (["tls.certManager.enabled=true"], "tls.certManager.issuerRef: name the issuer"),
        (["serve.backend=ray"], "serve.rayAddress: the backend ray needs"),
        (["serve.rayAddress=http://ray:8265"], "with kuberay each run has a Ray of its own"),
        (["ingress.enabled=true"], "ingress.host: must be set"),
        (["grpcRoute.enabled=true"], "grpcRoute.parentRefs: name the Gateway"),
        (["access.clientCa.secretName=x", "grpcRoute.enabled=true", "grpcRoute.parentRefs[0].name=x"], "a proxy has none of theirs"),
        (["access.clientCa.secretName=x", "ingress.enabled=true", "ingress.host=x"], "a proxy has none of theirs"),
        (["runs.standingCluster.name=x", "runs.standingCluster.namespace=x", "runs.kueue.queue=x"], "take runs.tenants and runs.kueue out"),
        (["runs.namespace=lorafleet"], "is the control plane's namespace"),
        (["runs.tenants.acme.namespace=lorafleet"], "is the control plane's namespace"),
        (["runNamespaces.byName.elsewhere.quota.pods=1"], "runNamespaces.byName.elsewhere: no run lives there; runs names lorafleet-runs"),
    ],
)
def test_values_that_do_not_go_together_are_refused(settings: list[str], told: str) -> None:
    assert told in refusal(*(part for setting in settings for part in ("--set", setting)))


def test_every_default_is_in_the_schema_and_the_schema_is_strict_throughout() -> None:
    def compare(values: Any, schema: Any, path: str) -> None:
        schema = SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
        if isinstance(values, dict) and "properties" in schema:
            assert schema["additionalProperties"] is False, path
            assert values.keys() <= schema["properties"].keys(), path
            for name, value in values.items():
                compare(value, schema["properties"][name], f"{path}.{name}")

    compare(DEFAULTS, SCHEMA, "")
    assert SCHEMA["properties"].keys() - DEFAULTS.keys() == {"global"}  # helm's own


@pytest.mark.parametrize("values", SETS)
def test_what_the_control_plane_is_told_are_options_of_serve(values: str) -> None:
    options = {each.annotation.__metadata__[0].envvar for each in serve.__signature__.parameters.values()}  # pyright: ignore
    told = {name for name in env_of(control_plane(rendered(values))) if name.startswith("LORAFLEET_")}
    assert told <= options | {STYLE_ENV}


def test_values_reach_serve_as_it_reads_them() -> None:
    told = env_of(control_plane(rendered("production")))
    assert told["LORAFLEET_ADMIN"] == "oidc:ada@example.com oidc:grace@example.com"
    assert told["LORAFLEET_ISOLATE_TENANT"] == "acme bolt"
    assert (told["LORAFLEET_CAPACITY_GPUS"], told["LORAFLEET_WORKER_MEMORY_GIB"]) == ("128", "70")
    assert told["LORAFLEET_OIDC_JWKS"] == "https://login.example.com:8443/keys"
    assert told["LORAFLEET_REPORT_ADDRESS"] == "lorafleet.lorafleet.svc:7600"
    assert "LORAFLEET_WARM_IDLE_S" not in told, "null: serve's own default"
    assert env_of(control_plane(rendered("ray")))["LORAFLEET_MAX_REQUESTS_PER_S"] == "1000000", "no 1e+06"
    assert env_of(control_plane(rendered("dev")))["LORAFLEET_WARM_IDLE_S"] == "0", "zero is a value"


def test_with_client_certificates_runs_report_by_the_other_port() -> None:
    told = env_of(control_plane(rendered("mtls")))
    assert told["LORAFLEET_REPORT_LISTEN"] == "0.0.0.0:7602"
    assert told["LORAFLEET_REPORT_ADDRESS"] == "lorafleet.lorafleet.svc:7602"


def test_an_image_may_be_named_by_its_digest() -> None:
    tag = f"0.1.0@sha256:{'0123456789abcdef' * 4}"
    objects = rendered("production", "--set-string", f"image.tag={tag}", "--set-string", f"trainerImage.tag={tag}")
    assert control_plane(objects)["image"] == f"registry.example.com/lorafleet-service:{tag}"
    assert f"registry.example.com/lorafleet-trainer:{tag}" in named("ConfigMap", "lorafleet", objects)["data"]["kuberay.yaml"]


def test_the_version_is_one() -> None:
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    images = re.findall(r"^ARG VERSION=(.*)$", (REPOSITORY / "Dockerfile").read_text(), flags=re.MULTILINE)
    assert {chart["version"], chart["appVersion"], *images} == {version}
    assert len(images) == 2


@pytest.mark.parametrize(
    ("change", "told"), [({"spec": {"finalisers": []}}, "finalisers"), ({"apiVersion": "nonsense/v9"}, "/apiVersion"), ({}, "")]
)
def test_the_schemas_of_kubernetes_refuse_what_the_api_server_would(tmp_path: Path, change: Object, told: str) -> None:
    objects = [dict(each) for each in rendered("dev")]
    objects[0] = {**objects[0], **change}
    wrong = violations(objects, tmp_path / "objects.yaml")
    assert told in wrong if told else not wrong
