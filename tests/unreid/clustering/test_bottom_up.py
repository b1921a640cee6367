"""Bottom-up merging against slow merging of one pair at a time, and of sorted pairs in a pass."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage

import unreid.clustering.exact_rounds as exact_rounds
import unreid.clustering.minimum_rounds as minimum_rounds
import unreid.clustering.passes as passes
from tests.unreid.clustering import merging_oracle
from unreid.clustering import bottom_up, compact
from unreid.clustering.bottom_up import cut_tree, merge_tree
from unreid.clustering.linkage import LINKAGES, REGULARIZERS, Clusters, Rule
from unreid.kernels import kernel

RULES = list(itertools.product(LINKAGES, REGULARIZERS))
REDUCIBLE = [r for r in RULES if Rule(*r, 0.1).reducible]


def drawn(num: int, channels: int, seed: int, copies: bool = False) -> np.ndarray:
    """Return random unit rows; with ``copies`` the second half repeats the first."""
    x = np.random.default_rng(seed).normal(size=(num, channels)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    if copies:
        x[(num + 1) // 2 :] = x[: num // 2]
    return x


def starts(num: int, seed: int) -> np.ndarray:
    """Return start labels with noise and with clusters of several images."""
    return np.random.default_rng(seed).integers(-1, max(1, 2 * num // 3), num)


@pytest.fixture(params=["compiled", "small lists and blocks", "plain"])
def route(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Select one implementation of the merge tree; all must give the same tree."""
    if request.param == "plain":
        monkeypatch.setenv("UNREID_PURE_PYTHON", "1")
    elif kernel("merging") is None:
        pytest.skip("kernels not built")
    if request.param.startswith("small"):
        for module in (exact_rounds, minimum_rounds):
            monkeypatch.setattr(module, "LIST_LENGTH", 3)
            monkeypatch.setattr(module, "BLOCK_ROWS", 4)
        monkeypatch.setattr(exact_rounds, "BLOCK_COLUMNS", 6)
        monkeypatch.setattr(exact_rounds, "RENEWED_ROWS", 2)
        monkeypatch.setattr(passes, "BLOCK_ROWS", 5)
        monkeypatch.setattr(passes, "BLOCK_COLUMNS", 7)
        monkeypatch.setattr(passes, "WAITING", 7)
    return str(request.param)


@pytest.mark.parametrize(("link", "regularizer"), RULES)
def test_exact__merges_the_nearest_pair_each_time(link: str, regularizer: str, route: str) -> None:
    for seed, (num, weight) in enumerate([(14, 0.01), (13, 0.3), (24, 0.05)]):
        x = drawn(num, 5, seed, copies=seed == 1)
        start = starts(num, seed) if seed == 2 else np.arange(num)
        most = len(merging_oracle.groups_of(start)) - 1
        rule = (link, regularizer, weight)
        wanted = merging_oracle.exact_labels(x.astype(float), start, most, rule)
        for merges in {1, most // 2, most}:
            found = bottom_up(
                x, num_merges=merges, linkage=link, regularizer=regularizer, weight=weight,
                labels=start,
            )  # fmt: skip
            np.testing.assert_array_equal(found, wanted[merges])


@pytest.mark.parametrize(("link", "regularizer"), RULES)
def test_pass__is_the_sorted_list_of_all_pairs(link: str, regularizer: str, route: str) -> None:
    for seed, (num, weight) in enumerate([(14, 0.01), (13, 0.3), (21, 0.05)]):
        x = drawn(num, 5, seed, copies=seed == 1)
        start = starts(num, seed) if seed == 2 else np.arange(num)
        merges = (len(merging_oracle.groups_of(start)) - 1) // 3
        rule = (link, regularizer, weight)
        found = bottom_up(
            x, num_merges=merges, passes=3, linkage=link, regularizer=regularizer, weight=weight,
            update="pass", labels=start,
        )  # fmt: skip
        wanted = merging_oracle.pass_labels(x.astype(float), start, merges, 3, rule)
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(("link", "regularizer"), RULES)
def test_pass_rule_skip__is_the_sorted_list_without_absorbed_clusters(
    link: str, regularizer: str, route: str
) -> None:
    for seed, (num, weight) in enumerate([(14, 0.01), (13, 0.3), (21, 0.05), (40, 0.0)]):
        x = drawn(num, 5, seed, copies=seed == 1)
        start = starts(num, seed) if seed == 2 else np.arange(num)
        merges = (len(merging_oracle.groups_of(start)) - 1) // 4
        rule = (link, regularizer, weight)
        found = bottom_up(
            x, num_merges=merges, passes=4, linkage=link, regularizer=regularizer, weight=weight,
            update="pass", labels=start, pass_rule="skip",
        )  # fmt: skip
        wanted = merging_oracle.skip_pass_labels(x.astype(float), start, merges, 4, rule)
        np.testing.assert_array_equal(found, wanted)


def test_pass_rule_skip__takes_no_pair_of_an_absorbed_cluster() -> None:
    """Points on a circle: 0 absorbs 1, so 1 - 2 at 1.1 degrees is skipped; 3 - 4 at 1.5 is next."""
    angles = np.deg2rad([0.0, 1.0, 2.1, 20.0, 21.5])
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    rule: dict[str, Any] = {"update": "pass", "regularizer": "none", "num_merges": 2}
    np.testing.assert_array_equal(bottom_up(x, **rule), [0, 0, 0, 1, 2])
    np.testing.assert_array_equal(bottom_up(x, **rule, pass_rule="skip"), [0, 0, 1, 2, 2])


def test_pass_rule__has_no_effect_on_exact_merging() -> None:
    x = drawn(60, 8, 0)
    np.testing.assert_array_equal(
        bottom_up(x, num_merges=30, pass_rule="skip"), bottom_up(x, num_merges=30)
    )


@settings(max_examples=60)
@given(
    num=st.integers(2, 40),
    channels=st.integers(2, 12),
    seed=st.integers(0, 9999),
    weight=st.sampled_from([0.0, 0.01, 0.2]),
    rule=st.sampled_from([r for r in REDUCIBLE if r[0] != "minimum"]),
)
def test_rounds__equal_one_at_a_time(
    num: int, channels: int, seed: int, weight: float, rule: tuple[str, str]
) -> None:
    if kernel("merging") is None:
        pytest.skip("kernels not built")
    from unreid.clustering.greedy import greedy_merges

    x = drawn(num, channels, seed)
    full = Rule(*rule, weight)
    slow = greedy_merges(Clusters.of(x, None), full, num - 1, x, np.arange(num))
    if rule[1] == "sse_union" and weight:
        return  # not computed in rounds: uses the slow implementation itself
    fast = exact_rounds.merges_in_rounds(Clusters.of(x, None), full, num - 1)
    np.testing.assert_array_equal(fast[0], slow[0])
    np.testing.assert_allclose(fast[1], slow[1], atol=1e-12)


@settings(max_examples=40)
@given(seed=st.integers(0, 9999), num=st.integers(2, 60), regularizer=st.sampled_from(
    ["none", "sse", "size"]))  # fmt: skip
def test_minimum__from_neighbours_equals_one_at_a_time(
    seed: int, num: int, regularizer: str
) -> None:
    from unreid.clustering.greedy import greedy_merges

    x, owner = drawn(num, 3, seed), compact(starts(num, seed))
    merges = int(owner.max()) if owner.max() > 0 else 0
    if not merges:
        return
    rule = Rule("minimum", regularizer, 0.02)
    slow = greedy_merges(Clusters.of(x, owner), rule, merges, x, owner)
    fast = minimum_rounds.minimum_merges_in_rounds(Clusters.of(x, owner), rule, merges, x, owner)
    np.testing.assert_array_equal(fast[0], slow[0])
    np.testing.assert_allclose(fast[1], slow[1], atol=1e-12)


def violation(rule: Rule, x: np.ndarray, rng: np.random.Generator) -> float:
    """Return min(D(A, C), D(B, C)) - D(A u B, C), or 0 if A, B are not the nearest pair."""
    sizes = rng.integers(1, 5, 3)
    order = rng.permutation(len(x))
    a, b, c = (list(part) for part in np.split(order[: sizes.sum()], np.cumsum(sizes)[:-1]))
    args = rule.linkage, rule.regularizer, rule.weight
    both = min(merging_oracle.distance(x, p, c, *args) for p in (a, b))
    if merging_oracle.distance(x, a, b, *args) > both:
        return 0.0
    return both - merging_oracle.distance(x, a + b, c, *args)


@pytest.mark.parametrize(("link", "regularizer"), REDUCIBLE)
def test_reducible__no_union_is_nearer_than_its_parts(link: str, regularizer: str) -> None:
    rng = np.random.default_rng(0)
    for weight in (0.01, 0.5, 3.0):
        rule = Rule(link, regularizer, weight)
        for _ in range(60):
            x = rng.normal(size=(14, 2)) * rng.choice([0.3, 1.0], size=(14, 1))
            assert violation(rule, x, rng) <= 1e-9


def test_ward_with_sse__is_not_reducible() -> None:
    # A and B lie on opposite sides of C. The penalty on the large dispersion of C prevents an
    # earlier merge with C. The centre of A u B is that of C.
    x = np.array([[1.0, 0], [-1, 0], [0, 1.5], [0, -1.5], [0, 1.5], [0, -1.5]])
    a, b, c = [0], [1], [2, 3, 4, 5]
    d = {
        name: merging_oracle.distance(x, p, q, "ward", "sse", 0.2)
        for name, p, q in (("ab", a, b), ("ac", a, c), ("bc", b, c), ("union", a + b, c))
    }
    assert d["ab"] <= min(d["ac"], d["bc"])
    assert d["union"] < min(d["ac"], d["bc"]) - 0.1
    assert not Rule("ward", "sse", 0.2).reducible


@pytest.mark.parametrize("link", ["average", "ward", "minimum"])
def test_tree__equals_scipys(link: str) -> None:
    x = drawn(80, 16, 3)
    merges, heights = merge_tree(x, linkage=link, regularizer="none", weight=0.0)
    name = {"minimum": "single"}.get(link, link)
    metric = "euclidean" if link == "ward" else "sqeuclidean"
    wanted = linkage(x.astype(float), name, metric=metric)
    np.testing.assert_array_equal(merges, wanted[:, :2])
    # The height of scipy's ward is the square root of twice the increase of SSE.
    scaled = wanted[:, 2] ** 2 / 2 if link == "ward" else wanted[:, 2]
    np.testing.assert_allclose(heights, scaled, rtol=1e-6)
    cut = fcluster(wanted, 10, "maxclust")
    np.testing.assert_array_equal(cut_tree(merges, 70, 80), compact(cut))


@pytest.mark.parametrize(("link", "regularizer"), REDUCIBLE)
def test_heights__never_fall(link: str, regularizer: str) -> None:
    _, heights = merge_tree(
        drawn(150, 6, 1, copies=True), linkage=link, regularizer=regularizer, weight=0.02
    )
    assert (np.diff(heights) >= 0).all()


def test_cut__of_one_tree_is_bottom_up_at_every_number() -> None:
    x = drawn(60, 8, 0)
    start = starts(60, 4)
    merges, _ = merge_tree(x, labels=start)
    for num in range(0, len(merges) + 1, 7):
        wanted = bottom_up(x, num_merges=num, labels=start)
        np.testing.assert_array_equal(cut_tree(merges, num, 60, labels=start), wanted)
        assert wanted.max() + 1 == len(merges) + 1 - num
        np.testing.assert_array_equal(wanted < 0, start < 0)


def test_exact__passes_are_one_run() -> None:
    x = drawn(50, 8, 0)
    np.testing.assert_array_equal(bottom_up(x, num_merges=7, passes=4), bottom_up(x, num_merges=28))


@pytest.mark.parametrize("update", ["exact", "pass"])
@pytest.mark.parametrize("link", ["average", "ward", "minimum", "centroid"])
def test_permuted_images__permute_labels(link: str, update: str) -> None:
    x = drawn(70, 8, 2)
    order = np.random.default_rng(0).permutation(70)
    found = bottom_up(x, num_merges=20, passes=2, linkage=link, update=update)
    moved = bottom_up(x[order], num_merges=20, passes=2, linkage=link, update=update)
    np.testing.assert_array_equal(compact(found[order]), moved)


@pytest.mark.parametrize("update", ["exact", "pass"])
@pytest.mark.parametrize(("link", "regularizer"), RULES)
def test_identical_images__merge_by_id(link: str, regularizer: str, update: str) -> None:
    x = np.tile(drawn(1, 6, 0), (12, 1))
    found = bottom_up(x, num_merges=5, linkage=link, regularizer=regularizer, update=update)
    wanted = [0] * 6 + [1, 2, 3, 4, 5, 6]
    if update == "pass":  # id 0 absorbs the others for every pass rule
        skipped = bottom_up(
            x, num_merges=5, linkage=link, regularizer=regularizer, update=update, pass_rule="skip"
        )
        np.testing.assert_array_equal(skipped, wanted)
    if regularizer == "size" and update == "exact":
        wanted = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 6]  # always the two smallest clusters
    np.testing.assert_array_equal(found, wanted)


def test_thousand_identical_images__among_others_are_one_cluster() -> None:
    x = np.concatenate([np.tile(drawn(1, 8, 0), (1000, 1)), drawn(200, 8, 1)])
    found = bottom_up(x, num_merges=999, regularizer="sse")
    assert (found[:1000] == 0).all() and found.max() == 200


def test_threads_and_blocks__do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    x = drawn(500, 24, 0)
    wanted = merge_tree(x)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        monkeypatch.setattr(exact_rounds, "BLOCK_ROWS", 37)
        monkeypatch.setattr(exact_rounds, "LIST_LENGTH", 5)
        found = merge_tree(x)
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(found[0], wanted[0])
    np.testing.assert_array_equal(found[1], wanted[1])


def test_raw_features__only_without_the_sphere() -> None:
    x = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32) * 5
    x[3] = 0
    with pytest.raises(ValueError, match="unit rows, but row 0"):
        bottom_up(x, num_merges=3)
    for link in LINKAGES:
        found = bottom_up(x, num_merges=9, linkage=link, sphere=False)
        rule = (link, "sse", 0.01)
        wanted = merging_oracle.exact_labels(x.astype(float), np.arange(16), 9, rule)
        np.testing.assert_array_equal(found, wanted[9])


@pytest.mark.parametrize("update", ["exact", "pass"])
def test_input__is_not_modified_and_may_be_read_only_or_a_tensor(update: str) -> None:
    x, start = drawn(30, 8, 0), starts(30, 0)
    kept, kept_start = x.copy(), start.copy()
    x.flags.writeable = start.flags.writeable = False
    wanted = bottom_up(x, num_merges=5, labels=start, update=update)
    np.testing.assert_array_equal(x, kept)
    np.testing.assert_array_equal(start, kept_start)
    tensor = torch.from_numpy(kept)
    np.testing.assert_array_equal(
        bottom_up(tensor, num_merges=5, labels=start, update=update), wanted
    )
    assert wanted.dtype == np.int64


def test_nothing_to_merge__one_image_all_noise_no_merges() -> None:
    one = drawn(1, 4, 0)
    np.testing.assert_array_equal(bottom_up(one, num_merges=0), [0])
    noise = np.full(5, -1)
    np.testing.assert_array_equal(bottom_up(drawn(5, 4, 0), num_merges=0, labels=noise), noise)
    np.testing.assert_array_equal(
        bottom_up(drawn(4, 4, 0), num_merges=0, labels=[7, -3, 7, 2]), [0, -1, 0, 1]
    )
    merges, heights = merge_tree(one)
    assert merges.shape == (0, 2) and heights.shape == (0,)
    np.testing.assert_array_equal(cut_tree(merges, 0, 1), [0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"linkage": "complete"}, "linkage must be one of 'average', 'minimum'"),
        ({"regularizer": "sze"}, "did you mean 'sse'|did you mean 'size'"),
        ({"weight": -0.1}, "weight must be a number >= 0, got -0.1"),
        ({"update": "exakt"}, "did you mean 'exact'"),
        ({"pass_rule": "skipp"}, "pass_rule must be one of 'union', 'skip'"),
        ({"passes": 0}, "passes must be an integer >= 1, got 0"),
        ({"num_merges": -1}, "num_merges must be an integer >= 0, got -1"),
        ({"num_merges": 3, "passes": 2}, r"passes \* num_merges must be <= 5"),
        ({"labels": [0, 1]}, r"labels must have shape \(6,\), got \(2,\)"),
    ],
)
def test_wrong_argument__is_named(change: dict[str, object], words: str) -> None:
    given_: dict[str, object] = {"num_merges": 1, **change}
    with pytest.raises(ValueError, match=words):
        bottom_up(drawn(6, 4, 0), **given_)  # type: ignore[arg-type]


def test_nan__is_refused_by_row() -> None:
    x = drawn(6, 4, 0)
    x[4, 1] = np.nan
    with pytest.raises(ValueError, match="row 4 holds NaN"):
        bottom_up(x, num_merges=1)


def test_real_features__reach_the_known_quality(shared_data: Path) -> None:
    from sklearn.metrics import adjusted_rand_score

    file = np.load(shared_data / "features" / "market_train_osnet_x0_25.npz")
    x = file["features"].astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    found = bottom_up(x, num_merges=len(x) - 1171)
    assert np.bincount(found).max() == 106
    assert adjusted_rand_score(file["pids"], found) == pytest.approx(0.392, abs=6e-4)
