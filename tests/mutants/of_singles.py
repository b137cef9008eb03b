"""Guards of bases in one file."""

GUARDS = (
    (
        "one file: quantised weights are none to train on",
        "lorafleet/catalog/single_file.py",
        "for end, what in _QUANTISED.items() if name.endswith(end)), None):",
        "for end, what in _QUANTISED.items() if False), None):",
        "tests/service/planning/test_checkpoints.py",
    ),
    (
        "one file: a transformer for pictures is none that draws from text",
        "lorafleet/catalog/bfl.py",
        "    if taken == given:\n        return None",
        "    if True:\n        return None",
        "tests/service/planning/test_checkpoints.py",
    ),
    (
        "one file: a tensor that is not understood makes it another model",
        "lorafleet/catalog/original.py",
        "    if not modules:\n",
        "    if not modules:\n        return {}\n    if False:\n",
        "tests/service/planning/test_checkpoints.py",
    ),
    (
        "one file: halves that are exchanged there are exchanged back",
        "lorafleet/catalog/original.py",
        "_exchanged(each) if _module(name) in exchanged else each",
        "each",
        "tests/trainer/families/test_one_file.py",
    ),
    (
        "one file: what it lacks is told before launch",
        "service/planning/checkpoints.py",
        'why_not="\\n".join(lacks) or None)',
        "why_not=None)",
        "tests/service/planning/test_checkpoints.py",
    ),
)
