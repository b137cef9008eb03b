"""Guards of what only ideas of others would notice: masks, times between 0 and 1, changed inputs of a layer."""

GUARDS = (
    (
        "toys: held-out noise is keyed by a time that may be no whole number",
        "trainer/pack/evaluation.py",
        "sample, str(time))",
        "sample, int(time))",
        "tests/trainer/test_toys.py",
    ),
    (
        "toys: who changes a layer's inputs changes no bit of the others'",
        "trainer/adapters/layers.py",
        "its = seen if each.method.changes_inputs else x",
        "its = seen",
        "tests/trainer/test_toys.py",
    ),
)
