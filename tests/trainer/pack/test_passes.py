"""The plan of a step's passes: every row once, blocks together, batches padded."""

from hypothesis import given
from hypothesis import strategies as st

from trainer.objectives.draws import Draw
from trainer.pack.passes import PaddingRules, Work, padding_rules, passes

_works = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from([(4, 8, 8), (4, 8, 16)]), st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=12
)


def made(drawn: list[tuple[int, tuple[int, ...], int, int]]) -> list[Work]:
    taken: dict[int, int] = {}
    works = []
    for style, (bank, shape, rows, rounds) in enumerate(drawn):
        slot = taken.get(bank, 0)
        taken[bank] = slot + 1
        works.append(Work(style, bank, slot, shape, [[Draw(0, 100 * number + row, 0) for row in range(rows)] for number in range(rounds)]))
    return works


@given(_works, st.booleans())
def test_every_micro_batch_is_in_one_pass_of_its_shape_and_bank(drawn: list[tuple[int, tuple[int, ...], int, int]], padded: bool):
    works = made(drawn)
    plan = passes(works, padding_rules("cpu", 2) if padded else PaddingRules())
    found = [
        (each.shape, slot_group.bank, block.style, block.slot, tuple(each.indices for each in block.examples))
        for each in plan
        for slot_group in each.slot_groups
        for block in slot_group.blocks
    ]
    expected = [
        (work.shape, work.bank, work.style, work.slot, tuple(each.indices for each in batch))
        for work in works
        for batch in work.micro_batches
    ]
    assert sorted(found) == sorted(expected)


@given(_works, st.sampled_from([1, 2, 8]))
def test_with_padding_no_slot_is_alone_and_rows_come_in_fours(drawn: list[tuple[int, tuple[int, ...], int, int]], num_threads: int):
    for each in passes(made(drawn), padding_rules("cpu", num_threads)):
        num_rows = sum(slot_group.num_rows for slot_group in each.slot_groups) + each.num_padding
        assert num_rows % 4 == 0
        assert num_rows >= (16 if num_threads == 1 else 4)
        assert each.num_padding < 4 or num_rows == 16
        for slot_group in each.slot_groups:
            assert len(set(slot_group.slots)) == len(slot_group.slots) >= 2
            assert all(len(block.examples) == slot_group.rows_each for block in slot_group.blocks)


@given(_works)
def test_alone_nothing_is_added(drawn: list[tuple[int, tuple[int, ...], int, int]]):
    plan = passes(made(drawn), PaddingRules())
    assert all(each.num_padding == 0 and slot_group.idle_slot is None for each in plan for slot_group in each.slot_groups)


def test_styles_of_which_no_two_are_of_one_kind_take_no_more_rows_than_those_of_one():
    shape = (4, 8, 8)
    for banks in ([0] * 16, range(16)):
        (planned,) = passes(made([(bank, shape, 1, 1) for bank in banks]), padding_rules("cpu", 2))
        assert sum(slot_group.num_rows for slot_group in planned.slot_groups) + planned.num_padding == 16
