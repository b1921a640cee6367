"""Rounds and merges against values computed by hand, and against those of BUC and HCT."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spherecluster.schedule import Schedule, limit_merges, merges_per_pass


def test_buc__leaves_2600_clusters_of_market_after_16_passes() -> None:
    per_pass = merges_per_pass(0.05, 12936)
    assert per_pass == 646
    assert 12936 - 16 * per_pass == 2600


def test_hct__leaves_nine_percent_of_the_images_as_clusters() -> None:
    schedule = Schedule("restart", 0.07, 13, 20, 20)
    assert schedule.max_clusters(12936) == 12936 - 13 * 905 == 1171


@pytest.mark.parametrize(
    ("rate", "images", "expected"), [(0.07, 100, 7), (0.29, 100, 29), (0.05, 10, 1), (1.0, 7, 7)]
)
def test_merges_per_pass__are_whole_and_at_least_one(
    rate: float, images: int, expected: int
) -> None:
    assert merges_per_pass(rate, images) == expected


@pytest.mark.parametrize(
    ("wanted", "clusters", "expected"),
    [(5, 10, 5), (8, 10, 8), (9, 10, 8), (3, 2, 0), (3, 1, 0), (0, 10, 0)],
)
def test_possible_merges__leave_two_clusters(wanted: int, clusters: int, expected: int) -> None:
    assert limit_merges(wanted, clusters) == expected


def test_rounds__of_20_epochs_then_2() -> None:
    schedule = Schedule("progressive", 0.05, 16, 20, 2)
    begins = [e for e in range(27) if schedule.renews(e)]
    assert begins == [0, 20, 22, 24, 26]
    assert [schedule.round_of(e) for e in (0, 19, 20, 21, 22, 26)] == [0, 0, 1, 1, 2, 4]


@given(first=st.integers(1, 9), later=st.integers(1, 9), epoch=st.integers(0, 60))
def test_renews__where_counting_day_by_day_begins_a_round(
    first: int, later: int, epoch: int
) -> None:
    schedule = Schedule("restart", 0.1, 1, first, later)
    left, number, begins = first, 0, True
    for _ in range(epoch):
        left -= 1
        begins = left == 0
        if begins:
            left, number = later, number + 1
    assert (schedule.round_of(epoch), schedule.renews(epoch)) == (number, begins)


def test_progressive__makes_a_pass_a_round_and_no_more_than_asked_for() -> None:
    schedule = Schedule("progressive", 0.05, 3, 1, 1)
    assert [schedule.total_passes(r) for r in range(6)] == [0, 1, 2, 3, 3, 3]
    assert Schedule("restart", 0.05, 3, 1, 1).total_passes(0) == 3


def test_most_clusters__is_what_the_first_round_needs() -> None:
    assert Schedule("progressive", 0.05, 3, 1, 1).max_clusters(100) == 100
    assert Schedule("restart", 0.05, 3, 1, 1).max_clusters(100) == 85
    assert Schedule("restart", 0.05, 3, 1, 1).max_clusters(100, min_size=2) == 50
    assert Schedule("restart", 0.5, 9, 1, 1).max_clusters(100) == 2
    assert Schedule("restart", 0.5, 9, 1, 1).max_clusters(0) == 0
