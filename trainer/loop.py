"""One worker's loop: train_loop_per_worker. Every rank runs this; rank 0 also speaks to the control plane and the store.

Errors are raised, not reported, here: Ray hands them to the driver, which reports them once for the whole run.
Imports nothing heavy at the top, because the driver imports this file to send it.
"""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from trainer.plan import RunPlan
from trainer.report import Reporter
from trainer.storage import Folder

if TYPE_CHECKING:
    from trainer.group import Group


def train_loop_per_worker(plan: RunPlan) -> None:
    """Trains every style of the pack, one artifact each."""
    import ray.train

    from trainer.group import Group

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stdout)
    os.environ["HF_HUB_OFFLINE"] = "1"  # everything comes from the store; a missing file must fail, not be looked up
    group = Group.current()
    with _reporting(plan, group) as reporter:
        for style in plan.pack:
            if reporter is not None:
                reporter.progress(style.job, phase="loading", max_steps=style.spec.training.max_steps)
        # Imported while the control plane already knows that the worker lives: the stack takes many seconds.
        from trainer.engine import select_accelerator

        device = select_accelerator(plan.pack[0].spec.cluster)
        from trainer.style_run import StyleRun

        for style in plan.pack:
            run = StyleRun(style, Folder(plan.cache_uri), group, device, reporter)
            outcome = run.train()
            ray.train.report({"job": style.job, "step": run.step, "outcome": outcome})
        if reporter is not None and not reporter.close():
            raise RuntimeError("the control plane did not hear the end of this run; the next attempt finds the artifact")


@contextmanager
def _reporting(plan: RunPlan, group: "Group") -> Iterator[Reporter | None]:
    if group.rank != 0:
        yield None
        return
    with Reporter(plan.report_to, source="worker-0") as reporter:
        yield reporter
