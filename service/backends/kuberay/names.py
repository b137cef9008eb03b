"""Names runs on Kubernetes, and the labels by which they are found. Pure."""

import hashlib
import re

from service.backends.base import RunRequest

RUN = "lorafleet.dev/run"
INSTANCE = "lorafleet.dev/instance"
TENANT = "lorafleet.dev/tenant"
MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "lorafleet"  # field manager, and the value of managed-by
SELECTOR = f"{MANAGED_BY}={MANAGER}"

MAX_NAME = 47  # KubeRay's: it adds to a RayJob's name
_GOOD = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")


def object_name(run_id: str) -> str:
    """The name of a run's objects: its id, or where that is no name, what is made of it for ever."""
    if len(run_id) <= MAX_NAME and _GOOD.fullmatch(run_id):
        return run_id
    return f"run-{hashlib.sha256(run_id.encode()).hexdigest()[:32]}"


def labels(run: RunRequest) -> dict[str, str]:
    """On every object of a run. A run of several tenants has an empty tenant. A tenant's id may end in a dash and a label may
    not: nothing is found by it, people read it."""
    return {RUN: object_name(run.run_id), INSTANCE: run.instance, TENANT: run.tenant.rstrip("-"), MANAGED_BY: MANAGER}
