"""The guards of adapters that are combined: what does not belong together, what is told, and what chance goes by."""

GUARDS = (
    (
        "merge: adapters of different bases are refused",
        "trainer/adapters/merging/combining.py",
        "if len(told) > 1:",
        "if len(told) > 9:",
        "tests/trainer/adapters/merging/test_combining.py",
    ),
    (
        "merge: what DARE leaves out is drawn for each layer by itself",
        "trainer/adapters/merging/combining.py",
        "generator(Purpose.PRUNING, path)",
        'generator(Purpose.PRUNING, "")',
        "tests/trainer/adapters/merging/test_combining.py",
    ),
    (
        "merge: the error is that of the numbers that are written",
        "trainer/adapters/merging/combining.py",
        "gap = exact.minus(updates.low_rank_of(module)).singular",
        "gap = exact.minus(exact).singular",
        "tests/trainer/adapters/merging/test_combining.py",
    ),
    (
        "merge: a base without one of the layers is not fused into",
        "trainer/adapters/merging/fusing.py",
        "if missing := sorted(terms.keys() - found):",
        "if missing := sorted(found - found):",
        "tests/trainer/commands/test_merge.py",
    ),
    (
        "merge: a file with an equals sign in its name is itself",
        "trainer/commands/merge.py",
        "if not sign or Path(source).exists():",
        "if not sign:",
        "tests/trainer/commands/test_merge.py",
    ),
    (
        "merge: an adapter that a job is to be combined with needs a grant",
        "service/jobs/jobs.py",
        "for number, uri in enumerate(spec.output.merged_with)]",
        "for number, uri in enumerate(())]",
        "tests/service/jobs/test_creation.py",
    ),
    (
        "merge: a base that a job fused into is one only once it is whole",
        "trainer/artifact_merge.py",
        "key=lambda path: (path == target / INDEX, path)",
        "key=lambda path: (path != target / INDEX, path)",
        "tests/trainer/test_artifact_merge.py",
    ),
    (
        "merge: what a job is to be combined with is of its base",
        "trainer/artifact_merge.py",
        "if told != ours[key]:",
        "if False:",
        "tests/trainer/test_artifact_merge.py",
    ),
)
