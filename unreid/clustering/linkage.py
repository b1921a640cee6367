"""Distance between two clusters: linkage plus weighted regulariser.

With d(a, b) = ||a - b||^2 (2 - 2 cos on the sphere), m_A the mean, n_A the size and
SSE(A) = sum over A of ||a - m_A||^2, all but ``minimum`` follow from e = ||m_A - m_B||^2:

    average   mean of d over pairs         = e + SSE(A) / n_A + SSE(B) / n_B          [1, 2]
    minimum   min of d over pairs                                                     [0]
    energy    2 E d(a,b) - E d(a,a') - E d(b,b') = 2 e                                [3]
    centroid  2 - 2 cos(m_A, m_B)          = (e - (|m_A| - |m_B|)^2) / (|m_A| |m_B|)
    ward      n_A n_B / (n_A + n_B) e, the increase of SSE                            [4]

    D(A, B) = linkage(A, B) + weight * regulariser(A, B)

    none 0;  sse SSE(A) + SSE(B);  size n_A + n_B [0];  sse_union SSE(A u B);
    sse_increase SSE(A u B) - SSE(A) - SSE(B);
    dispersion: mean of d over the ordered pairs inside A, 2 SSE(A) / n_A, plus that of B [1]

[0] Lin et al.: A bottom-up clustering approach to unsupervised person re-identification (BUC),
    2019, https://doi.org/10.1609/aaai.v33i01.33018738
[1] Ding et al.: Towards better validity: dispersion based clustering (DBC), 2019,
    https://arxiv.org/abs/1906.01308. Unlike [1], d is squared.
[2] Zeng et al.: Hierarchical clustering with hard-batch triplet loss (HCT), 2020,
    https://arxiv.org/abs/1910.12278
[3] Zeng et al.: Energy clustering, 2019, https://arxiv.org/abs/1909.00112
[4] Murtagh: A survey of recent advances in hierarchical clustering algorithms, 1983

Notation: N images, D channels, C clusters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from unreid.checks import check_choice, check_number

LINKAGES = ("average", "minimum", "energy", "centroid", "ward")
REGULARIZERS = ("sse", "size", "dispersion", "none", "sse_union", "sse_increase")


@dataclass
class Clusters:
    """State of the clusters during merging; slot i holds cluster i until it is merged.

    Attributes:
        means: (C, D) float64.
        sizes: (C,) float64, number of images.
        sse: (C,) float64, sum of squared distances to the mean.
        lengths: (C,) float64, norm of the mean.
    """

    means: np.ndarray
    sizes: np.ndarray
    sse: np.ndarray
    lengths: np.ndarray

    def __len__(self) -> int:
        return len(self.sizes)

    @classmethod
    def of(cls, features: np.ndarray, labels: np.ndarray | None) -> Clusters:
        """Return one cluster per image, or the clusters of (N,) labels in 0..C-1 (-1: noise)."""
        if labels is None:
            means = features.astype(np.float64)
            count = len(means)
            sizes, sse = np.ones(count), np.zeros(count)
        else:
            count = int(labels.max(initial=-1)) + 1
            sizes = np.bincount(labels[labels >= 0], minlength=count).astype(np.float64)
            means = np.zeros((count, features.shape[1]))
            sse = np.zeros(count)
            order = np.argsort(labels, kind="stable")[len(labels) - int(sizes.sum()) :]
            ends = np.cumsum(sizes).astype(np.int64)
            lone = sizes == 1
            means[lone] = features[order[ends[lone] - 1]]
            for c in np.flatnonzero(~lone):
                rows = features[order[ends[c] - int(sizes[c]) : ends[c]]].astype(np.float64)
                means[c] = rows[0] if (rows == rows[0]).all() else rows.mean(axis=0)
                sse[c] = ((rows - means[c]) ** 2).sum()
        return cls(means, sizes, sse, np.sqrt(np.einsum("ij,ij->i", means, means)))

    def merge(self, low: int, high: int, squared: float) -> None:
        """Put the union of two clusters into slot ``high``; ``squared`` is e of the two."""
        a, b = self.sizes[low], self.sizes[high]
        # Computed from the difference, so that equal means do not change.
        self.means[high] += a / (a + b) * (self.means[low] - self.means[high])
        self.sse[high] += self.sse[low] + a * b / (a + b) * squared
        self.sizes[high] = a + b
        self.lengths[high] = np.sqrt(self.means[high] @ self.means[high])


@dataclass(frozen=True)
class Rule:
    """Merge rule: a linkage, a regulariser and its weight.

    Raises:
        ValueError: an unknown name, or a weight that is negative or not finite.
    """

    linkage: str
    regularizer: str
    weight: float

    def __post_init__(self) -> None:
        check_choice("linkage", self.linkage, LINKAGES)
        check_choice("regularizer", self.regularizer, REGULARIZERS)
        check_number("weight", self.weight, 0)

    @property
    def reducible(self) -> bool:
        """Whether the union of A and B is never nearer to a third cluster than A or B.

        Formally, D(A u B, C) >= min(D(A, C), D(B, C)) if D(A, B) is at most both. Then merging all
        mutual nearest neighbours at once gives the tree of one merge at a time [4].

        - average: a mean over pairs is a convex combination, so it holds for every part
          g(A) + g(B) with g(A u B) >= (n_A g(A) + n_B g(B)) / (n_A + n_B): sse, size,
          dispersion; and for SSE(A u B u C), which exceeds SSE(A u C) and SSE(B u C).
        - minimum: for every g(A u B) >= max(g(A), g(B)): sse, size; and sse_union.
        - ward: with none or sse_increase, which is a multiple of ward. Not with sse or size: if A
          and B are on opposite sides of a large C, g(C) may make both far from C, but the mean of
          their union is at the mean of C.
        - energy and centroid: never, because they have inversions.
        """
        if self.weight == 0 or self.regularizer == "none":
            return self.linkage in ("average", "minimum", "ward")
        return self.regularizer in {
            "average": ("sse", "size", "dispersion", "sse_union"),
            "minimum": ("sse", "size", "sse_union"),
            "ward": ("sse_increase",),
        }.get(self.linkage, ())

    def own(self, sizes: np.ndarray, sse: np.ndarray) -> np.ndarray:
        """Return weight * g(A) of each cluster for a regulariser g(A) + g(B), else zero."""
        part = {"sse": sse, "size": sizes, "dispersion": 2 * sse / sizes}.get(self.regularizer)
        return np.zeros_like(sse) if part is None else self.weight * part

    def distance(
        self, squared: np.ndarray, a: Clusters, i: np.ndarray, j: np.ndarray,
        nearest: np.ndarray | None = None,
    ) -> np.ndarray:  # fmt: skip
        """Return the distance D between clusters.

        Args:
            squared: e between slots i and j, any broadcastable shape.
            a: The clusters.
            i: Slots, an array that broadcasts to that shape.
            j: Slots, an array that broadcasts to that shape.
            nearest: The smallest d over pairs of images; required for ``minimum``.

        Returns:
            float64 of that shape; bit-identical if i and j are exchanged.
        """
        na, nb, ea, eb = a.sizes[i], a.sizes[j], a.sse[i], a.sse[j]
        if self.linkage == "average":
            base = squared + (ea / na + eb / nb)
        elif self.linkage == "energy":
            base = 2 * squared
        elif self.linkage == "ward":
            base = na * nb / (na + nb) * squared
        elif self.linkage == "centroid":
            la, lb = a.lengths[i], a.lengths[j]
            apart = np.maximum(squared - (la - lb) ** 2, 0)
            # A mean of norm zero has no direction; its cosine is set to 0.
            base = np.divide(apart, la * lb, where=la * lb > 0, out=np.full_like(apart, 2.0))
        else:
            assert nearest is not None
            base = nearest
        if self.regularizer == "sse_increase":
            return base + self.weight * (na * nb / (na + nb) * squared)
        if self.regularizer == "sse_union":
            return base + self.weight * ((ea + eb) + na * nb / (na + nb) * squared)
        return base + (self.own(na, ea) + self.own(nb, eb))
