"""One worker's loop: train_loop_per_worker. Every rank runs this; rank 0 also speaks to the control plane and the store.

After a pack the workers stay, warm, for the next one on the same base: processes, imports and base weights are there already.
Workers that stand by begin with no pack: processes and imports are there when the first one comes, on whatever base.
Imports nothing heavy at the top, because the driver imports this file to send it.
"""

import logging
import math
import os
import resource
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psutil

from lorafleet.contract.s3_settings import learn_regions
from lorafleet.errors import RunFailed
from lorafleet.spec import ClusterSpec
from trainer import eviction, run_log, store_credentials, style_isolation
from trainer.prepare.pack import prepare_given, read_manifest
from trainer.prepare.style import PreparedStyle
from trainer.report import Address, Reporter
from trainer.run_plan import RunPlan
from trainer.storage import Folder
from trainer.tracing import TraceTo, span, tracing

if TYPE_CHECKING:
    from trainer.frozen_base import FrozenBase
    from trainer.group import Group

log = logging.getLogger("lorafleet.loop")


def train_loop_per_worker(plan: RunPlan) -> None:
    """Trains the pack, one artifact for each style, and then the packs that warm workers are given."""
    from trainer.group import Group

    group = Group.current()
    run_log.set_up(group.rank)
    os.environ["HF_HUB_OFFLINE"] = "1"  # everything comes from the store; a missing file must fail, not be looked up
    store_credentials.adopt(plan.store_env)
    with eviction.at_work():
        _train_one_after_another(plan, group)


def _train_one_after_another(plan: RunPlan, group: "Group") -> None:
    import ray.train

    worker = WarmWorker(group)
    following: RunPlan | None = plan
    while following is not None:
        with _reporting(following, group) as reporter:
            with tracing(following.trace_to if group.rank == 0 else TraceTo()):
                if following is plan:  # warm workers were there
                    with span("start workers", since=plan.planned_at):
                        pass
                with span("train", num_jobs=len(following.pack)):
                    worker.train(following, reporter)
            ray.train.report({"run": following.run, "styles": len(following.pack)})  # Ray logs it: before the log is the next run's
            given = _next_run(following, reporter, group, may_wait=not worker.must_leave)
        following = given


class WarmWorker:
    """A worker and what it keeps from pack to pack."""

    def __init__(self, group: "Group") -> None:
        self.group = group
        self.base: FrozenBase | None = None
        self.must_leave = False  # a pod of the run is about to go

    def train(self, plan: RunPlan, reporter: Reporter | None) -> None:
        if self.group.rank == 0:
            log.info("== run %s ==", plan.run)
        learn_regions(plan.bucket_regions)
        if plan.standby is not None:
            _import_the_stack(plan.standby.cluster)
        if not plan.pack:
            return
        for style in plan.pack:
            if reporter is not None:
                reporter.progress(style.job, phase="loading", max_steps=style.spec.training.max_steps)
        # Imported while the control plane already knows that the worker lives: the stack takes many seconds.
        from trainer.engine import select_accelerator

        device = select_accelerator(plan.pack[0].spec.cluster)
        from trainer.pack.run import PackRun

        for styles in trainable_together(plan.pack):
            if self.must_leave:  # not begun here: they go on elsewhere
                if reporter is not None:
                    for style in styles:
                        reporter.stopped(style.job, step=0)
                continue
            base = self._base(styles, device, reporter)
            if base is None:
                continue
            run = PackRun(styles, base, Folder(plan.cache_uri), self.group, reporter, batch_invariant=plan.batch_invariant)
            run.train()
            self.must_leave = run.must_leave
            if styles[0].spec.cluster.zero_stage == 3:
                self.base = None  # partitioned: no other engine can have it
        if self.group.rank == 0:
            log.info("peak memory %d MiB", _peak_memory_mib(device))

    def _base(self, styles: Sequence[PreparedStyle], device: Any, reporter: Reporter | None) -> "FrozenBase | None":
        """None: it cannot be loaded, which was reported of each of its styles."""
        try:
            with style_isolation.only(styles[0].job, f"loading base_model.uri: {styles[0].base.uri}", self.group):
                return self._loaded(styles, device)
        except RunFailed as error:
            self.base = None
            for style in styles:
                _say_failed(style, styles[0].base.uri, error, reporter)
            return None

    def _loaded(self, styles: Sequence[PreparedStyle], device: Any) -> "FrozenBase":
        from trainer.frozen_base import FrozenBase

        style, precision = styles[0], styles[0].spec.training.precision
        if self.base is None or not self.base.serves(style.base, precision, device):
            self.base = FrozenBase(style.base, precision, device)
        self.base.read_from(style.base)
        self.base.load(trains_text=any(each.spec.trains_text for each in styles))
        return self.base


def _say_failed(style: PreparedStyle, loaded_uri: str, error: RunFailed, reporter: Reporter | None) -> None:
    """Styles on one base may know it by their own tenant's address."""
    message = error.message.replace(loaded_uri, style.base.uri)
    with run_log.about(style.job):
        log.error("%s", message)
    if reporter is not None:
        reporter.failed(style.job, RunFailed(message, reason=error.reason, retryable=error.retryable))


def _import_the_stack(cluster: ClusterSpec) -> None:
    """All that training needs of code, as `WarmWorker.train` comes upon it: the device is chosen before DeepSpeed is imported."""
    from trainer.engine import select_accelerator

    device = select_accelerator(cluster)
    from trainer import warm_up

    warm_up.warm_up(device)


def trainable_together(styles: Sequence[PreparedStyle]) -> list[list[PreparedStyle]]:
    """The styles in packs that one engine can train, in order. The control plane plans for that; a manifest by hand need not."""
    packs: dict[tuple[object, ...], list[PreparedStyle]] = {}
    for style in styles:
        training, cluster = style.spec.training, style.spec.cluster
        alone = style.job if style.spec.why_alone else ""
        precisions = (training.precision, training.text_precision)
        launched = (training.gradient_checkpointing, training.compile)
        alike = (style.base.identity, *precisions, *launched, cluster.zero_stage, cluster.offload, alone)
        packs.setdefault(alike, []).append(style)
    return list(packs.values())


def _next_run(plan: RunPlan, reporter: Reporter | None, group: "Group", *, may_wait: bool) -> RunPlan | None:
    """The next run of warm workers; None: none came in time, or they may not wait."""
    return group.agree(_wait_for_next(plan, reporter, may_wait=may_wait) if reporter is not None else None)


def _wait_for_next(plan: RunPlan, reporter: Reporter, *, may_wait: bool) -> RunPlan | None:
    if not reporter.flush():
        raise RuntimeError("the end of this run could not be reported; the next attempt will find the artifacts")
    idle_s = math.inf if plan.standby is not None else plan.warm_idle_s  # who stands by is told when to end
    may_wait = may_wait and idle_s > 0 and _is_within_its_memory(plan)
    following = reporter.wait_for_next(idle_s) if may_wait else None
    if following is None:
        return None
    log.info("== run %s ==", following.run)  # from here on the log belongs to the next run; the control plane splits it here
    given = read_manifest(following.manifest_uri)
    manifest = given.manifest
    address = Address.of(manifest, None, token=following.token)
    with tracing(TraceTo.of(manifest)), Reporter(address, source="warm") as preparing:
        with span("prepare", num_jobs=len(manifest.pack)):
            pack = prepare_given(given, preparing)
        preparing.flush()
    return RunPlan.of(manifest, pack, preparing.address, {})  # it uses the store credentials of the previous run


def _is_within_its_memory(plan: RunPlan) -> bool:
    """False for a process that holds more memory than is reserved for it: it ends rather than wait."""
    limit_gib, held_bytes = plan.memory_limit_gib, psutil.Process().memory_info().rss
    if plan.standby is not None:
        log.info("stands by; holds %d MiB", held_bytes // 2**20)
    return limit_gib is None or held_bytes <= limit_gib * 2**30


@contextmanager
def _reporting(plan: RunPlan, group: "Group") -> Generator[Reporter | None]:
    if group.rank != 0:
        yield None
        return
    with Reporter(plan.report_to, source="worker-0") as reporter:
        yield reporter


def _peak_memory_mib(device: Any) -> int:
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device) // 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024  # KiB on Linux
