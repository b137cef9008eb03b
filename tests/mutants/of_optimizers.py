"""The guards of optimizers that are libraries' own."""

GUARDS = (
    (
        "optimizer: a library's numbers are kept",
        "trainer/optimizers/_library.py",
        "state[NUMBERS].copy_(torch.tensor(values, dtype=torch.float64))",
        "state[NUMBERS][0] = 1.0",
        "tests/trainer/optimizers/test_libraries.py",
    ),
    (
        "optimizer: what is exported is the average",
        "trainer/pack/saving.py",
        "    with pack.judged(member):\n",
        "    if True:\n",
        "tests/trainer/pack/test_optimizers.py",
    ),
    (
        "optimizer: training goes on from what it trained",
        "trainer/engine.py",
        "            row.copy_(trained)",
        "            pass",
        "tests/trainer/pack/test_optimizers.py",
    ),
)
