"""The worker group of a run: Ray Train's TorchTrainer at the size the spec asks for. Knows its API, with run_processes.py."""

import os
from collections.abc import Mapping
from functools import partial

# Its watcher would restart a preempted group inside the run: a second place that retries, and one more process to start.
os.environ["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "0"
# A log keeps every line, also one that two workers say alike, and lines carry no colours: our own marks tell them apart.
os.environ["RAY_DEDUP_LOGS"] = os.environ["RAY_COLOR_PREFIX"] = "0"

from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

from lorafleet.errors import RunFailed
from lorafleet.spec import ClusterSpec
from trainer.loop import train_loop_per_worker
from trainer.report import StaleAttempt
from trainer.run_plan import RunPlan
from trainer.run_processes import FewProcessesTrainer
from trainer.style_isolation import causes_of

_GIB = 2**30

# Ray waits 60 s for a group to start and then tries again: for ever, unless told otherwise.
_NO_RETRIES = FailureConfig(max_failures=0, max_preemption_failures=0, controller_failure_limit=10)


def fit(plan: RunPlan, *, storage_dir: str) -> None:
    """Trains the plan on its workers. Raises RunFailed or StaleAttempt as a worker raised it, else what Ray raises."""
    cluster = plan.cluster
    # The plan travels in the function and not in train_loop_config, which Ray shows on its dashboard: it has the run token.
    trainer = FewProcessesTrainer(
        partial(train_loop_per_worker, plan),
        scaling_config=scaling(cluster),
        torch_config=TorchConfig(backend="nccl" if cluster.gpus_per_worker else "gloo"),
        # Retries are the control plane's: a second place that retries would break "at most one live attempt".
        run_config=RunConfig(name=plan.run, storage_path=storage_dir, failure_config=_NO_RETRIES),
    )
    try:
        trainer.fit()
    except WorkerGroupError as error:
        raise first_cause(error.worker_failures) or error from None
    except ControllerError as error:
        raise RunFailed(
            f"cluster: {cluster.num_workers} workers did not start: {error.controller_failure}",
            reason="WORKERS_NOT_STARTED",
            retryable=True,
        ) from None


def scaling(cluster: ClusterSpec) -> ScalingConfig:
    """The workers that a spec asks for, in Ray's resources."""
    resources: dict[str, float] = {"CPU": cluster.cpus_per_worker}
    if cluster.gpus_per_worker:
        resources["GPU"] = cluster.gpus_per_worker
    if cluster.memory_gib_per_worker is not None:
        resources["memory"] = cluster.memory_gib_per_worker * _GIB
    return ScalingConfig(num_workers=cluster.num_workers, use_gpu=bool(cluster.gpus_per_worker), resources_per_worker=resources)


def first_cause(failures: Mapping[int, BaseException]) -> RunFailed | StaleAttempt | None:
    """The failure that a worker raised on purpose, if one did; the others are then only its victims."""
    causes = (cause for rank in sorted(failures) for cause in causes_of(failures[rank]))
    return next((cause for cause in causes if isinstance(cause, RunFailed | StaleAttempt)), None)
