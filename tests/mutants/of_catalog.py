"""The guards of the catalog: what a spec may name, and what it may not put together."""

GUARDS = (
    (
        "catalog: a name that it has not is refused",
        "lorafleet/spec_names.py",
        "if name not in names:",
        "if False:",
        "tests/lorafleet/test_spec_catalog.py",
    ),
    (
        "catalog: an optimizer that needs whole tensors is not cut",
        "lorafleet/spec_rules.py",
        "if zero_stage == 0 or OPTIMIZERS.get(optimizer).is_elementwise:",
        "if True:",
        "tests/lorafleet/test_spec_catalog.py",
    ),
)
