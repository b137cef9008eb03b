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
)
