"""The guards of where runs execute: what can never fit there, and workers that stand by."""

GUARDS = (
    (
        "capacity: what can never fit where runs execute is refused",
        "service/control/packing.py",
        "(refusal := _beyond(job, hardware) or _refusal(job, limits))",
        "(refusal := _refusal(job, limits))",
        "tests/service/reconcile/test_capacity.py",
    ),
    (
        "capacity: also when it was admitted before the size was known",
        "service/backends/ray_jobs.py",
        "_check_size(run, self._cluster.hardware())",
        "pass",
        "tests/service/backends/test_ray_jobs.py",
    ),
    (
        "standby: workers give way at once",
        "service/runs/warm_workers.py",
        "linger_s if run.standby is None else 0.0",
        "linger_s",
        "tests/service/reconcile/test_standby.py",
    ),
    (
        "standby: a tenant with store credentials of its own does not get them",
        "service/control/compatibility.py",
        "not wanted.store_credentials and wanted.cluster.shape == self.cluster.shape",
        "wanted.cluster.shape == self.cluster.shape",
        "tests/service/reconcile/test_standby.py",
    ),
    (
        "standby: workers that come up are not a run whose jobs have all ended",
        "service/runs/reports.py",
        "if run.standby is not None:  # its workers come up",
        "if False:",
        "tests/service/reconcile/test_standby.py",
    ),
    (
        "standby: who fails is not tried again at once",
        "service/control/standby.py",
        "moment.retry_in_s <= 0 and",
        "",
        "tests/service/control/test_standby.py",
    ),
    (
        "standby: none comes up where nobody could see that it must give way",
        "service/control/standby.py",
        "return is_idle and is_known and",
        "return is_idle and",
        "tests/service/control/test_standby.py",
    ),
    (
        "standby: what was free may be taken by now",
        "service/reconcile/standby.py",
        "if not await queue.lock_admission(tx, epoch) or await queue.num_waiting(tx):",
        "if False:",
        "tests/service/reconcile/test_standby.py",
    ),
)
