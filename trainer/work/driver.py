"""The Ray driver of a run of tasks: one worker, as a Ray task of the resources that the spec asks for. Ray Train would add ten seconds."""

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

# As for workers of training (trainer/workers.py).
os.environ["RAY_DEDUP_LOGS"] = os.environ["RAY_COLOR_PREFIX"] = "0"

import ray
from ray.exceptions import RayError

from lorafleet.contract.run_manifest import RunManifest
from lorafleet.errors import InvalidInput, RunFailed
from trainer import style_isolation
from trainer.report import Address, Reporter, StaleAttempt, report_failed
from trainer.work.loop import work_one_after_another
from trainer.work.plan import WorkPlan

_GIB = 2**30
_ray: Any = ray  # its types are known in part

log = logging.getLogger("lorafleet.work")


def run_tasks(manifest: RunManifest, address: Address, store_env: Mapping[str, str]) -> int:
    """Exits 0 once every task's end is reported."""
    names = [task.name for task in manifest.tasks]
    try:
        plan = WorkPlan.of(manifest, address, store_env)
    except (InvalidInput, ModuleNotFoundError) as error:
        why = f"this trainer does not understand the spec: {error}; is it older than the control plane?"
        return 0 if report_failed(address, names, RunFailed(why, reason="INVALID_SPEC")) else 1
    with Reporter(address, source="driver") as reporter:
        for name in names:
            reporter.progress(name, phase="starting-workers")
        if not reporter.close():
            return 1
        address = reporter.address
    try:
        _work(replace(plan, report_to=address))
    except RunFailed as error:
        return 0 if report_failed(address, names, error) else 1
    except StaleAttempt:
        log.warning("run %s was replaced by another attempt; stopping", manifest.run)
    return 0


def _work(plan: WorkPlan) -> None:
    """Raises RunFailed or StaleAttempt as the worker raised it, else what Ray raises."""
    cluster = plan.cluster
    _ray.init(configure_logging=False)
    asked = {"num_cpus": cluster.cpus_per_worker, "num_gpus": cluster.gpus_per_worker or None}
    memory = None if cluster.memory_gib_per_worker is None else cluster.memory_gib_per_worker * _GIB
    # Retries are the control plane's: a second place that retries would break "at most one live attempt".
    worker = _ray.remote(work_one_after_another).options(**asked, memory=memory, max_retries=0, name=plan.kind)
    try:
        _ray.get(worker.remote(plan))
    except RayError as error:
        raise next((each for each in style_isolation.causes_of(error) if isinstance(each, RunFailed | StaleAttempt)), error) from None
