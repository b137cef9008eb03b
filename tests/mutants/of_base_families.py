"""The guards of a base's family, and of where its parts come from."""

GUARDS = (
    (
        "family: 2.x is told from 1.x",
        "lorafleet/catalog/families/sd1.py",
        "return not shared.is_sd2(configs)",
        "return True",
        "tests/trainer/sd/test_sd2.py",
    ),
    (
        "clip skip: texts of one layer are not another's",
        "trainer/prepare/style.py",
        "skipped = [self.base.facts.num_skipped_layers] if",
        "skipped = [] if",
        "tests/trainer/sd/test_clip_skip.py",
    ),
    (
        "clip skip: an encoder in memory is not another layer's",
        "trainer/prepare/base_model.py",
        'return f"{self.digest}-{self.facts.num_skipped_layers}"',
        "return self.digest",
        "tests/trainer/sd/test_clip_skip.py",
    ),
)
