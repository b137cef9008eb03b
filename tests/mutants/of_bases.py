"""The guards of base models and of the files that are made on them."""

GUARDS = (
    (
        "base: an objective that is not trained is refused",
        "lorafleet/objectives.py",
        "if isinstance(kind, str) and kind in TRAINED:",
        "if True:",
        "tests/trainer/test_base_model.py",
    ),
    (
        "base: one with an objective that is not trained is not launched",
        "service/candidates.py",
        "if not any(job.uid in some for some in (awaited, unfit, aside))],",
        "if not any(job.uid in some for some in (awaited, aside))],",
        "tests/service/reconcile/test_admit.py",
    ),
    (
        "base: what was refused is read anew for the next job",
        "service/base_shapes.py",
        "found = replace(found, again_at=self._clock.now())",
        "found = replace(found, again_at=None)",
        "tests/service/test_base_shapes.py",
    ),
    (
        "base: a word of its files is not repeated",
        "trainer/base_model.py",
        "if isinstance(found, str) and found in base_config.OTHER_PIPELINES else",
        "if isinstance(found, str) else",
        "tests/trainer/test_base_model.py",
    ),
    (
        "base: nothing is imported for a name in model_index.json",
        "trainer/base_model.py",
        "for problem in base_config.index_problems(index, self.family):",
        "for problem in ():",
        "tests/trainer/test_base_model.py",
    ),
    (
        "base: depth is known before parsing",
        "trainer/untrusted.py",
        "if (depth := nesting(text)) > MAX_DEPTH:",
        "if (depth := 0) > MAX_DEPTH:",
        "tests/trainer/test_untrusted.py",
    ),
    (
        "base: weights that are missing are not drawn at random",
        "trainer/families/sd1.py",
        'if missing := sorted(found["missing_keys"]):',
        "if missing := []:",
        "tests/trainer/test_base_loading.py",
    ),
    (
        "base: only what was looked at is loaded",
        "trainer/base_model.py",
        "is_plain=not renamed and not self._has_more(paths),",
        "is_plain=not renamed,",
        "tests/trainer/test_base_loading.py",
    ),
    (
        "files: numbers beyond half precision are kept",
        "trainer/adapters/export.py",
        'return "fp32" if asked == "fp16" and largest > torch.finfo(torch.float16).max else asked',
        "return asked",
        "tests/trainer/test_artifact_files.py",
    ),
    (
        "files: equal results are equal bytes",
        "trainer/adapters/safetensors_file.py",
        '"__metadata__": dict(sorted(metadata.items()))',
        '"__metadata__": dict(sorted(metadata.items(), key=lambda item: hash(item[0])))',
        "tests/trainer/test_artifact_files.py",
    ),
)
