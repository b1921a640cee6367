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

    A person has a centre and a shift in each camera; each camera has a shift;
    the 64 hidden directions fall off as 1 / sqrt(rank), and the channels carry white noise. The
    constants give the neighbour overlap of the real features (12,936 x 128, against these at
    12,936 x 512): 72 and 65 entries in an encoding, 1,270 and 1,775 images at a Jaccard distance
    below 1, 31 % and 32 % of the 30 nearest neighbours of the same person.

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
    for start in range(0, num, 4096):  # in place and in parts, for large inputs
        part = features[start : start + 4096]
        part += rng.standard_normal(part.shape, dtype=np.float32) * (0.5 / np.sqrt(channels))
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return features, person


def no_real_features() -> str | None:
    """Return why the rows on real features cannot run, or None."""
    return None if REAL.is_file() else "no ../shared/data/features beside the checkout"


def real() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features (12936, 128), person ids and cameras of Market-1501's training set."""
    with np.load(REAL) as file:
        features = file["features"].astype(np.float32)
        pids, camids = file["pids"].astype(np.int64), file["camids"].astype(np.int64)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features, pids, camids
