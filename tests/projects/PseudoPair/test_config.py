"""Config keys of PseudoPair: ranges, and loss terms that require each other."""

from __future__ import annotations

import pytest

from pseudopair.config import first_pair_epoch
from tests.projects.PseudoPair.networks import MARKET
from tests.projects.tiny_run import load_tiny


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("EXPECTED_POSITIVES", 0.0),
        ("SURROGATE__PATCHES", 0),
        ("SURROGATE__KIND", "stripe"),
        ("SURROGATE__TEMPERATURE", 0.0),
        ("SURROGATE__MOMENTUM", 1.5),
        ("SURROGATE__NEGATIVES", -1),
        ("SEPARATION__ALPHA", -1.0),
        ("SEPARATION__MAX_SIMILARITY", 2.0),
        ("PAIR__K", 0),
        ("PAIR__TEMPERATURE", 0.0),
        ("INTRA__HEADS", 0),
        ("INTRA__DIVERSITY", -0.1),
        ("INTER__WIDTH", 1),
        ("INTER__KERNEL", 2),
        ("RERANK__TOP_K", 0),
        ("RERANK__WEIGHT", 1.1),
    ],
)
def test_value__out_of_range_is_named_by_its_key(key: str, value: object) -> None:
    name = f"PSEUDOPAIR.{key.replace('__', '.')}"
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        load_tiny(MARKET, **{f"PSEUDOPAIR__{key}": value})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"PAIR__ENABLED": False}, r"INTRA\.ENABLED must be False without PSEUDOPAIR\.PAIR"),
        ({"INTER__ENABLED": False, "RERANK__ENABLED": True}, r"RERANK\.ENABLED must be False"),
        ({"SURROGATE__EPOCHS": 2}, r"SURROGATE\.EPOCHS must be below SOLVER\.MAX_EPOCH \(2\)"),
        (
            {
                "SURROGATE__ENABLED": False,
                "SEPARATION__ENABLED": False,
                "PAIR__ENABLED": False,
                "INTRA__ENABLED": False,
                "INTER__ENABLED": False,
            },
            "needs at least one loss",
        ),
    ],
)
def test_terms__that_need_one_another_are_refused_apart(
    settings: dict[str, object], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        load_tiny(MARKET, **{f"PSEUDOPAIR__{k}": v for k, v in settings.items()})


def test_sampler__must_put_pairs_side_by_side_where_they_are_compared() -> None:
    with pytest.raises(ValueError, match="SAMPLER_TRAIN must be PairSampler"):
        load_tiny(MARKET, DATALOADER__SAMPLER_TRAIN="ShuffleSampler")


def test_first_pair_epoch__is_none_without_surrogate_classes() -> None:
    on, _ = load_tiny(MARKET)
    off, _ = load_tiny(MARKET, PSEUDOPAIR__SURROGATE__ENABLED=False)
    assert (first_pair_epoch(on), first_pair_epoch(off)) == (1, 0)
