"""Guards of what keeps a step from waiting: losses that are read late, products whose gradients come as they are kept, one copy a pass."""

from tests.mutants.guards import Guard

_UNREAD = "tests/trainer/pack/test_unread.py"

GUARDS: tuple[Guard, ...] = (
    (
        "launches: losses are read before a checkpoint is written",
        "trainer/pack/run.py",
        "member.waits_for_its_loss or self._is_anything_due(member) for member",
        "member.waits_for_its_loss for member",
        f"{_UNREAD}::test_what_is_read_late_is_told_as_it_would_have_been_at_once",
    ),
    (
        "launches: losses are read before a style stops",
        "trainer/pack/run.py",
        "if stopping or must_read:",
        "if must_read:",
        f"{_UNREAD}::test_a_style_that_is_told_to_stop_saves_all_its_steps",
    ),
    (
        "launches: what was launched after a style went wrong counts for nothing",
        "trainer/pack/member.py",
        "self.step = number - 1",
        "pass",
        f"{_UNREAD}::test_a_style_that_went_wrong_is_told_by_its_step_and_changes_no_bit_of_its_neighbour",
    ),
    (
        "launches: a product's gradients come as its factors are kept",
        "trainer/adapters/low_rank.py",
        "return torch.bmm(left.mT, right)",
        "return torch.bmm(right.mT, left)",
        "tests/trainer/adapters/test_low_rank.py",
    ),
    (
        "launches: numbers of every size lie where they can be read",
        "trainer/staging.py",
        "tensor.nbytes + -tensor.nbytes % _ALIGNED_TO",
        "tensor.nbytes",
        "tests/trainer/test_staging.py",
    ),
)
