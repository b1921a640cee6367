"""Camera-aware proxies: losses against a loop written from the formula, and edge cases."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from calr.proxies import CameraProxies, number_proxies


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    rows = rng.normal(size=shape).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def example(seed: int, **settings: Any) -> tuple[CameraProxies, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    features = unit(rng, 40, 8)
    labels = np.concatenate([rng.integers(-1, 5, 35), np.arange(5)])
    camids = rng.integers(0, 3, 40)
    given = {"temperature": 0.1, "momentum": 0.2, "num_negatives": 4, **settings}
    proxies = CameraProxies(8, **given)
    proxies.reset(features, labels, camids)
    return proxies, features, labels, camids


def slow_losses(
    proxies: CameraProxies,
    features: np.ndarray,
    labels: np.ndarray,
    camids: np.ndarray,
    batch: np.ndarray,
    queries: np.ndarray,
    tau: float,
    num_negatives: int,
) -> tuple[float, float]:
    """Return both losses of CAP in double, by a loop over images and proxies."""
    groups = sorted({(int(y), int(c)) for y, c in zip(labels, camids) if y >= 0})
    means = []
    for y, c in groups:
        mean = features[(labels == y) & (camids == c)].astype(np.float64).sum(0)
        means.append(mean / np.linalg.norm(mean))
    intra, inter = [], []
    for image, query in zip(batch, queries):
        y, c = int(labels[image]), int(camids[image])
        score = {g: math.exp(float(query @ m) / tau) for g, m in zip(groups, means)}
        own = sum(value for g, value in score.items() if g[1] == c)
        intra.append(-math.log(score[(y, c)] / own))
        positives = [value for g, value in score.items() if g[0] == y and g[1] != c]
        if not positives:
            continue
        others = sorted((v for g, v in score.items() if g[0] != y), reverse=True)
        total = sum(positives) + sum(others[:num_negatives])
        inter.append(-sum(math.log(value / total) for value in positives) / len(positives))
    return float(np.mean(intra)), float(np.mean(inter))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("num_negatives", [1, 4, 100])
def test_losses__equal_a_loop_over_images_and_proxies(seed: int, num_negatives: int) -> None:
    proxies, features, labels, camids = example(seed, num_negatives=num_negatives)
    rng = np.random.default_rng(seed + 100)
    batch = rng.choice(np.flatnonzero(labels >= 0), 12)
    queries = unit(rng, 12, 8)
    found = proxies(torch.from_numpy(queries), torch.from_numpy(batch))
    wanted = slow_losses(proxies, features, labels, camids, batch, queries, 0.1, num_negatives)
    np.testing.assert_allclose([float(loss) for loss in found], wanted, rtol=1e-5)


def test_inter_loss__pulls_towards_the_same_cluster_in_other_cameras_alone() -> None:
    features = np.eye(4, dtype=np.float32)
    proxies = CameraProxies(4, temperature=0.1, momentum=0.2, num_negatives=50)
    proxies.reset(features, np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]))
    query = torch.full((1, 4), 0.5, requires_grad=True)
    proxies(query, torch.tensor([0]))[1].backward()
    assert query.grad is not None
    gradient = query.grad[0]
    # Image 0 has cluster 0 and camera 0: its positive is axis 1, its negatives are axes 2 and 3.
    assert gradient[1] < 0 and gradient[2] > 0 and gradient[3] > 0
    assert gradient[0] == 0


def test_clusters_of_one_camera__cost_nothing_across_cameras_and_keep_the_graph() -> None:
    proxies = CameraProxies(4, temperature=0.1, momentum=0.2, num_negatives=3)
    proxies.reset(np.eye(4, dtype=np.float32), np.array([0, 0, 1, 1]), np.zeros(4, np.int64))
    query = torch.nn.functional.normalize(torch.ones(2, 4)).requires_grad_()
    intra, inter = proxies(query, torch.tensor([0, 2]))
    assert inter.item() == 0.0
    (intra + inter).backward()
    assert query.grad is not None and bool(torch.isfinite(query.grad).all())


def test_update__moves_the_proxy_of_the_image_and_no_other() -> None:
    proxies, _, labels, _ = example(0)
    image = int(np.flatnonzero(labels >= 0)[0])
    number = int(proxies.proxy_of_image[image])
    before = proxies.memory.centroids.clone()
    moved = torch.nn.functional.normalize(torch.ones(1, 8))
    proxies.update(moved, torch.tensor([image]))
    wanted = torch.nn.functional.normalize(0.2 * before[number] + 0.8 * moved[0], dim=0)
    torch.testing.assert_close(proxies.memory.centroids[number], wanted)
    others = torch.arange(len(before)) != number
    assert torch.equal(proxies.memory.centroids[others], before[others])


def test_noise__has_no_proxy_and_is_refused() -> None:
    labels = np.array([0, -1, 0, 1])
    numbers, pairs = number_proxies(labels, np.array([0, 0, 1, 1]))
    assert numbers.tolist() == [0, -1, 1, 2]
    assert pairs.tolist() == [[0, 0], [0, 1], [1, 1]]
    proxies = CameraProxies(4, temperature=0.1, momentum=0.2, num_negatives=3)
    proxies.reset(np.eye(4, dtype=np.float32), labels, np.array([0, 0, 1, 1]))
    with pytest.raises(ValueError, match=r"0\.\.2"):
        proxies(torch.eye(4)[:1], torch.tensor([1]))
