"""Tests of selected clusters and images against slow loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unreid.visualization.clusters import (
    MIN_SIZE,
    person_letters,
    select_clusters,
    select_members,
    tabulate_clusters,
)


def slow_table(labels: np.ndarray, camids: np.ndarray, pids: np.ndarray) -> list[dict]:
    rows = []
    for cluster in sorted(set(labels.tolist()) - {-1}):
        members = [i for i in range(len(labels)) if labels[i] == cluster]
        people = [int(pids[i]) for i in members]
        commonest = max(people.count(p) for p in people)
        rows.append(
            {
                "id": cluster,
                "size": len(members),
                "cameras": len({int(camids[i]) for i in members}),
                "purity": commonest / len(members),
            }
        )
    return rows


arrays = st.integers(0, 40).flatmap(
    lambda n: st.tuples(*(st.lists(st.integers(low, high), min_size=n, max_size=n)
                          for low, high in ((-1, 6), (0, 3), (0, 4)))))  # fmt: skip


@given(arrays)
def test_chosen__equal_the_oracle(data: tuple[list[int], list[int], list[int]]) -> None:
    labels, camids, pids = (np.array(x, dtype=np.int64) for x in data)
    table = tabulate_clusters(labels, camids, pids)
    rows = slow_table(labels, camids, pids)
    assert table.ids.tolist() == [r["id"] for r in rows]
    assert table.sizes.tolist() == [r["size"] for r in rows]
    assert table.cameras.tolist() == [r["cameras"] for r in rows]
    assert table.purity is not None
    assert table.purity.tolist() == pytest.approx([r["purity"] for r in rows])
    found = select_clusters(table, 3)
    enough = [r for r in rows if r["size"] >= MIN_SIZE]
    wanted = {
        "largest": sorted(rows, key=lambda r: (-r["size"], r["id"])),
        "purest": sorted(enough, key=lambda r: (-r["purity"], -r["size"], r["id"])),
        "most mixed": sorted((r for r in enough if r["purity"] < 1),
                             key=lambda r: (r["purity"], -r["size"], r["id"])),
    }  # fmt: skip
    for kind, ordered in wanted.items():
        ids = [int(table.ids[i]) for i in found.get(kind, [])]
        assert ids == [r["id"] for r in ordered[:3]], kind


@given(arrays)
def test_without_ids__cameras_choose(data: tuple[list[int], list[int], list[int]]) -> None:
    labels, camids, _ = (np.array(x, dtype=np.int64) for x in data)
    table = tabulate_clusters(labels, camids)
    rows = slow_table(labels, camids, labels)
    found = select_clusters(table, 2)
    assert table.purity is None and not {"purest", "most mixed"} & set(found)
    wanted = {
        "in most cameras": sorted(rows, key=lambda r: (-r["cameras"], -r["size"], r["id"])),
        "in one camera": sorted((r for r in rows if r["cameras"] == 1),
                                key=lambda r: (-r["size"], r["id"])),
    }  # fmt: skip
    for kind, ordered in wanted.items():
        assert [int(table.ids[i]) for i in found.get(kind, [])] == [r["id"] for r in ordered[:2]]


def test_no_cluster__is_an_empty_choice() -> None:
    nothing = np.full(5, -1)
    assert select_clusters(tabulate_clusters(nothing, np.zeros(5, np.int64), np.arange(5)), 4) == {}


def test_members__show_every_person_before_one_twice() -> None:
    members = np.arange(10)
    pids = np.array([3, 3, 3, 3, 3, 3, 3, 8, 8, 5])
    shown = select_members(members, np.zeros(10, np.int64), pids, 4)
    assert pids[shown].tolist() == [3, 3, 8, 5]
    assert len(set(shown.tolist())) == 4


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.integers(1, 12))
def test_members__are_of_the_cluster_without_repetition(people: list[int], num: int) -> None:
    members = np.arange(len(people)) * 2 + 1
    pids = np.full(2 * len(people) + 1, 99)
    pids[members] = people
    shown = select_members(members, np.zeros(len(pids), np.int64), pids, num)
    assert len(shown) == min(num, len(people)) == len(set(shown.tolist()))
    assert set(shown.tolist()) <= set(members.tolist())
    # The most frequent person is listed first, with letter A and a green frame.
    counts = [people.count(p) for p in people]
    assert people.count(int(pids[shown[0]])) == max(counts)
    assert len(set(pids[shown].tolist())) == min(num, len(set(people)))


def test_letters__go_on_after_z() -> None:
    names = person_letters(np.arange(100, 830))
    assert names[:3] == ["A", "B", "C"] and names[25:28] == ["Z", "AA", "AB"]
    assert names[701:703] == ["ZZ", "AAA"] and len(set(names)) == 730
    assert person_letters(np.array([7, 7, 2, 7])) == ["A", "A", "B", "A"]
