"""Databases with many jobs in them for bench.service: rows made by the thousand, not through the API."""

from datetime import datetime, timedelta
from functools import cache
from typing import Any
from uuid import uuid4

from sqlalchemy import insert

from lorafleet import spec
from service.control.lifecycle import JobState
from service.control.runs import RunState
from service.core.concurrency import slices
from service.core.resource_names import JobName
from service.db.database import Database
from service.db.models import JobRow, RunJobRow, RunLogRow, RunRow

SLICE = 1000


async def add_jobs(db: Database, folder: str, tenant: str, number: int) -> None:
    """Finished jobs of a tenant, a second apart, each with a run that is gone and a log that is copied."""
    now = db.clock.now()
    await _insert(db, [_job(folder, tenant, index, number, now, finished=True) for index in range(number)])


async def add_live_jobs(db: Database, folder: str, tenant: str, number: int) -> list[str]:
    """Jobs that train, each alone in a run that the backend has; the runs' ids."""
    now = db.clock.now()
    rows = [_job(folder, tenant, index, number, now, finished=False) for index in range(number)]
    await _insert(db, rows)
    return [run["id"] for _, run, _, _ in rows]


Rows = tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any]]  # job, run, its place in it, log


def _job(folder: str, tenant: str, index: int, number: int, now: datetime, *, finished: bool) -> Rows:
    uid, run_id = uuid4().hex, f"run-{uuid4().hex[:16]}"
    at = now - timedelta(seconds=number - index)
    name = JobName(tenant, f"job-{index}")
    state = JobState.SUCCEEDED if finished else JobState.RUNNING
    job = {
        "uid": uid, "tenant": tenant, "job_id": name.job_id, "spec": _stored_spec(folder), "labels": {"team": f"t{index % 10}"},
        "output_uri": f"file://{folder}/out/{name}", "state": state.value, "reason": "", "message": "", "attempt": 1, "failures": 0,
        "cancel_requested": False, "create_time": at, "update_time": at, "first_step_time": at, "end_time": now if finished else None,
        "artifact_uri": f"file://{folder}/out/{name}/adapter" if finished else None, "artifact_sha256": "ab" * 32 if finished else None,
    }  # fmt: skip
    run = {
        "id": run_id, "host_id": run_id, "in_company": False, "state": (RunState.GONE if finished else RunState.LAUNCHED).value,
        "handle": f"fake:{run_id}", "create_time": at, "launch_time": at, "gone_time": now if finished else None, "report_time": now,
        "seen_time": now, "due_at": now, "num_launches": 1, "stop_reason": "", "stop_message": "",
    }  # fmt: skip
    outcome = "SUCCEEDED" if finished else None
    place = {"run_id": run_id, "job_uid": uid, "attempt": 1, "outcome": outcome, "reason": "", "message": "", "retryable": False}
    return job, run, place, {"run_id": run_id, "due_at": now, "size_bytes": 0, "complete": True}


@cache
def _stored_spec(folder: str) -> dict[str, Any]:
    known = spec.parse({"base_model": {"uri": f"file://{folder}/base"}, "dataset": {"uri": f"file://{folder}/pictures"}})
    return known.model_dump(mode="json")


async def _insert(db: Database, rows: list[Rows]) -> None:
    kinds = (JobRow, RunRow, RunJobRow, RunLogRow)
    for some in slices(rows, SLICE):
        async with db.transaction() as tx:
            for place, kind in enumerate(kinds):
                await tx.session.execute(insert(kind), [row[place] for row in some])
