"""Paired differences of two rows of a sweep, with a confidence interval over folds.

Folds are the independent samples: two seeds of one fold share its identities, so their scores are
not independent. Seeds are averaged first, and the interval is Student's t over folds [0].

[0] Student, The probable error of a mean, Biometrika 1908.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from scipy.stats import t

#: (fold, seed) -> a score.
Scores = Mapping[tuple[str, int], float]
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """The mean difference of a row to its baseline.

    Attributes:
        mean: Mean over folds of the differences, which are averaged over seeds first; NaN without a
            pair.
        half_width: Half width of the confidence interval ``mean ± half_width``; None with fewer
            than two folds.
        folds: Folds with at least one pair.
        pairs: Number of (fold, seed) that both rows have.
        unmatched: Sorted (fold, seed) that only one of the rows has; they are excluded.
    """

    mean: float
    half_width: float | None
    folds: int
    pairs: int
    unmatched: tuple[tuple[str, int], ...]

    @property
    def interval(self) -> tuple[float, float] | None:
        """Lower and upper bound of the confidence interval, or None."""
        if self.half_width is None:
            return None
        return self.mean - self.half_width, self.mean + self.half_width


def paired_difference(row: Scores, baseline: Scores, confidence: float = CONFIDENCE) -> Difference:
    """Return the mean of ``row - baseline`` over pairs of the same fold and seed.

    Args:
        row: Scores of the row.
        baseline: Scores of the baseline.
        confidence: Confidence level of the interval, in (0, 1).
    """
    common = sorted(row.keys() & baseline.keys())
    unmatched = tuple(sorted(row.keys() ^ baseline.keys()))
    of_fold: dict[str, list[float]] = {}
    for fold, seed in common:
        of_fold.setdefault(fold, []).append(row[fold, seed] - baseline[fold, seed])
    means = [statistics.fmean(values) for values in of_fold.values()]
    if not means:
        return Difference(math.nan, None, 0, 0, unmatched)
    half_width = None
    if len(means) > 1:
        quantile = float(t.ppf((1 + confidence) / 2, len(means) - 1))
        half_width = quantile * statistics.stdev(means) / math.sqrt(len(means))
    mean = statistics.fmean(means)
    return Difference(mean, half_width, len(means), len(common), unmatched)
