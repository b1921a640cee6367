"""All variants of a kernel give the same result, and the right variant is loaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from unreid import kernels
from unreid.clustering import bottom_up, dbscan, map_equation
from unreid.env import kernel_names
from unreid.graph import jaccard_distance, knn
from unreid.kernels import VARIANTS, jitter_reference, kernel, supported_variants, variant_of
from unreid.kernels import _load as load


def variant(name: str, which: str) -> Any:
    """Return a variant of a kernel; skip if the processor or the compiler does not support it."""
    if which not in supported_variants():
        pytest.skip(f"this processor has no {which}")
    module = load(which, name)
    if module is None:
        pytest.skip(f"{name} was not built for {which}")
    return module


def blobs(num: int = 240, channels: int = 67) -> np.ndarray:
    """Return unit rows around thirty centres, with exact duplicates."""
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(30, channels))[rng.integers(0, 30, num)]
    rows += 0.5 * rng.normal(size=rows.shape)
    rows[1::40] = rows[::40]
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def neighbours() -> tuple[np.ndarray, ...]:
    return tuple(np.asarray(part) for part in knn(blobs(), 20))


def products() -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(5)
    rows, columns = rng.integers(0, 240, (2, 900))
    module: Any = kernel("knn")
    return (module.pair_products(blobs(), blobs(), rows, columns, 2),)


def ranks() -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(5)
    distances = rng.integers(0, 40, (9, 300)).astype(np.float32)  # with ties
    matches, none = rng.integers(0, 300, 45), np.zeros(0, np.int64)
    module: Any = kernel("ranking")
    found = module.match_ranks(distances, matches, np.arange(0, 46, 5), none, np.zeros(10, int), 2)
    return (found,)


def labels() -> tuple[np.ndarray, ...]:
    distance = jaccard_distance(blobs(), k1=20, k2=6)
    flow = map_equation(*knn(blobs(), 15), min_similarity=0.1, seed=0)
    merged = bottom_up(blobs(), num_merges=200)
    return distance.data, dbscan(distance, eps=0.5, min_samples=3), flow, merged


@pytest.mark.parametrize("which", VARIANTS[1:])
@pytest.mark.parametrize("work", [neighbours, products, ranks, labels])
def test_variant__gives_the_bits_of_the_baseline(
    work: Callable[[], tuple[np.ndarray, ...]], which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variant("knn", "baseline")
    variant("knn", which)
    found = {}
    for forced in ("baseline", which):
        monkeypatch.setenv("UNREID_KERNELS", forced)
        assert variant_of(kernel("knn")) == forced  # type: ignore[arg-type]
        found[forced] = work()
    for ours, plain in zip(found[which], found["baseline"], strict=True):
        assert ours.dtype == plain.dtype
        np.testing.assert_array_equal(ours, plain)


@pytest.mark.parametrize("which", VARIANTS)
def test_jitter__is_within_one_grey_level_in_every_variant(which: str) -> None:
    """Variants with FMA round a product and a sum once, the others twice."""
    rng = np.random.default_rng(7)
    colours = rng.integers(0, 256, (6, 500, 3), dtype=np.uint8)
    orders = np.array([rng.permutation(4) for _ in range(6)])
    factors = np.column_stack([rng.uniform(0, 2.5, (6, 3)), rng.uniform(-0.5, 0.5, 6)])
    given = colours, orders, factors.astype(np.float32)
    ours = variant("jitter", which).color_jitter(*given)
    reference = jitter_reference.color_jitter(*given)
    assert (np.abs(ours.astype(int) - reference) <= 1).all()
    assert (ours != reference).mean() <= 0.01


@pytest.mark.parametrize("name", kernel_names())
def test_best_variant_that_was_built__is_used(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNREID_KERNELS", raising=False)
    built = [which for which in supported_variants() if load(which, name) is not None]
    if not built:
        pytest.skip("no variant was built")
    assert variant_of(kernel(name)) == built[-1]  # type: ignore[arg-type]


def test_missing_variant__falls_back_to_the_next_and_then_to_numpy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("UNREID_KERNELS", raising=False)
    monkeypatch.setattr(kernels, "supported_variants", lambda: VARIANTS)
    present = {"baseline", "avx2"}
    monkeypatch.setattr(kernels, "_load", lambda which, name: which if which in present else None)
    assert kernel("knn") == "avx2"
    present.remove("avx2")
    assert kernel("knn") == "baseline"
    present.clear()
    assert kernel("knn") is None


def test_variant_that_the_processor_lacks__is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "supported_variants", lambda: ("baseline", "avx2"))
    monkeypatch.setenv("UNREID_KERNELS", "avx512")
    with pytest.raises(RuntimeError, match="this processor lacks; it can run baseline, avx2"):
        kernel("knn")
    monkeypatch.setenv("UNREID_KERNELS", "avx3")
    with pytest.raises(ValueError, match=r"UNREID_KERNELS must be one of .*got 'avx3'; did you"):
        kernel("knn")


@pytest.mark.parametrize(
    ("capability", "wanted"),
    [("DEFAULT", 1), ("NO AVX", 1), ("SVE256", 1), ("AVX2", 2), ("AVX512", 3)],
)
def test_variants__are_those_of_the_processor(
    capability: str, wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: capability)
    assert supported_variants.__wrapped__() == VARIANTS[:wanted]
