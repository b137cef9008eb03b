"""The guards of packs of mixed methods, of beginnings that are subtracted, and of starts by a job's name."""

GUARDS = (
    (
        "mixed packs: idle rows take memory",
        "service/control/memory.py",
        "sum(member.own_bytes for member in members) + _idle_bytes(members)",
        "sum(member.own_bytes for member in members)",
        "tests/service/control/test_packing.py",
    ),
    (
        "mixed packs: who is alone in a bank is told by the optimizer, too",
        "service/planning/planner.py",
        "rates = (training.optimizer, ",
        "rates = (",
        "tests/service/planning/test_planner.py",
    ),
)
