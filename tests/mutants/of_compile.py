"""The guards of compiled passes, of styles that are paired in the layers, and of batches that are staged ahead."""

GUARDS = (
    (
        "pairing: nothing of a style enters the slot that it is paired with",
        "trainer/adapters/pairing.py",
        "    both[count:] = 0\n",
        "    both[count:] = rows\n",
        "tests/trainer/adapters/test_bits.py",
    ),
    (
        "pairing: rows lie in memory as in company",
        "trainer/adapters/pairing.py",
        "if _lie_apart(rows) else rows.new_empty(shape)",
        "if False else rows.new_empty(shape)",
        "tests/trainer/adapters/test_bits.py",
    ),
    (
        "pairing: idle slots take no rows of a pass",
        "trainer/pack/passes.py",
        "return len(self.blocks) * self.rows_each",
        "return len(self.slots) * self.rows_each",
        "tests/trainer/pack/test_passes.py",
    ),
)
