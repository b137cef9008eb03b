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
    (
        "beginnings: what was begun with is subtracted",
        "trainer/adapters/bank.py",
        "dict(doubled(now, began[module], rank_at=1)) for",
        "dict(now) for",
        "tests/trainer/adapters/test_beginnings.py",
    ),
    (
        "beginnings: both halves have the ranks that noise leaves",
        "trainer/adapters/methods/tlora.py",
        "torch.cat([kept] * halves, dim=1)",
        "torch.cat([kept, torch.ones_like(kept)], dim=1)",
        "tests/trainer/adapters/test_beginnings.py",
    ),
    (
        "beginnings: files have them subtracted, too",
        "trainer/pack/saving.py",
        "beginnings.named_plainly(state.weights, began or None)",
        "state.weights",
        "tests/trainer/pack/test_beginnings.py",
    ),
    (
        "beginnings: go on as they were saved",
        "trainer/pack/initial_state.py",
        "    began = state.pop(beginnings.KEY, None)",
        "    began = None if state.pop(beginnings.KEY, None) is None else where.row(saved.weights)",
        "tests/trainer/pack/test_beginnings.py::test_they_train_in_company_as_alone_move_to_other_slots_and_resume",
    ),
    (
        "beginnings: move with their row",
        "trainer/engine.py",
        "began = () if place.began is None else (place.began,)",
        "began = ()",
        "tests/trainer/pack/test_beginnings.py::test_they_train_in_company_as_alone_move_to_other_slots_and_resume",
    ),
    (
        "beginnings: none of quantised weights",
        "lorafleet/spec_rules.py",
        "if initialization not in PRINCIPAL or PRECISIONS",
        "if True or PRECISIONS",
        "tests/lorafleet/test_method_rules.py",
    ),
)
