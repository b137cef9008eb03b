"""The guards of Stable Diffusion 3: what of a base may be left out, and how far its places of patches go."""

GUARDS = (
    (
        "sd3: what a base is without is not looked for",
        "trainer/prepare/base_model.py",
        "self.family = self.family.without(gone)",
        "pass",
        "tests/trainer/families/test_sd3.py",
    ),
    (
        "sd3: a text encoder comes with its tokenizer",
        "trainer/prepare/base_config.py",
        "if (encoder.name in gone) != (tokenizer.name in gone):",
        "if False:",
        "tests/trainer/families/test_sd3.py",
    ),
    (
        "sd3: only an optional part may be left out",
        "trainer/prepare/base_config.py",
        "        if part.is_optional:\n            return\n",
        "        return\n",
        "tests/trainer/families/test_sd3.py",
    ),
    (
        "a resolution beyond a base's longest side is refused",
        "trainer/prepare/spec_on_base.py",
        "elif base.facts.max_side is not None and resolution > base.facts.max_side:",
        "elif False:",
        "tests/trainer/families/test_sd3.py",
    ),
    (
        "no bucket is longer than a base's longest side",
        "trainer/prepare/style.py",
        "return [each for each in choices if max(each.width, each.height) <= most]",
        "return choices",
        "tests/trainer/families/test_sd3.py",
    ),
)
