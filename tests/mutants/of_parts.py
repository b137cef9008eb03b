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
    (
        "average: it begins as the adapter",
        "trainer/optimizers/moving_average.py",
        "if steps_done else 0.0",
        "if steps_done else 0.1",
        "tests/trainer/optimizers/test_moving_average.py",
    ),
    (
        "average: a step that was skipped leaves it",
        "trainer/optimizers/moving_average.py",
        "share * row.clipping.is_finite",
        "share",
        "tests/trainer/optimizers/test_moving_average.py",
    ),
    (
        "average: who asks for the adapter as trained gets it",
        "lorafleet/spec.py",
        'return self.training.ema_decay is not None and self.output.weights != "trained"',
        "return self.training.ema_decay is not None",
        "tests/trainer/pack/test_moving_average.py",
    ),
    (
        "average: what an optimizer averages has no second average",
        "lorafleet/spec_rules.py",
        "    if decay is None or not OPTIMIZERS.get(optimizer).averages:",
        "    if True:",
        "tests/lorafleet/test_average_rules.py",
    ),
    (
        "rates: a library has a group for each",
        "trainer/optimizers/_library.py",
        "        if len(by_group) == 1:",
        "        if True:",
        "tests/trainer/optimizers/test_lora_plus.py",
    ),
    (
        "rates: B has its own",
        "trainer/adapters/layout.py",
        "int(kind.raises_rates and role in facts.raised_roles)",
        "0",
        "tests/trainer/optimizers/test_lora_plus.py",
    ),
    (
        "rates: what finds one rate is refused",
        "lorafleet/spec_rules.py",
        "    if ratio is None or not OPTIMIZERS.get(optimizer).has_one_rate:",
        "    if True:",
        "tests/lorafleet/test_rate_rules.py",
    ),
)
