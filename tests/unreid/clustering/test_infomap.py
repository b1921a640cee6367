"""The optional infomap package: the clusterers' contract, and the error if it is missing."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from unreid.clustering import infomap, map_equation

CLIQUES = np.arange(20).reshape(4, 1, 5).repeat(5, axis=1).reshape(20, 5)


def test_missing_package__error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "infomap", None)
    with pytest.raises(ImportError, match=r"pip install unreid\[infomap\]"):
        infomap(CLIQUES, np.ones((20, 5)), min_similarity=0.5, seed=0)


def test_cliques__are_found_as_by_our_own() -> None:
    pytest.importorskip("infomap")
    values = np.full((20, 5), 0.8, np.float32)
    found = infomap(CLIQUES, values, min_similarity=0.5, seed=0)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, np.arange(20) // 5)
    np.testing.assert_array_equal(found, map_equation(CLIQUES, values, min_similarity=0.5, seed=0))


def test_same_seed__same_labels() -> None:
    pytest.importorskip("infomap")
    rng = np.random.default_rng(0)
    indices, values = rng.integers(0, 100, (100, 6)), rng.uniform(0.3, 1, (100, 6))
    first = infomap(indices, values, min_similarity=0.4, seed=5)
    np.testing.assert_array_equal(infomap(indices, values, min_similarity=0.4, seed=5), first)


@pytest.mark.parametrize("num", [0, 1, 3])
def test_no_links__every_image_alone(num: int) -> None:
    pytest.importorskip("infomap")
    found = infomap(np.arange(num)[:, None], np.ones((num, 1)), min_similarity=0.5, seed=0)
    np.testing.assert_array_equal(found, np.arange(num))


def test_wrong_argument__is_named() -> None:
    with pytest.raises(ValueError, match="seed must be an integer >= 0"):
        infomap(CLIQUES, np.ones((20, 5)), min_similarity=0.5, seed=-2)
