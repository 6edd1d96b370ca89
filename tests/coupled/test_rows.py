"""Parts of the rows of a data set."""

from cdasr.coupled.rows import sample_rows


def test_a_share_is_drawn_at_random_and_the_same_for_a_seed():
    rows = list(range(600))
    some = sample_rows(rows, 100, seed=1)
    assert len(some) == 100 and some == sorted(some)
    assert some == sample_rows(rows, 100, seed=1) != sample_rows(rows, 100, seed=2)
    assert {row % 6 for row in some} == set(range(6)), "rows that take turns are all met"
    assert sample_rows(rows, 900, seed=1) == rows
