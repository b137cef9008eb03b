"""The guards of rounds of admission, of what waiting jobs are told, and of what is left for the next start."""

_ADMISSION = "tests/service/control/test_admission.py"
_WAITING = "tests/service/reconcile/test_operators_faults.py"

GUARDS = (
    (
        "preemption: nobody is stopped for a place that is free soon anyway",
        "service/control/admission.py",
        "if run.may_stop and self._end_s(run) > self._soon_s",
        "if run.may_stop and not run.stops",
        _ADMISSION,
    ),
    (
        "preemption: a run gives its place once",
        "service/control/admission.py",
        "self._profile.give_back(victim.resources, self._soon_s, victim.ends_s)",
        "self._profile.give_back(victim.resources, self._soon_s, math.inf)",
        _ADMISSION,
    ),
    (
        "operators' faults: a full disk outside the store is one",
        "service/db/row_faults.py",
        ".kind is FaultKind.OPERATOR:",
        ".kind is None:",
        _WAITING,
    ),
    (
        "operators' faults: a job that could join says what it waits for",
        "service/reconcile/join.py",
        "if isinstance(trouble.error, OperatorsFault):",
        "if False:",
        _WAITING,
    ),
    (
        "scratch: what a living process holds is not swept up",
        "trainer/scratch.py",
        "fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "pass",
        "tests/trainer/test_scratch.py",
    ),
    (
        "regions: no client asks itself without end",
        "lorafleet/contract/s3_settings.py",
        'client.meta.events.register("before-call.s3.HeadBucket", _ask_once)',
        "",
        "tests/test_s3_regions.py",
    ),
)
