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
        "family: jobs that name it and jobs that do not share a base",
        "service/planning/base_shapes.py",
        "if base.family is None and found.family is not None:",
        "if False:",
        "tests/service/planning/test_base_shapes.py",
    ),
    (
        "family: an index without its shards is not launched",
        "service/planning/base_shapes.py",
        "except LacksShards as lack:",
        "except ZeroDivisionError as lack:",
        "tests/service/planning/test_base_shapes.py",
    ),
    (
        "family: what its defaults are follows once it is known",
        "trainer/prepare/style.py",
        "return spec if spec.base_model.family else spec.on(base.family)",
        "return spec",
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
    (
        "parts: one from elsewhere needs its grant",
        "service/jobs/jobs.py",
        'parts = [Use(f"base_model.{field}", uri) for field, uri in spec.base_model.part_fields]',
        "parts = []",
        "tests/service/jobs/test_creation.py",
    ),
    (
        "parts: what the base has in its place is hidden",
        "trainer/prepare/base_folders.py",
        'hidden = tuple(f"{part}/" for part in self.parts) if not prefix else ()',
        "hidden = ()",
        "tests/trainer/test_base_parts.py",
    ),
    (
        "parts: a base with others' is loaded from where it was looked at",
        "trainer/prepare/base_model.py",
        "is_plain=not renamed and not self.folder.parts and not self._has_more(paths),",
        "is_plain=not renamed and not self._has_more(paths),",
        "tests/trainer/test_base_parts.py",
    ),
)
