"""The guards of what goes on while the clock is set."""

GUARDS = (
    (
        "clock: what goes on is carried over a step",
        "service/db/database.py",
        "                        if not step:\n",
        "                        if True:\n",
        "tests/service/reconcile/test_clock_steps.py",
    ),
    (
        "clock: a step is carried over once, whoever notices it",
        "service/db/clock_steps.py",
        "update(ServiceRow).where(ServiceRow.clock_carried_us == _us(carried)).values",
        "update(ServiceRow).values",
        "tests/service/reconcile/test_clock_steps.py",
    ),
    (
        "clock: small steps add up",
        "service/core/clock.py",
        "self._apart_s += max(-followed_s, min(followed_s, moved_s))",
        "self._apart_s = apart_s",
        "tests/service/core/test_clock.py",
    ),
    (
        "clock: a run's token is not aged by a step",
        "service/runs/reports.py",
        "min(self._db.clock.now(), self._db.even_now())",
        "self._db.clock.now()",
        "tests/service/reconcile/test_clock_steps.py",
    ),
)
