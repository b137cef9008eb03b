"""Two tenants with namespaces and store credentials of their own: nothing of one's is within the reach of the other's run.

Whether a network enforces NetworkPolicy is its own affair; here the policies' selectors are read.
"""

import base64
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from deploy.kubectl import KubectlFailed, apply, get, kubectl
from lorafleet.errors import AlreadyExists, InvalidInput, NotFound
from lorafleet.v1 import training_service_pb2 as pb
from tests.k8s.fleet import Fleet, folder_of, run_object
from tests.k8s.minio_users import make_user
from tests.k8s.release import TENANTS
from tests.k8s.waiting import until

Jobs = dict[str, pb.TrainingJob]
ARTIFACTS = "lorafleet/artifacts"  # bucket and folder of the chart's dev.minio
KEYS = {tenant: f"{tenant}-secret-of-tests" for tenant in TENANTS}


@pytest.fixture(scope="module")
def tenants(whole_fleet: Fleet) -> Iterator[dict[str, Fleet]]:
    """Each with its credentials, its grants and a job that trains."""
    with ExitStack() as stack:
        fleets = {tenant: stack.enter_context(_set_up(whole_fleet, tenant)) for tenant in TENANTS}
        yield fleets
        for fleet in fleets.values():
            fleet.clear()


@pytest.fixture(scope="module")
def jobs(tenants: dict[str, Fleet]) -> dict[str, pb.TrainingJob]:
    names = {tenant: fleet.submit("own", steps=10, gates=[5]) for tenant, fleet in tenants.items()}
    return {tenant: tenants[tenant].until_step(name, 5) for tenant, name in names.items()}


def _set_up(whole: Fleet, tenant: str) -> Any:
    writes = [f"{ARTIFACTS}/tenants/{tenant}", f"{ARTIFACTS}/cache"]
    make_user(whole.store, tenant, KEYS[tenant], writes=writes, reads=["base-models", "data-sets", f"{ARTIFACTS}/runs"])
    credentials = {"AWS_ACCESS_KEY_ID": tenant, "AWS_SECRET_ACCESS_KEY": KEYS[tenant]}
    data = {name: base64.b64encode(value.encode()).decode() for name, value in credentials.items()}
    metadata = {"name": f"{tenant}-store", "namespace": whole.release.namespace_of(tenant)}
    apply([{"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}])
    with whole.admin(tenant) as admin:
        with suppress(AlreadyExists):
            admin.create_tenant(tenant)
        for bucket in ("base-models", "data-sets"):
            admin.add_grant(f"s3://{bucket}")
    return whole.of_tenant(tenant)


def test_each_run_lives_in_its_tenants_namespace_with_its_tenants_credentials(tenants: dict[str, Fleet], jobs: Jobs):
    for tenant, fleet in tenants.items():
        pods = fleet.pods(jobs[tenant])
        assert {pod["metadata"]["namespace"] for pod in pods} == {fleet.release.namespace_of(tenant)}
        for pod in pods:
            rays_own = pod["metadata"]["labels"]["ray.io/cluster"]  # KubeRay keeps Ray's token in a Secret of that name
            named = {name for name in _secrets_of(pod) if not name.startswith(rays_own)}
            assert f"{tenant}-store" in named
            assert named <= {f"{tenant}-store", run_object(jobs[tenant])}
    for tenant, fleet in tenants.items():
        fleet.open_gate(jobs[tenant], 5)
        fleet.succeeded(jobs[tenant].name)


def test_a_runs_service_account_may_nothing_anywhere(tenants: dict[str, Fleet], jobs: Jobs):
    for tenant, other in zip(TENANTS, reversed(TENANTS), strict=True):
        fleet = tenants[tenant]
        account = f"system:serviceaccount:{fleet.runs_namespace}:lorafleet-run"
        for namespace in (fleet.release.namespace_of(other), fleet.release.namespace, fleet.runs_namespace):
            for verb, what in (("get", "secrets"), ("list", "pods"), ("create", "rayjobs.ray.io"), ("get", "pods/log")):
                assert not _may(account, verb, what, namespace), f"{account} may {verb} {what} in {namespace}"


@pytest.mark.parametrize(("tenant", "other"), [TENANTS, TENANTS[::-1]])
def test_a_runs_store_credentials_reach_no_other_prefix(tenants: dict[str, Fleet], jobs: Jobs, tenant: str, other: str):
    s3, (bucket, own), (_, theirs) = _s3_as(tenants[tenant], tenant), folder_of(jobs[tenant]), folder_of(jobs[other])
    foreign = until(lambda: tenants[other].store.keys(bucket, f"{theirs}/"), 60, f"objects of {other}")[0]
    s3.list_objects_v2(Bucket=bucket, Prefix=f"{own}/")
    for refused in (
        lambda: s3.get_object(Bucket=bucket, Key=foreign),
        lambda: s3.put_object(Bucket=bucket, Key=f"{foreign}.mine", Body=b""),
        lambda: s3.list_objects_v2(Bucket=bucket, Prefix=f"{theirs}/"),
    ):
        with pytest.raises(ClientError, match="AccessDenied"):
            refused()


def test_another_tenants_job_is_not_there_and_its_prefix_is_refused(tenants: dict[str, Fleet], jobs: Jobs):
    acme, beta = (tenants[tenant] for tenant in TENANTS)
    with pytest.raises(NotFound):
        acme.client.get(jobs["beta"].name)
    with pytest.raises(InvalidInput, match="not granted"):
        acme.submit("thief", dataset={"uri": jobs["beta"].output_uri})
    assert {job.name.split("/")[1] for job in beta.client.list()} == {"beta"}


def test_policies_let_a_run_reach_no_other_namespace_of_runs(tenants: dict[str, Fleet]):
    for tenant, fleet in tenants.items():
        policies = get("networkpolicy", namespace=fleet.runs_namespace)
        assert any(not policy["spec"]["podSelector"] for policy in policies), "everything is denied at first"
        foreign = {tenants[other].runs_namespace for other in TENANTS if other != tenant}
        for policy in policies:
            peers = [peer for rule in policy["spec"].get("egress", []) for peer in rule.get("to", [])]
            peers += [peer for rule in policy["spec"].get("ingress", []) for peer in rule.get("from", [])]
            assert not [peer for peer in peers if _reaches(peer, foreign)], policy["metadata"]["name"]


def _reaches(peer: dict[str, Any], namespaces: set[str]) -> bool:
    """Whether a peer's selectors match a run's pod in one of the namespaces. One without a namespace selector means its own."""
    if "namespaceSelector" not in peer:
        return False
    chosen = peer["namespaceSelector"].get("matchLabels", {}).get("kubernetes.io/metadata.name")
    if chosen is not None and chosen not in namespaces:
        return False
    labels = peer.get("podSelector", {}).get("matchLabels", {})
    return labels.get("app.kubernetes.io/managed-by", "lorafleet") == "lorafleet" and labels.get("app.kubernetes.io/component") is None


def _secrets_of(pod: Any) -> Iterator[str]:
    """Names of the Secrets that reach the pod, by its environment or as files."""
    for container in [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]:
        for variable in container.get("env", []):
            if ref := variable.get("valueFrom", {}).get("secretKeyRef"):
                yield ref["name"]
    for volume in pod["spec"]["volumes"]:
        if "secret" in volume:
            yield volume["secret"]["secretName"]


def _may(account: str, verb: str, what: str, namespace: str) -> bool:
    try:
        return kubectl("auth", "can-i", verb, what, "--namespace", namespace, "--as", account).strip() == "yes"
    except KubectlFailed:  # its way to say no
        return False


def _s3_as(fleet: Fleet, tenant: str) -> Any:
    environment = fleet.store.environment
    return boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        region_name=environment["AWS_REGION"],
        aws_access_key_id=tenant,
        aws_secret_access_key=KEYS[tenant],
    )
