"""Inputs of the benchmarks: synthetic features, and stored features of Market-1501.

Notation: N images, D channels.
"""

from __future__ import annotations

import numpy as np

from benchmarks.harness import ROOT

REAL = ROOT.parent / "shared" / "data" / "features" / "market_train_osnet_x0_25.npz"


def clustered(
    num: int, channels: int, seed: int = 0, people: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the unit rows of people under six cameras, and their person ids.

    Each person has a centre, and an offset in each camera; each camera has an offset. The 64 latent
    directions have scale 1 / sqrt(rank), and white noise is added to the channels. The constants
    are fitted to the neighbour overlap of real features (12,936 x 128), compared at 12,936 x 512.
    Real and synthetic values are 72 and 65 entries in an encoding, 1,270 and 1,775 images at a
    Jaccard distance below 1, and 31 % and 32 % same-person images among the 30 nearest neighbours.

    Returns:
        (num, channels) float32 unit rows and (num,) int64 people.
    """
    rng = np.random.default_rng(seed)
    people = people or max(1, num // 17)
    latent = 64
    spectrum = np.arange(1, latent + 1, dtype=np.float32) ** -0.5
    basis = rng.standard_normal((latent, channels), dtype=np.float32)
    person, camera = rng.integers(0, people, num), rng.integers(0, 6, num)
    centre = rng.standard_normal((people, latent), dtype=np.float32)
    view = 0.5 * rng.standard_normal((6 * people, latent), dtype=np.float32)
    shift = 0.5 * rng.standard_normal((6, latent), dtype=np.float32)
    hidden = centre[person] + view[6 * person + camera] + shift[camera]
    hidden += 0.5 * rng.standard_normal(hidden.shape, dtype=np.float32)
    features = (hidden * spectrum) @ basis
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    for start in range(0, num, 4096):  # in place and in blocks, for large inputs
        part = features[start : start + 4096]
        part += rng.standard_normal(part.shape, dtype=np.float32) * (0.5 / np.sqrt(channels))
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return features, person


def no_real_features() -> str | None:
    """Return why the rows on real features cannot run, or None."""
    return None if REAL.is_file() else "no ../shared/data/features beside the checkout"


def real() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features (12936, 128), person ids and cameras of Market-1501's training images."""
    with np.load(REAL) as file:
        features = file["features"].astype(np.float32)
        pids, camids = file["pids"].astype(np.int64), file["camids"].astype(np.int64)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features, pids, camids
