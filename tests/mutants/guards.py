"""The guards, each with a patch that takes it away and the tests that must turn red then.

A patch is exact text that occurs once in its file. When the code moves on and a patch no longer applies,
tests/test_mutants.py says so: move the patch along with its guard. Further ones are in modules beside this one named of_...
"""

import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module

import tests.mutants


@dataclass(frozen=True, kw_only=True)
class Guard:
    """One guard. `tests` are what pytest is given."""

    name: str
    path: str
    before: str
    after: str
    tests: str


def guards() -> list[Guard]:
    """All of them."""
    return [
        Guard(name=name, path=path, before=before, after=after, tests=tests)
        for name, path, before, after, tests in (*_GUARDS, *_of_modules())
    ]


def _of_modules() -> Iterator[tuple[str, str, str, str, str]]:
    """What every module `of_...` in this package has as its GUARDS."""
    for module in sorted(found.name for found in pkgutil.iter_modules(tests.mutants.__path__) if found.name.startswith("of_")):
        yield from import_module(f"tests.mutants.{module}").GUARDS


_GUARDS = (
    (
        "lock token: a held row is taken by nobody else",
        "service/db/locks.py",
        "select(kind).where(*eligible, free)",
        "select(kind).where(*eligible)",
        "tests/service/reconcile/test_launch.py",
    ),
    (
        "lock token: who lost the row writes nothing",
        "service/db/locks.py",
        "kind.lock_token == taken[0].lock_token, kind.lock_expires_at > tx.now",
        "kind.lock_expires_at > tx.now,",
        "tests/service/reconcile/test_launch.py tests/service/reconcile/test_observe.py",
    ),
    (
        "lease expiry: a lock that expired is not held",
        "service/db/locks.py",
        "kind.lock_token == taken[0].lock_token, kind.lock_expires_at > tx.now",
        "kind.lock_token == taken[0].lock_token,",
        "tests/service/reconcile/test_launch.py",
    ),
    (
        "lease expiry: a dead holder's row is free again",
        "service/db/locks.py",
        "or_(kind.lock_expires_at.is_(None), kind.lock_expires_at <= tx.now)",
        "or_(kind.lock_expires_at.is_(None))",
        "tests/service/reconcile/test_launch.py",
    ),
    (
        "run token: a report carries its own run's",
        "service/runs/reports.py",
        "newer = self._tokens.check(request.run, token, min(self._db.clock.now(), self._db.even_now()))",
        'newer = ""',
        "tests/service/runs/test_reports.py",
    ),
    (
        "attempt: a run that was replaced is refused",
        "service/runs/reports.py",
        "if run is None or (run.state == RunState.GONE.value and not await hosts.is_alive(tx, run.host_id)):",
        "if run is None:",
        "tests/service/runs/test_reports.py",
    ),
    (
        "attempt: the end of a run is not the end of a later attempt",
        "service/runs/settlement.py",
        "if job.attempt != member.place.attempt:",
        "if False:",
        "tests/service/test_attempts.py",
    ),
    (
        "attempt: the next starts once this run is gone",
        "service/db/jobs.py",
        "or_(JobRow.attempt == 0, ~live)]",
        "or_(JobRow.attempt == 0, JobRow.attempt > 0)]",
        "tests/service/test_attempts.py",
    ),
    (
        "report sequence: a doubled report changes nothing",
        "service/runs/reports.py",
        "if event.sequence > source.last_sequence:",
        "if True:",
        "tests/service/runs/test_reports.py",
    ),
    (
        "report: the first word about the end counts",
        "service/runs/reports.py",
        "    if place.outcome is not None:  # the first report of an end counts\n        return\n",
        "",
        "tests/service/test_attempts.py",
    ),
    (
        "idempotency key: a repeated create answers the first job",
        "service/jobs/creation.py",
        "(found := self.answered.get(new.request_id)) is not None",
        "(found := self.answered.get('')) is not None",
        "tests/service/api/test_create.py",
    ),
    (
        "idempotency key: another body under a known key is refused",
        "service/jobs/creation.py",
        "if found.body_sha256 != new.body_sha256:",
        "if False:",
        "tests/service/api/test_create.py",
    ),
    (
        "tenant filter: a page shows its own tenant's jobs",
        "service/db/job_pages.py",
        "select(JobRow).where(JobRow.tenant == tenant, *matches)",
        "select(JobRow).where(*matches)",
        "tests/service/api/test_tenants_apart.py",
    ),
    (
        "tenant filter: another tenant's job is not found",
        "service/db/jobs.py",
        "select(JobRow).where(JobRow.tenant == tenant, JobRow.job_id == job_id)",
        "select(JobRow).where(JobRow.job_id == job_id)",
        "tests/service/api/test_tenants_apart.py",
    ),
    (
        "tenant filter: a watch shows its own tenant's changes",
        "service/api/watch/jobs.py",
        "[JobEventRow.tenant == self.scope.tenant, ",
        "[JobEventRow.tenant != '', ",
        "tests/service/api/test_tenants_apart.py",
    ),
    (
        "output folder: two unfinished jobs never share one",
        "service/jobs/creation.py",
        "                    there.check_output(draft.row)\n",
        "",
        "tests/service/api/test_create.py",
    ),
    (
        "grants: what was checked by grants that no longer hold is not accepted",
        "service/jobs/creation.py",
        "if draft.allowance != allowance:",
        "if False:",
        "tests/service/jobs/test_creation.py",
    ),
    (
        "page token: good with its own query only",
        "service/api/lists/paging.py",
        'if values.get("query") != _digest(query):',
        "if False:",
        "tests/service/api/lists/test_jobs.py",
    ),
    (
        "resume token: good with its own watch only",
        "service/api/watch/resume_tokens.py",
        "!= scope.values():",
        "== {}:",
        "tests/service/api/watch/test_jobs.py",
    ),
    (
        "watch: one that has fallen behind the log is told, and misses nothing in silence",
        "service/api/watch/jobs.py",
        "if self.seq < floor_seq:",
        "if False:",
        "tests/service/api/watch/test_behind.py",
    ),
    (
        "watch: what the snapshot has shown is not shown again",
        "service/api/watch/jobs.py",
        "if event.version > self.seen.get(event.job_uid, 0)]",
        "if event.version > 0]",
        "tests/service/api/watch/test_jobs.py",
    ),
    (
        "feed: a topic does not answer for what it never read",
        "service/api/watch/feed.py",
        "if seq < self.since:",
        "if False:",
        "tests/service/api/watch/test_feed.py",
    ),
    (
        "rate limit: a tenant without calls left waits",
        "service/api/interceptors/call_limits.py",
        "if wait_s := bucket.wait(rate, self.monotonic()):",
        "if False:",
        "tests/service/api/interceptors/test_limiting.py",
    ),
    (
        "etag: another state than the caller saw is not changed",
        "service/core/etags.py",
        'if wanted not in {"", etag}:',
        "if False:",
        "tests/service/api/test_etags.py",
    ),
    (
        "slow reader: a stream that is not read ends",
        "service/api/interceptors/flow_control.py",
        "async with asyncio.timeout(self._slow_reader_s):",
        "async with asyncio.timeout(None):",
        "tests/service/api/interceptors/test_flow_control.py",
    ),
    (
        "orphans: only those that the database does not know",
        "service/reconcile/orphans.py",
        "if run.run_id not in known:",
        "if True:",
        "tests/service/reconcile/test_orphans.py",
    ),
    (
        "orphans: they are ended",
        "service/reconcile/orphans.py",
        "                await tools.backend.stop(run)\n",
        "                pass\n",
        "tests/service/reconcile/test_orphans.py",
    ),
    (
        "orphans: another service's runs are left alone",
        "service/backends/ray_jobs.py",
        '(job.get("metadata") or {}).get(INSTANCE) == instance',
        "True",
        "tests/service/backends/test_contract.py",
    ),
    (
        "life: an ended job stays ended",
        "service/control/lifecycle.py",
        "    if job.finished:\n        return job\n    job = launched(job, at)\n",
        "    job = launched(job, at)\n",
        "tests/service/test_attempts.py",
    ),
    (
        "artifact: a lost last report is not a lost job",
        "service/reconcile/observe.py",
        "return Look(run, pack, seen, await _committed(tools, run, [*pack, *waiting]))",
        "return Look(run, pack, seen)",
        "tests/service/reconcile/test_observe.py",
    ),
    (
        "quota: jobs that run",
        "service/control/quotas.py",
        "if quota.max_running_jobs is not None and used.running_jobs + num_more >= quota.max_running_jobs:",
        "if False:",
        "tests/service/control/test_admission.py",
    ),
    (
        "quota: GPUs",
        "service/control/quotas.py",
        "if quota.max_gpus is not None and used.gpus + gpus > quota.max_gpus + EPSILON:",
        "if False:",
        "tests/service/control/test_admission.py",
    ),
    (
        "quota: jobs that wait, at create",
        "service/jobs/creation.py",
        "                    room.take()\n",
        "",
        "tests/service/reconcile/test_capacity.py",
    ),
    (
        "admission epoch: a round that another has overtaken is not applied",
        "service/reconcile/admit.py",
        "if not await queue.lock_admission(tx, self.epoch):",
        "if await queue.lock_admission(tx, self.epoch) is None:",
        "tests/service/reconcile/test_capacity.py",
    ),
    (
        "permission: a role that is too small is refused",
        "service/access/authorization.py",
        "if not allows(role, permission):",
        "if False:",
        "tests/service/access",
    ),
    (
        "tenant filter: who is no member finds no tenant",
        "service/access/authorization.py",
        "if role is None:\n            raise NotFound",
        "if False:\n            raise NotFound",
        "tests/service/access",
    ),
    (
        "tenant filter: an API token is good in its own tenant",
        "service/access/authorization.py",
        "return identity.role if identity.tenant == tenant else None",
        "return identity.role",
        "tests/service/access",
    ),
    (
        "permission: another's job is not ended by who may only submit",
        "service/access/authorization.py",
        "if who.principal != created_by and not allows(role, Permission.OPERATE):",
        "if False:",
        "tests/service/access",
    ),
)
