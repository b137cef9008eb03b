"""The chart and the backend kuberay agree: on rights, on the file of how runs look, and on the labels that networks go by."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from service.backends.kuberay import access, config, names
from tests.helm.charts import CHART, RELEASE, REPOSITORY, SETS, Object, named, of_kind, rendered, violations

KUBERAY = [values for values in SETS if values != "ray"]
RUNS = json.loads((CHART / "values.schema.json").read_text())["properties"]["runs"]


@pytest.mark.parametrize("values", KUBERAY)
def test_what_is_granted_is_exactly_what_the_backend_does(values: str) -> None:
    objects = rendered(values)
    roles = of_kind("Role", objects)
    assert roles
    for role in roles:
        assert granted(role) == done(file_of(objects), role["metadata"]["namespace"])


def test_at_a_standing_cluster_the_secret_of_tokens_is_the_only_one_that_is_changed() -> None:
    objects = rendered("standing")
    (role,) = of_kind("Role", objects)
    assert granted(role) == done(file_of(objects), "lorafleet-runs")
    assert [each for each in granted(role) if each[1] == "secrets" and each[2] != "create"] == [("", "secrets", "patch", "warm-tokens")]


Right = tuple[str, str, str, str]  # API group, resource, verb, name of the object


def done(runs: config.KuberayConfig, namespace: str) -> set[Right]:
    return {(rule.group, rule.resource, verb, rule.name) for rule in access.rules(runs, namespace) for verb in rule.verbs}


def granted(role: Object) -> set[Right]:
    return {
        (group, resource, verb, name)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames", [""])
    }


def file_of(objects: tuple[Object, ...]) -> config.KuberayConfig:
    return config.parse(yaml.safe_load(named("ConfigMap", RELEASE, objects)["data"]["kuberay.yaml"]))


@pytest.mark.parametrize("values", KUBERAY)
def test_the_backend_takes_the_file_and_its_namespaces_are_those_that_are_made_ready(values: str) -> None:
    objects = rendered(values)
    runs = file_of(objects)
    assert set(runs.namespaces) == {role["metadata"]["namespace"] for role in of_kind("Role", objects)}
    assert set(runs.namespaces) == {each["metadata"]["namespace"] for each in of_kind("NetworkPolicy", objects)} - {"lorafleet"}


def test_service_accounts_that_runs_are_given_are_there() -> None:
    objects = rendered("tenants")
    runs = file_of(objects)
    there = {(each["metadata"]["namespace"], each["metadata"]["name"]) for each in of_kind("ServiceAccount", objects)}
    assert {(runs.namespace_of(tenant), runs.service_account_of(tenant)) for tenant in ("acme", "acme-research", "bolt", "other")} <= there


def test_image_and_store_are_filled_in() -> None:
    runs = file_of(rendered("dev"))
    assert runs.image == "local/lorafleet-trainer:test"
    assert runs.store_secret == "lorafleet-store"
    assert runs.env == {"AWS_ENDPOINT_URL": "http://lorafleet-minio.lorafleet.svc:9000", "AWS_REGION": "us-east-1"}
    assert file_of(rendered("web-identity")).store_secret is None
    assert file_of(rendered("production")).env["NCCL_DEBUG"] == "WARN"
    assert file_of(rendered("production")).store_ca_secret == "lorafleet-s3-ca"
    assert file_of(rendered("dev")).store_ca_secret is None


PROFILE = RUNS["properties"]["profiles"]["additionalProperties"]


@pytest.mark.parametrize(
    ("model", "schema"),
    [
        (config.KuberayConfig, RUNS),
        (config.PodProfile, PROFILE),
        (config.Head, PROFILE["properties"]["head"]),
        (config.Worker, PROFILE["properties"]["worker"]),
        (config.Tenant, RUNS["properties"]["tenants"]["additionalProperties"]),
        (config.Kueue, RUNS["properties"]["kueue"]),
        (config.StandingCluster, RUNS["properties"]["standingCluster"]),
    ],
)
def test_runs_of_the_schema_have_the_fields_of_the_file(model: type[BaseModel], schema: Any) -> None:
    assert {field.alias for field in model.model_fields.values()} == set(schema["properties"])
    assert schema["additionalProperties"] is False


def test_the_standing_cluster_that_is_shown_is_one_that_the_backend_sees_and_hands_tokens_to(tmp_path: Path) -> None:
    cluster = yaml.safe_load((REPOSITORY / "deploy/standing-cluster.yaml").read_text())
    standing = config.StandingCluster(name=cluster["metadata"]["name"], namespace=cluster["metadata"]["namespace"])
    head, (worker,) = cluster["spec"]["headGroupSpec"]["template"], [each["template"] for each in cluster["spec"]["workerGroupSpecs"]]
    assert all(each["metadata"]["labels"] == {names.MANAGED_BY: names.MANAGER} for each in (head, worker))
    (tokens,) = [each for each in head["spec"]["volumes"] if each.get("secret", {}).get("secretName") == standing.token_secret]
    mounts = {each["name"]: each["mountPath"] for each in head["spec"]["containers"][0]["volumeMounts"]}
    assert mounts[tokens["name"]] == standing.token_path
    assert cluster["spec"]["rayVersion"] == config.RAY_VERSION
    job = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": "x"}, "spec": {"rayClusterSpec": cluster["spec"]}}
    pods = [{"apiVersion": "v1", "kind": "Pod", **each} for each in (head, worker)]
    assert violations([job, *pods], tmp_path / "objects.yaml") == ""
