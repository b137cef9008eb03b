"""Every pod that the chart makes is one that Pod Security "restricted" lets in, and can write to volumes alone."""

from pathlib import Path

import pytest

from tests.helm.charts import SETS, Object, control_plane, env_of, named, of_kind, pods, rendered

VOLUMES = {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"}  # those of "restricted", and no CSI driver


@pytest.mark.parametrize("values", SETS)
def test_every_pod_keeps_to_the_restricted_standard(values: str) -> None:
    found = list(pods(rendered(values)))
    assert found
    for pod in found:
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.spec.keys(), pod.name
        assert pod.spec["securityContext"]["runAsNonRoot"] is True, pod.name
        assert pod.spec["securityContext"]["runAsUser"] == 10001, pod.name
        assert pod.spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, pod.name
        assert all(VOLUMES & volume.keys() for volume in pod.spec["volumes"]), pod.name
        for container in pod.containers:
            context = container["securityContext"]
            assert context == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}, (
                pod.name
            )
            assert all("hostPort" not in port for port in container.get("ports", [])), pod.name


@pytest.mark.parametrize("values", SETS)
def test_every_container_says_what_it_needs_and_what_it_mounts_is_there(values: str) -> None:
    for pod in pods(rendered(values)):
        volumes = [volume["name"] for volume in pod.spec["volumes"]]
        for container in pod.containers:
            assert container["resources"]["requests"].keys() >= {"cpu", "memory"}, pod.name
            mounted = [mount["name"] for mount in container["volumeMounts"]]
            assert set(mounted) <= set(volumes), pod.name
            assert len({mount["mountPath"] for mount in container["volumeMounts"]}) == len(mounted), pod.name


@pytest.mark.parametrize("values", SETS)
def test_a_services_own_variables_are_no_settings(values: str) -> None:
    """A Service named lorafleet would bring LORAFLEET_PORT and its like into every pod beside it."""
    assert all(pod.spec["enableServiceLinks"] is False for pod in pods(rendered(values)))


@pytest.mark.parametrize("values", SETS)
def test_only_the_control_plane_of_kuberay_may_speak_with_the_api_server(values: str) -> None:
    objects = rendered(values)
    mounting = {pod.name for pod in pods(objects) if pod.spec["automountServiceAccountToken"]}
    assert mounting == (set() if values == "ray" else {"lorafleet"})
    assert all(account["automountServiceAccountToken"] is False for account in of_kind("ServiceAccount", objects))


@pytest.mark.parametrize("values", SETS)
def test_files_that_the_control_plane_is_told_of_are_mounted(values: str) -> None:
    container = control_plane(rendered(values))
    folders = {mount["mountPath"] for mount in container["volumeMounts"]}
    files = [value for value in env_of(container).values() if isinstance(value, str) and value.startswith("/etc/")]
    assert files
    assert {str(Path(file).parent) for file in files} <= folders


def test_store_credentials_of_tenants_own_come_as_a_file_that_may_change() -> None:
    objects = rendered("tenants")
    assert env_of(control_plane(objects))["LORAFLEET_STORE_CREDENTIALS"] == "/etc/lorafleet-store-credentials/credentials"
    (mount,) = [each for each in control_plane(objects)["volumeMounts"] if each["name"] == "store-credentials"]
    assert mount == {"name": "store-credentials", "mountPath": "/etc/lorafleet-store-credentials", "readOnly": True}, "no subPath"
    spec = named("Deployment", "lorafleet", objects)["spec"]["template"]["spec"]
    (volume,) = [each["secret"] for each in spec["volumes"] if each["name"] == "store-credentials"]
    assert (volume["secretName"], volume["items"]) == ("tenants-stores", [{"key": "credentials", "path": "credentials"}])


def test_it_is_drained_before_it_is_killed() -> None:
    spec = named("Deployment", "lorafleet", rendered("production"))["spec"]["template"]["spec"]
    pre_stop_s = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert spec["terminationGracePeriodSeconds"] >= pre_stop_s + finishing_s() + 10


def finishing_s() -> float:
    from service.server.serving import FINISH_CALLS_S, FINISH_STEPS_S

    return FINISH_CALLS_S + FINISH_STEPS_S


@pytest.mark.parametrize("values", SETS)
def test_the_schema_is_brought_up_to_date_before_pods_serve(values: str) -> None:
    """By a hook, for which the database must be there already; beside a database of the chart by the pods themselves."""
    objects = rendered(values)
    hooks = [job["metadata"]["annotations"]["helm.sh/hook"] for job in of_kind("Job", objects)]
    first = [each["name"] for each in named("Deployment", "lorafleet", objects)["spec"]["template"]["spec"].get("initContainers", [])]
    assert (hooks, first) == (([], ["migrate"]) if values == "dev" else (["pre-install,pre-upgrade"], []))


def test_the_control_plane_has_the_authority_of_the_stores_certificate() -> None:
    container = control_plane(rendered("production"))
    assert env_of(container)["AWS_CA_BUNDLE"] == "/etc/lorafleet-store/ca.crt"
    assert {"name": "store-ca", "mountPath": "/etc/lorafleet-store", "readOnly": True} in container["volumeMounts"]
    assert "AWS_CA_BUNDLE" not in env_of(control_plane(rendered("tenants")))


def test_whoever_connects_to_the_database_has_the_authority_of_its_certificate() -> None:
    objects = rendered("production")
    for kind, name in (("Deployment", "lorafleet"), ("Job", "lorafleet-migrate")):
        spec = named(kind, name, objects)["spec"]["template"]["spec"]
        assert env_of(spec["containers"][0])["PGSSLROOTCERT"] == "/etc/lorafleet-database/ca.crt"
        assert {"name": "database-ca", "mountPath": "/etc/lorafleet-database", "readOnly": True} in spec["containers"][0]["volumeMounts"]
        (volume,) = [volume["secret"] for volume in spec["volumes"] if volume["name"] == "database-ca"]
        assert volume["secretName"] == "lorafleet-database-ca"


@pytest.mark.parametrize("values", sorted(set(SETS) - {"dev"}))
def test_the_migration_runs_where_the_control_plane_does_and_under_its_own_releases_policy(values: str) -> None:
    objects = rendered(values)
    specs = [named(*each, objects)["spec"]["template"]["spec"] for each in (("Deployment", "lorafleet"), ("Job", "lorafleet-migrate"))]
    for field in ("nodeSelector", "tolerations", "affinity", "priorityClassName"):
        assert specs[0].get(field) == specs[1].get(field), field
    job = named("Job", "lorafleet-migrate", objects)["metadata"]["annotations"]
    policy = named("NetworkPolicy", "lorafleet-migrate", objects)["metadata"]["annotations"]
    assert policy["helm.sh/hook"] == job["helm.sh/hook"]
    assert int(policy["helm.sh/hook-weight"]) < int(job.get("helm.sh/hook-weight", 0))
    assert "hook-succeeded" not in policy["helm.sh/hook-delete-policy"], "or it is gone before the Job runs"


def secret_of(container: Object, name: str) -> str:
    return env_of(container)[name]["secretKeyRef"]["name"]


@pytest.mark.parametrize("values", SETS)
def test_secrets_come_by_reference_and_only_development_servers_have_ones_of_the_chart(values: str) -> None:
    objects = rendered(values)
    assert secret_of(control_plane(objects), "LORAFLEET_DATABASE_URL") == (
        "lorafleet-postgresql" if values == "dev" else "lorafleet-database"
    )
    made = {(secret["metadata"]["namespace"], secret["metadata"]["name"]) for secret in of_kind("Secret", objects)}
    ours = {("lorafleet", "lorafleet-store"), ("lorafleet-runs", "lorafleet-store"), ("lorafleet", "lorafleet-postgresql")}
    tokens = {("lorafleet-runs", "warm-tokens")} if values == "standing" else set()  # empty: the service writes them
    assert made == (ours if values == "dev" else tokens)


def test_an_upgrade_leaves_the_development_servers_running() -> None:
    before, after = rendered("dev"), rendered("dev", "--set", "image.tag=next", "--set", "serve.maxRunningRuns=5")
    for name in ("lorafleet-minio", "lorafleet-postgresql"):
        templates = [named("Deployment", name, objects)["spec"]["template"] for objects in (before, after)]
        assert templates[0] == templates[1]
        assert "helm.sh/chart" not in templates[0]["metadata"]["labels"], "a new chart would start it anew, and its data be gone"
    assert named("Deployment", "lorafleet", before)["spec"]["template"] != named("Deployment", "lorafleet", after)["spec"]["template"]


def test_a_store_by_web_identity_needs_no_secret() -> None:
    objects = rendered("web-identity")
    assert not {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} & env_of(control_plane(objects)).keys()
    roles = [account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"] for account in of_kind("ServiceAccount", objects)]
    assert sorted(roles) == ["arn:aws:iam::111122223333:role/lorafleet", "arn:aws:iam::111122223333:role/lorafleet-runs"]


def test_any_password_of_the_development_database_is_read_back_from_its_url() -> None:
    from sqlalchemy import make_url

    secret = named("Secret", "lorafleet-postgresql", rendered("dev"))["stringData"]
    assert secret["POSTGRES_PASSWORD"] == "not/a secret"
    assert make_url(secret["LORAFLEET_DATABASE_URL"]).password == "not/a secret"
