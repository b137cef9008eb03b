"""A worker's loop over runs of tasks: it does those of one, then stays, warm, for the next run that asks for the same.

Imports nothing heavy at the top, because the driver imports this file to send it.
"""

import logging
import os

import psutil

from lorafleet.contract.s3_settings import learn_regions
from lorafleet.errors import RunFailed
from trainer import eviction, run_log, store_credentials, style_isolation
from trainer.prepare.pack import read_manifest
from trainer.report import Address, Reporter
from trainer.tracing import span, tracing
from trainer.work import Worker, worker
from trainer.work.plan import WorkPlan

log = logging.getLogger("lorafleet.work")


def work_one_after_another(plan: WorkPlan) -> None:
    """The tasks of the run, and then those of the runs that warm workers are given."""
    run_log.set_up(0)
    os.environ["HF_HUB_OFFLINE"] = "1"  # everything comes from the store; a missing file must fail, not be looked up
    store_credentials.adopt(plan.store_env)
    with eviction.at_work():
        made, following = worker(plan.kind), plan
        while following is not None:
            learn_regions(following.bucket_regions)
            log.info("== run %s ==", following.run)
            with tracing(following.trace_to), Reporter(following.report_to, source="worker-0") as reporter:
                with span("work", num_jobs=len(following.tasks)):
                    do_all(made, following, reporter)
                following = _next_run(following, reporter)


def do_all(made: Worker, plan: WorkPlan, reporter: Reporter) -> None:
    """Every task of the run, each to its own end. Raises StaleAttempt, and what breaks the worker."""
    for task in plan.tasks:
        if eviction.is_told():  # not begun here: it goes on elsewhere
            reporter.stopped(task.name, step=0)
            continue
        try:
            with style_isolation.only(task.name, plan.kind):
                artifact = made.do(task, plan.cluster, reporter)
        except RunFailed as error:
            with run_log.about(task.name):
                log.error("%s", error)
            reporter.failed(task.name, error)
        else:
            reporter.stopped(task.name, step=0) if artifact is None else reporter.succeeded(task.name, 0, artifact)


def _next_run(plan: WorkPlan, reporter: Reporter) -> WorkPlan | None:
    """None: none came in time, or this worker must not wait."""
    if not reporter.flush():
        raise RuntimeError("the end of this run could not be reported; the next attempt will find what is done")
    limit_gib = plan.cluster.memory_gib_per_worker
    holds_more = limit_gib is not None and psutil.Process().memory_info().rss > limit_gib * 2**30
    if eviction.is_told() or holds_more or plan.warm_idle_s <= 0:
        return None
    following = reporter.wait_for_next(plan.warm_idle_s)
    if following is None:
        return None
    manifest = read_manifest(following.manifest_uri).manifest
    return WorkPlan.of(manifest, Address.of(manifest, None, token=following.token), {})  # with the store credentials of the one before
