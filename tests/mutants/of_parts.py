"""The guards of schedules, rates and averages, and of what parts of an adapter have of their own."""

GUARDS = (
    (
        "schedule: restarts begin at the peak again",
        "trainer/optimizers/schedule.py",
        "(spec.lr_cycles or 1) * done % 1.0",
        "done",
        "tests/trainer/optimizers/test_schedule.py",
    ),
    (
        "schedule: a polynomial ends above 0",
        "trainer/optimizers/schedule.py",
        "(spec.learning_rate - end) * (1 - done) ** (spec.lr_power or 1.0) + end",
        "spec.learning_rate * (1 - done) ** (spec.lr_power or 1.0)",
        "tests/trainer/optimizers/test_schedule.py",
    ),
    (
        "schedule: a rate has somewhere to fall to",
        "lorafleet/spec_rules.py",
        "if scheduler != POLYNOMIAL or (LR_END if end is None else end) < rate:",
        "if scheduler != POLYNOMIAL or rate:",
        "tests/lorafleet/test_schedule_rules.py",
    ),
)
