"""The guards of pictures that are drawn with adapter files."""

GUARDS = (
    (
        "generation: a picture of another request, or half a file, is drawn again",
        "trainer/generation/drawing.py",
        "if self._name(cell) not in there or not self._is_it(cell)",
        "if self._name(cell) not in there",
        "tests/trainer/generation/test_drawing.py",
    ),
    (
        "generation: an adapter of another base is refused",
        "trainer/generation/files.py",
        "if trained_on and trained_on != base.digest and not on_any_base:",
        "if False:",
        "tests/trainer/generation/test_drawing.py",
    ),
    (
        "generation: a lone row is multiplied as rows of many are",
        "trainer/generation/stacks.py",
        "its = having if len(having) >= min(MIN_SLOTS, num_rows) else [first, first]",
        "its = having",
        "tests/trainer/generation/test_stacks.py",
    ),
    (
        "generation: what is not additive adds what it changes of the base",
        "trainer/generation/stacks.py",
        "return term.method not in ADDED and (has_more or",
        "return term.method not in ADDED and (False or",
        "tests/trainer/generation/test_stacks.py",
    ),
    (
        "generation: adapters that are offered drive none out that is in use",
        "trainer/generation/kept.py",
        "if self.size_bytes + adapter.size_bytes <= self.most_bytes:",
        "if True:",
        "tests/trainer/generation/test_kept.py",
    ),
)
