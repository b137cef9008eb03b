"""A run as Kubernetes objects: what is asked for is in them, what is secret is not, and security review lets them in."""

import json
import re
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lorafleet.errors import InvalidInput
from lorafleet.spec import ClusterSpec
from service.backends.kuberay.manifest import driver_line, entrypoint, is_ours, log_prefix, ray_job, run_secret, standing_entries
from service.backends.kuberay.names import labels, object_name
from tests.helm.charts import violations
from tests.service.backends.kuberay.objects import RUN, config

STANDING = {"name": "warm", "namespace": "runs"}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"standingCluster": STANDING},
        {"kueue": {"queue": "training"}},
        {"storeSecret": "keys", "storeCaSecret": "authority", "imagePullSecrets": ["registry"]},
    ],
)
def test_objects_are_as_the_api_servers_schemas_have_them(tmp_path: Path, changes: dict[str, Any]):
    """KubeRay's schema of the RayJob, and Kubernetes' own of its pods: a misspelt field is refused here and not by a cluster."""
    job = ray_job(RUN, config(**changes))
    of_pods = [] if "standingCluster" in changes else templates(job)
    pods = [{"apiVersion": "v1", "kind": "Pod", **each} for each in of_pods]
    assert violations([job, run_secret(RUN, "runs", "uid-1"), *pods], tmp_path / "objects.yaml") == ""
    misspelt = {**job, "spec": {**job["spec"], "backofLimit": 0}}
    assert "backofLimit" in violations([misspelt], tmp_path / "misspelt.yaml")


def test_a_share_of_the_nodes_disk_is_asked_for_and_kept_to_where_a_profile_names_one():
    job = ray_job(RUN, config(profiles={"default": {"head": {"ephemeralStorage": "5Gi"}, "worker": {"ephemeralStorage": "50Gi"}}}))
    for template, amount in zip(templates(job), ("5Gi", "50Gi"), strict=True):
        resources = template["spec"]["containers"][0]["resources"]
        assert resources["requests"]["ephemeral-storage"] == resources["limits"]["ephemeral-storage"] == amount


def templates(job: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of the head's pod and the workers'."""
    cluster = job["spec"]["rayClusterSpec"]
    return cluster["headGroupSpec"]["template"], cluster["workerGroupSpecs"][0]["template"]


def container(template: dict[str, Any]) -> dict[str, Any]:
    return template["spec"]["containers"][0]


def env(template: dict[str, Any]) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container(template)["env"]}


def test_retries_are_ours_and_the_job_carries_the_runs_name():
    job = ray_job(RUN, config())
    assert job["metadata"]["name"] == RUN.run_id
    assert job["metadata"]["namespace"] == "runs"
    assert job["metadata"]["labels"] == {
        "lorafleet.dev/run": RUN.run_id,
        "lorafleet.dev/instance": "ours",
        "lorafleet.dev/tenant": "acme",
        "app.kubernetes.io/managed-by": "lorafleet",
    }
    spec = job["spec"]
    assert (spec["submissionMode"], spec["backoffLimit"], spec["jobId"]) == ("HTTPMode", 0, RUN.run_id)
    assert spec["shutdownAfterJobFinishes"] is True
    assert (spec["ttlSecondsAfterFinished"], spec["preRunningDeadlineSeconds"]) == (60, 900)
    assert spec["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    assert "suspend" not in spec  # it is Kueue's to set


def test_a_head_that_died_is_not_given_the_job_again():
    job = ray_job(RUN, config())
    assert job["metadata"]["annotations"]["ray.io/disable-provisioned-head-restart"] == "true"
    assert templates(job)[0]["spec"]["restartPolicy"] == "Never"


def test_the_same_run_makes_the_same_object():
    assert ray_job(RUN, config()) == ray_job(RUN, config())


@pytest.mark.parametrize("run_id", ["run-0123456789abcdef", "run-1", "x" * 300, "Run_1", "1-run", "run-", ""])
def test_a_name_is_a_dns_label_that_kuberay_takes(run_id: str):
    name = object_name(run_id)
    assert len(name) <= 47
    assert name[0].isalpha()
    assert name[-1] != "-"
    assert all(each.islower() or each.isdigit() or each == "-" for each in name)
    assert object_name(run_id) == name
    assert object_name(f"{run_id}x") != name


def test_no_token_is_in_the_job():
    assert RUN.token not in json.dumps(ray_job(RUN, config(standingCluster=STANDING)))
    assert RUN.token not in json.dumps(ray_job(RUN, config()))
    assert RUN.token not in repr(RUN)


def test_the_token_reaches_the_head_alone_and_goes_with_the_job():
    secret = run_secret(RUN, "runs", "uid-1")
    assert secret["stringData"] == {"token": RUN.token}
    assert secret["metadata"]["ownerReferences"][0]["uid"] == "uid-1"
    head, worker = templates(ray_job(RUN, config()))
    mounted = [volume for volume in head["spec"]["volumes"] if "secret" in volume]
    assert [volume["secret"]["secretName"] for volume in mounted] == [secret["metadata"]["name"]]
    assert "secret" not in json.dumps(worker["spec"]["volumes"])


def test_workers_get_what_the_spec_asks_for_and_ray_is_told_the_same():
    group = ray_job(RUN, config())["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    assert (group["replicas"], group["minReplicas"], group["maxReplicas"]) == (2, 2, 2)
    resources = container(group["template"])["resources"]
    assert resources["requests"] == {"cpu": "2000m", "memory": "4096Mi", "nvidia.com/gpu": "1"}
    assert resources["limits"] == {"memory": "4096Mi", "nvidia.com/gpu": "1"}
    params = group["rayStartParams"]
    assert (params["num-cpus"], params["num-gpus"], params["memory"]) == ("2", "1", str(4 * 2**30))


@pytest.mark.parametrize(
    ("asked", "fraction", "cpu", "num_cpus"),
    [(0.5, 1.0, "500m", "1"), (2, 0.1, "200m", "2"), (1.5, 1.0, "1500m", "2"), (0.3, 0.1, "30m", "1")],
)
def test_a_profile_may_let_nodes_be_shared_and_ray_still_hears_the_specs_number(asked: float, fraction: float, cpu: str, num_cpus: str):
    ours = config(profiles={"default": {"worker": {"cpuRequestFraction": fraction}}})
    group = ray_job(replace(RUN, cluster=ClusterSpec(cpus_per_worker=asked)), ours)["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    assert container(group["template"])["resources"] == {"requests": {"cpu": cpu}}
    assert group["rayStartParams"]["num-cpus"] == num_cpus


def test_a_spec_that_says_no_memory_gets_the_profiles():
    ours = config(profiles={"default": {"worker": {"memory": "3Gi"}}})
    _, worker = templates(ray_job(replace(RUN, cluster=ClusterSpec()), ours))
    assert container(worker)["resources"] == {"requests": {"cpu": "1000m", "memory": "3Gi"}, "limits": {"memory": "3Gi"}}


def test_another_gpu_resource_is_asked_for_by_its_name():
    _, worker = templates(ray_job(RUN, config(gpuResource="amd.com/gpu")))
    assert container(worker)["resources"]["limits"]["amd.com/gpu"] == "1"


def test_nothing_but_the_driver_is_scheduled_on_the_head():
    params = ray_job(RUN, config())["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]
    assert (params["num-cpus"], params["num-gpus"]) == ("0", "0")


def test_a_profile_says_where_pods_go_and_a_spec_only_names_it():
    worker_said = {
        "shmSize": "8Gi",
        "nodeSelector": {"pool": "a100"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "topologySpreadConstraints": [{"maxSkew": 1}],
        "priorityClassName": "training",
        "runtimeClassName": "nvidia",
        "volumes": [{"name": "scratch", "emptyDir": {}}],
        "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
        "labels": {"team": "x"},
        "annotations": {"a": "b"},
    }
    ours = config(profiles={"default": {}, "a100": {"image": "registry/trainer:cuda", "worker": worker_said}}, imagePullSecrets=["pull"])
    named = replace(RUN, cluster=ClusterSpec(profile="a100"))
    head, worker = templates(ray_job(named, ours))
    spec = worker["spec"]
    for name in ("nodeSelector", "tolerations", "affinity", "topologySpreadConstraints", "priorityClassName", "runtimeClassName"):
        assert spec[name] == worker_said[name]
        assert name not in head["spec"]
    assert {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}} in spec["volumes"]
    assert {"name": "scratch", "emptyDir": {}} in spec["volumes"]
    assert {"name": "scratch", "mountPath": "/scratch"} in container(worker)["volumeMounts"]
    assert spec["imagePullSecrets"] == [{"name": "pull"}]
    assert container(head)["image"] == container(worker)["image"] == "registry/trainer:cuda"
    assert worker["metadata"]["labels"]["team"] == "x"
    assert worker["metadata"]["annotations"] == {"a": "b"}


def test_a_profile_cannot_take_our_labels_away():
    ours = config(profiles={"default": {"worker": {"labels": {"lorafleet.dev/run": "another"}}}})
    assert templates(ray_job(RUN, ours))[1]["metadata"]["labels"]["lorafleet.dev/run"] == RUN.run_id


def test_an_unknown_profile_names_those_that_there_are():
    with pytest.raises(InvalidInput, match='"h100" is not configured; there are: a100, default') as caught:
        ray_job(replace(RUN, cluster=ClusterSpec(profile="h100")), config(profiles={"default": {}, "a100": {}}))
    assert caught.value.reason == "UNKNOWN_PROFILE"


def test_pods_pass_pod_security_restricted():
    for template in templates(ray_job(RUN, config())):
        pod, only = template["spec"], container(template)["securityContext"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert only == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}
        assert pod["automountServiceAccountToken"] is False
        writable = {mount["mountPath"] for mount in container(template)["volumeMounts"] if not mount.get("readOnly")}
        assert writable == {"/tmp", "/var/lib/lorafleet", "/dev/shm"}
        assert all(set(volume) & {"emptyDir", "secret"} for volume in pod["volumes"])


def test_every_pod_lets_its_trainer_save_before_it_goes():
    for template in templates(ray_job(RUN, config(terminationGracePeriodSeconds=77))):
        assert container(template)["lifecycle"]["preStop"]["exec"]["command"] == ["python", "-m", "trainer.eviction"]
        assert template["spec"]["terminationGracePeriodSeconds"] == 77
        assert env(template)["LORAFLEET_POD_DIR"].startswith("/tmp/")


def test_the_stores_credentials_come_from_the_tenants_secret():
    ours = config(storeSecret="store", env={"AWS_REGION": "x"}, tenants={"acme": {"namespace": "acme-runs", "storeSecret": "acme-store"}})
    for template in templates(ray_job(RUN, ours)):
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            assert env(template)[name] == {"secretKeyRef": {"name": "acme-store", "key": name}}
        assert env(template)["AWS_REGION"] == "x"
    assert ray_job(RUN, ours)["metadata"]["namespace"] == "acme-runs"


def test_runs_have_the_authority_of_the_stores_certificate():
    for template in templates(ray_job(RUN, config(storeCaSecret="authority"))):
        bundle = env(template)["AWS_CA_BUNDLE"]
        (volume,) = [each["secret"] for each in template["spec"]["volumes"] if each.get("secret", {}).get("secretName") == "authority"]
        mounts = {mount["mountPath"]: mount["name"] for mount in container(template)["volumeMounts"]}
        assert mounts[str(Path(bundle).parent)] == "store-ca"
        assert [item["path"] for item in volume["items"]] == [Path(bundle).name]
    assert all("AWS_CA_BUNDLE" not in env(template) for template in templates(ray_job(RUN, config())))


def test_store_credentials_of_a_tenants_own_come_from_the_runs_secret_and_go_before_others():
    own = replace(RUN, store_env={"AWS_ACCESS_KEY_ID": "key-of-acme", "AWS_SECRET_ACCESS_KEY": "secret-of-acme", "AWS_SESSION_TOKEN": ""})
    job = ray_job(own, config(storeSecret="store"))
    for template in templates(job):
        for name in own.store_env:
            assert env(template)[name] == {"secretKeyRef": {"name": RUN.run_id, "key": name}}
    assert "of-acme" not in json.dumps(job)
    assert run_secret(own, "runs", "u")["stringData"] == {"token": RUN.token, **own.store_env}


def test_a_standing_cluster_is_handed_them_in_a_file():
    own = replace(RUN, store_env={"AWS_ACCESS_KEY_ID": "key-of-acme"})
    job = ray_job(own, config(standingCluster=STANDING))
    assert f"--store-credentials-file /var/run/lorafleet/{RUN.run_id}.store" in job["spec"]["entrypoint"]
    assert "of-acme" not in json.dumps(job)
    assert standing_entries(own) == {RUN.run_id: RUN.token, f"{RUN.run_id}.store": '{"AWS_ACCESS_KEY_ID": "key-of-acme"}'}


def test_web_identity_needs_no_secret():
    for template in templates(ray_job(RUN, config(serviceAccount="run"))):
        assert "secretKeyRef" not in json.dumps(template["spec"]["containers"])
        assert template["spec"]["serviceAccountName"] == "run"


def test_kueue_gets_its_queue_and_the_priority_of_the_runs_class():
    ours = config(kueue={"queue": "training", "priorityClasses": {"high": "urgent"}})
    labels = ray_job(replace(RUN, priority_class="high"), ours)["metadata"]["labels"]
    assert labels["kueue.x-k8s.io/queue-name"] == "training"
    assert labels["kueue.x-k8s.io/priority-class"] == "urgent"
    assert "kueue.x-k8s.io/priority-class" not in ray_job(RUN, ours)["metadata"]["labels"]


def test_on_a_standing_cluster_a_run_starts_no_pods():
    job = ray_job(RUN, config(standingCluster=STANDING))
    assert job["spec"]["clusterSelector"] == {"ray.io/cluster": "warm"}
    assert not {"rayClusterSpec", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished"} & set(job["spec"])
    assert f"--token-file /var/run/lorafleet/{RUN.run_id}" in job["spec"]["entrypoint"]


def test_what_the_driver_writes_can_be_told_from_all_else_and_its_exit_code_stays(tmp_path: Any):
    """The command line itself, with another driver, and a file for the container's output."""
    output = tmp_path / "output"
    output.write_text("")
    line = entrypoint(RUN, config()).replace("/proc/1/fd/1", str(output))
    shell = shlex.split(line)
    driver, rest = shell[-1].split(" 2>&1 ", 1)
    assert driver.startswith("{ ")
    assert "trainer.run" in driver
    script = (
        f"sh -c 'echo one; echo two >&2; exit 7' 2>&1 {rest.replace('> ' + str(output), '>> ' + str(output))}; code=$?; wait; exit $code"
    )
    ran = subprocess.run([*shell[:-1], script], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 7
    assert ran.stdout == "one\ntwo\n"
    written = [b"ray start ...\n", *output.read_bytes().splitlines(keepends=True), b"bye\n"]
    assert b"".join(driver_line(line, log_prefix(RUN.run_id).encode()) for line in written) == b"one\ntwo\n"


def test_an_object_of_that_name_is_ours_only_if_it_was_made_for_the_run():
    ours = ray_job(RUN, config())
    assert is_ours(ours, RUN)
    assert not is_ours(ours, replace(RUN, instance="another"))
    assert not is_ours({"metadata": {"name": RUN.run_id}}, RUN)


@pytest.mark.parametrize("tenant", ["acme", "acme-", "a--", ""])
def test_any_tenants_id_makes_labels_that_kubernetes_takes(tenant: str):
    found = labels(replace(RUN, tenant=tenant))
    assert all(re.fullmatch(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?", value) for value in found.values())
