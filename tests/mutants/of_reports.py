"""The guards of the way by which runs report."""

GUARDS = (
    (
        "reports: no proxy sees a run's token",
        "trainer/report.py",
        "*(() if address.tls else DIRECT)]",
        "]",
        "tests/trainer/test_report.py",
    ),
    (
        "reports: what fails is logged",
        "trainer/report.py",
        "            self._say_unheard(error)\n",
        "",
        "tests/trainer/test_report.py",
    ),
)
