"""The guards of new tokens: whose they are in a pack, when they stop, and what is refused."""

GUARDS = (
    (
        "new tokens: a row has those of its own slot",
        "trainer/adapters/tokens.py",
        "looked_up = F.embedding((-1 - ids).clamp(min=0) + first[:, None], vectors.flatten(0, 1))",
        "looked_up = F.embedding((-1 - ids).clamp(min=0) + 0 * first[:, None], vectors.flatten(0, 1))",
        "tests/trainer/adapters/test_tokens.py",
    ),
    (
        "new tokens: a caption has those of its own style",
        "trainer/adapters/tokens.py",
        "found[start : start + rows_each] = [each.bank.tokens[slot]] * rows_each",
        "found[start : start + rows_each] = [each.bank.tokens[0]] * rows_each",
        "tests/trainer/adapters/test_tokens.py",
    ),
    (
        "new tokens: they move with their row",
        "trainer/engine.py",
        "        place.tokens[slot] = place.tokens[place.num_styles]\n",
        "",
        "tests/trainer/sdxl/test_new_tokens.py",
    ),
    (
        "new tokens: the pooled text is taken at the end",
        "trainer/adapters/tokens.py",
        "return torch.where(ids < self._first, ids, self._first - 1 - ids)",
        "return torch.where(ids < self._first, ids, ids + 10_000)",
        "tests/trainer/adapters/test_tokens.py",
    ),
    (
        "new tokens: none that the vocabulary has",
        "trainer/adapters/tokens.py",
        "if {each, each + _END} & known.keys()",
        "if {each} & known.keys()",
        "tests/trainer/adapters/test_tokens.py",
    ),
    (
        "new tokens: they stay as they are after their share of the steps",
        "trainer/optimizers/schedule.py",
        "if self.tokens is not None and step < self.token_steps else 0.0",
        "if self.tokens is not None else 0.0",
        "tests/trainer/optimizers/test_schedule.py",
    ),
    (
        "new tokens: one that no caption has is refused",
        "trainer/prepare/style.py",
        "    new_tokens.check_are_used(spec, prepared.trained_captions)\n",
        "",
        "tests/trainer/pack/test_new_tokens.py",
    ),
)
