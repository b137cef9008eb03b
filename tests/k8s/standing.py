"""deploy/standing-cluster.yaml on the tests' cluster: small, of the fast trainer, and with the release's runs on it meanwhile."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

from deploy.kubectl import apply, get, kubectl
from deploy.store import PORT, SERVICE
from tests.k8s.release import REPOSITORY, Release
from tests.k8s.waiting import until

TOKENS = "lorafleet-run-tokens"
STANDS_WITHIN_S = 300
Object = dict[str, Any]


@contextmanager
def standing_cluster(release: Release, places: int) -> Iterator[str]:
    """The RayCluster's name. It has a head alone, for runs that start no workers: `places` of them at once."""
    namespace, wanted = release.runs_namespace, _ray_cluster(release)
    name = wanted["metadata"]["name"]
    values = _values(release, {"name": name, "namespace": namespace}, places)
    with ExitStack() as stack:
        release.helm("upgrade", "lorafleet", str(REPOSITORY / "helm" / "lorafleet"), "--values", str(values), "--wait")
        stack.callback(release.helm, "rollback", "lorafleet", "--wait")
        apply([wanted])
        stack.callback(kubectl, "-n", namespace, "delete", "raycluster", name, timeout_s=180)
        until(
            lambda: _is_ready(namespace, name), STANDS_WITHIN_S, f"{name} ready", lambda: kubectl("-n", namespace, "get", "raycluster,pod")
        )
        yield name


def _values(release: Release, standing: Object, places: int) -> Path:
    """All of the release's own, but with the standing cluster in place of tenants: helm cannot take a key out, and one that is set to
    null among reused values gets into the revision before as well."""
    values = yaml.safe_load(release.helm("get", "values", "lorafleet", "--output", "yaml"))
    del values["runs"]["tenants"]
    values["runs"]["standingCluster"] = standing
    values["serve"]["maxRunningRuns"] = places
    path = release.build / "standing-values.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def _is_ready(namespace: str, name: str) -> bool:
    return get("raycluster", namespace=namespace, name=name).get("status", {}).get("state") == "ready"


def _ray_cluster(release: Release) -> Object:
    wanted: Object = yaml.safe_load((REPOSITORY / "deploy" / "standing-cluster.yaml").read_text())
    wanted["metadata"]["namespace"] = release.runs_namespace
    wanted["spec"]["workerGroupSpecs"] = []
    pod = wanted["spec"]["headGroupSpec"]["template"]["spec"]
    pod["terminationGracePeriodSeconds"] = 10
    [container] = pod["containers"]
    container["image"] = release.trainer_image
    container["resources"] = {"requests": {"cpu": "50m", "memory": "2Gi"}, "limits": {"memory": "8Gi"}}
    store = {"AWS_ENDPOINT_URL": f"http://{SERVICE}.{release.namespace}.svc:{PORT}", "AWS_REGION": "us-east-1"}
    kept = [variable for variable in container["env"] if variable["name"] not in store]
    container["env"] = kept + [{"name": name, "value": value} for name, value in store.items()]
    return wanted
