"""The guards of what only operators can mend: it ends no job, and what is one job's holds up nobody else."""

_WAITING = "tests/service/reconcile/test_operators_faults.py"

GUARDS = (
    (
        "operators' faults: a run that ends by one costs no attempt",
        "service/control/attempts.py",
        "if reason in store_faults.OPERATORS:",
        "if False:",
        "tests/service/control/test_attempts.py",
    ),
    (
        "operators' faults: they end no job, whatever the trainer says of trying again",
        "service/control/lifecycle.py",
        "if not ending.retryable and ending.reason not in store_faults.OPERATORS:",
        "if not ending.retryable:",
        _WAITING,
    ),
    (
        "operators' faults: nothing more is admitted while launches meet one",
        "service/reconcile/admit.py",
        "free, waits = _not_held_up(tools, fitting)",
        "free, waits = list(fitting), dict[str, Wait]()",
        _WAITING,
    ),
    (
        "operators' faults: a clock that is set back makes nothing wait longer for them",
        "service/reconcile/admit.py",
        "now, waits = tools.db.even_now(), dict[str, Wait]()",
        "now, waits = tools.db.clock.now(), dict[str, Wait]()",
        _WAITING,
    ),
    (
        "operators' faults: a refusal in the service's own folder is one",
        "service/reconcile/launch.py",
        "except StoreError as error:  # in a folder of the service's own: no job has named it",
        "except ZeroDivisionError as error:",
        _WAITING,
    ),
    (
        "launch: what stands in the way of one job's folder is that job's alone",
        "service/reconcile/launch.py",
        "except OperatorsFault as error:\n            refused[name] = error",
        "except ZeroDivisionError as error:\n            refused[name] = error",
        _WAITING,
    ),
    (
        "launch: a run goes on without the members that were set aside",
        "service/reconcile/launch.py",
        "left = [member for member in pack if member.place.outcome is None]",
        "left = pack",
        _WAITING,
    ),
    (
        "observe: a store that refuses for good holds no run for ever",
        "service/reconcile/observe.py",
        "            if isinstance(trouble.error, Unavailable):  # that",
        "            if trouble.error:  # that",
        _WAITING,
    ),
    (
        "store faults: what a name quotes is no answer",
        "lorafleet/contract/store_faults.py",
        'answers = text.rfind("status code: ")',
        'answers = text.find("status code: ")',
        "tests/lorafleet/contract/test_store_faults.py",
    ),
    (
        "state files: the old one stays until the new one is on the disk",
        "lorafleet/state_files.py",
        "            _write_through(temporary, text.encode())\n            temporary.replace(path)",
        "            path.write_text(text)\n            path.chmod(PRIVATE)\n            os.fsync(0)",
        "tests/lorafleet/test_state_files.py",
    ),
    (
        "database: a lock that another process holds is named",
        "service/db/errors.py",
        "if said.startswith(_SQLITE_LOCKED):",
        "if False:",
        "tests/service/db/test_unwritable.py",
    ),
    (
        "database: readiness says that nothing can be written",
        "service/observability/health.py",
        "await db.check_writable()",
        "pass",
        "tests/service/db/test_unwritable.py",
    ),
    (
        "database: who waits behind a write that failed does not wait for the lock again",
        "service/db/database.py",
        "self.clock.monotonic_s() - self._trouble[0] < TRY_AGAIN_S",
        "self.clock.monotonic_s() < self._trouble[0]",
        "tests/service/db/test_unwritable.py",
    ),
    (
        "grants: a symbolic link opens no folder that is not granted",
        "service/tenancy/grants.py",
        "    real = _real(use.uri)",
        "    real = use.uri",
        "tests/service/tenancy/test_links.py",
    ),
)
