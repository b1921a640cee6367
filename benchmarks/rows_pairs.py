"""Benchmark rows of pseudo pairs: pair mining, and a training step of the surrogate loss.

Mining is compared with the kNN search that it starts from. The step with sampled memory rows is
compared with one against all rows.

Notation: N images, D channels, K neighbours, B batch, P patches, M sampled columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.harness import Floor, Row, Target
from benchmarks.inputs import clustered, no_real_features, real

#: Expected positives per image above beta, neighbours for mutual pairs, neighbours searched.
EXPECTED, TOP, K = 17.0, 8, 33
#: Surrogate loss on ResNet-50 feature maps: batch, channels, patches, sampled rows, timed steps.
BATCH, CHANNELS, PATCHES, DRAWN, STEPS = 64, 2048, 6, 4096, 5


def _size(quick: bool) -> tuple[int, int]:
    return (3000, 512) if quick else (12936, 2048)


def _drawn(quick: bool) -> np.ndarray:
    """Return synthetic features after a warm-up call, so that imports are not timed."""
    features, _ = clustered(*_size(quick))
    _mine(features[:400])
    return features


def _mine(features: np.ndarray) -> Any:
    from unreid.graph import knn
    from unreid.graph.pairs import expected_threshold, mutual_pairs

    neighbours = knn(features, K)
    threshold = expected_threshold(features, neighbours, EXPECTED)
    return *mutual_pairs(neighbours, TOP, threshold.beta), threshold


def _bare(features: np.ndarray) -> Any:
    from unreid.graph import knn

    return knn(features, K)


def _found(features: np.ndarray, result: Any) -> Any:
    if len(result) == 2:  # the kNN search alone
        return None
    pairs, _, threshold = result
    return 2 * len(pairs) / len(features), threshold


def _found_remark(digest: Any) -> str:
    partners, threshold = digest
    kind = "exact" if threshold.exact else "estimated"
    return (
        f"beta {threshold.beta:.4f} {kind} ({threshold.saturated:,} rows completed),"
        f" {partners:.2f} partners an image"
    )


def _product(quick: bool) -> Floor:
    num, channels = _size(quick)
    return Floor(num * (num - 1.0) * channels, 4.0 * num * channels, "half the product, float32")


def _real(_: bool) -> Any:
    features, pids, camids = real()
    _mine(features[:400])
    return features, pids, camids


def _centred(_: bool) -> Any:
    from unreid.graph.centering import center_cameras

    features, pids, camids = _real(_)
    return center_cameras(features, camids), pids, camids


def _quality(inputs: Any, result: Any) -> Any:
    from unreid.evaluation.label_quality import pair_quality

    features, pids, camids = inputs
    return pair_quality(result[0], pids, camids), _found(features, result)


def _quality_remark(digest: Any) -> str:
    quality, found = digest
    return (
        f"precision {quality['pair_precision']:.3f}, recall {quality['pair_recall']:.3f},"
        f" of two cameras {quality['pair_precision_cross']:.3f}; {_found_remark(found)}"
    )


def _quality_row(name: str, title: str, setup: Any) -> Row:
    return Row(
        name=name,
        title=title,
        size="12,936 x 128",
        quick_size="12,936 x 128",
        setup=setup,
        contenders={"ours": lambda inputs: _mine(inputs[0])},
        digest=_quality,
        remark=_quality_remark,
        unavailable=no_real_features,
    )


def _surrogate(num: int, quick: bool) -> Any:
    """Return the surrogate loss with filled memories, feature maps and indices, after one step."""
    import torch

    import unreid  # noqa: F401  (before fastreid)
    from unreid.projects import load_project

    load_project("PseudoPair")
    from pseudopair.surrogate import SurrogateClasses

    torch.manual_seed(0)
    num = num // 10 if quick else num
    module = SurrogateClasses(CHANNELS, num_patches=PATCHES, num_negatives=DRAWN)
    module.memory.reset(torch.randn(PATCHES, num, module.memory.num_features))
    maps = torch.randn(BATCH, CHANNELS, 16, 8).requires_grad_()
    inputs = module, maps, torch.randint(num, (STEPS, BATCH))
    _steps(inputs, DRAWN, 1)
    return inputs


def _steps(inputs: Any, num_negatives: int, steps: int = 0) -> Any:
    """Run forward, backward and memory update for ``steps`` batches."""
    module, maps, batches = inputs
    module.num_negatives = num_negatives
    for indices in batches[: steps or STEPS]:
        maps.grad = None
        patches = module(maps, indices)
        module.loss(patches, indices).backward()
        module.memory.update(indices, patches)
    return module.memory.rows


def _rows_kept(_: Any, rows: Any) -> Any:
    return rows.numel() * rows.element_size() / 2**20


def _surrogate_row(num: int) -> Row:
    return Row(
        name=f"surrogate_{num // 1000}k",
        title=f"{STEPS} steps of the surrogate loss, B {BATCH}, P {PATCHES}, M {DRAWN:,}",
        size=f"{num:,} x 128",
        quick_size=f"{num // 10:,} x 128",
        setup=lambda quick: _surrogate(num, quick),
        contenders={
            "ours": lambda inputs: _steps(inputs, DRAWN),
            "against all N": lambda inputs: _steps(inputs, 0),
        },
        digest=_rows_kept,
        remark=lambda kept: f"the memory itself is {kept:,.0f} MiB",
    )


BARE = "bare kNN, ours"

ROWS = [
    Row(
        name="pair_mining",
        title=f"kNN, beta of {EXPECTED:.0f} others, mutual top {TOP}",
        size="12,936 x 2,048",
        quick_size="3,000 x 512",
        setup=_drawn,
        contenders={"ours": _mine, BARE: _bare},
        targets=[Target("<= 1.3 x the time", BARE, faster=1 / 1.3)],
        floor=_product,
        digest=_found,
        remark=_found_remark,
    ),
    _quality_row("pair_mining_real", "the same, real features", _real),
    _quality_row("pair_mining_centred", "the same, cameras centred", _centred),
    *(_surrogate_row(num) for num in (12936, 50000, 100000)),
]
