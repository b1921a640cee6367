"""BUC's lookup table against its formula, and the bug of an earlier release."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from spherecluster.lookup_table import LookupTable


def unit(rows: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(rows, 6, generator=generator))


def table(num_clusters: int) -> LookupTable:
    made = LookupTable(6, temperature=0.1, momentum=0.5)
    made.clear(num_clusters)
    return made


def test_table__is_zero_after_each_merge() -> None:
    """An early version kept rows of earlier clusters, which are in file order and so reveal ids."""
    filled = table(8)
    filled.update(unit(8), torch.arange(8))
    assert filled.centroids.abs().sum() > 0
    filled.clear(5)
    assert filled.centroids.shape == (5, 6) and not filled.centroids.any()


def test_table__has_nothing_to_train() -> None:
    assert list(table(4).parameters()) == []
    assert "centroids" in table(4).state_dict()


def test_update__is_the_normalised_mean_of_row_and_feature() -> None:
    made, features = table(4), unit(3)
    made.update(features, torch.tensor([2, 0, 2]))
    first = features[0]  # a zero row is replaced by the feature
    second = torch.nn.functional.normalize((first + features[2]) / 2, dim=0)
    torch.testing.assert_close(made.centroids[2], second)
    torch.testing.assert_close(made.centroids[0], features[1])
    assert not made.centroids[1].any() and not made.centroids[3].any()


def test_logits__are_cosines_over_tau_and_zero_for_clusters_not_seen() -> None:
    made, features = table(3), unit(2)
    made.update(features[:1], torch.tensor([1]))
    logits = made(features, torch.tensor([0, 1]))
    torch.testing.assert_close(logits[:, 1], features @ features[0] / 0.1)
    assert not logits[:, [0, 2]].any()


def test_no_cluster__is_refused() -> None:
    with pytest.raises(ValueError, match="num_clusters must be an integer >= 1, got 0"):
        table(0)


def test_state__inside_a_round_is_loaded_with_its_size() -> None:
    saved, fresh = table(4), LookupTable(6)
    saved.update(unit(2), torch.tensor([0, 3]))
    fresh.load_state_dict(saved.state_dict())
    assert torch.equal(saved.centroids, fresh.centroids)
