"""Exact neighbours: order, ties, self; for any block size, number of threads, and array type."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.unreid.graph import oracle
from unreid.graph import knn, triangle
from unreid.graph.knn import exact_and_farthest, search
from unreid.kernels import kernel, knn_reference

needs_kernel = pytest.mark.skipif(kernel("knn") is None, reason="the kernel is not built")


@given(
    num=st.integers(1, 60),
    channels=st.integers(1, 40),
    k=st.integers(1, 70),
    copies=st.integers(0, 5),
    seed=st.integers(0, 99),
)
def test_equals_sorting_every_row(num: int, channels: int, k: int, copies: int, seed: int) -> None:
    features = oracle.unit(np.random.default_rng(seed), num, channels, min(copies, num - 1))
    indices, similarities = knn(features, k)
    wanted, values = oracle.neighbours(features, k)
    assert indices.dtype == np.int32 and similarities.dtype == np.float32
    np.testing.assert_allclose(similarities, values, atol=2e-7)
    # Rounding may swap two neighbours with nearly equal similarity; either order is correct.
    wide = features.astype(np.float64)
    swapped = indices != wanted
    apart = np.einsum("nkd,nd->nk", wide[indices] - wide[wanted], wide)
    assert np.abs(apart[swapped]).max(initial=0.0) < 1e-7


def test_equals_sorting_every_row_where_no_two_are_near(rng: np.random.Generator) -> None:
    features = oracle.unit(rng, 500, 32)
    assert (knn(features, 30)[0] == oracle.neighbours(features, 30)[0]).all()


def test_self_is_first_even_among_exact_duplicates_and_ties_go_by_index() -> None:
    row = np.full((1, 16), 0.25, dtype=np.float32)
    indices, similarities = knn(np.repeat(row, 7, axis=0), 4)
    assert indices.tolist() == [
        [0, 1, 2, 3],
        [1, 0, 2, 3],
        [2, 0, 1, 3],
        [3, 0, 1, 2],
        [4, 0, 1, 2],
        [5, 0, 1, 2],
        [6, 0, 1, 2],
    ]
    assert (similarities == 1).all()


def test_more_duplicates_than_a_list_holds(rng: np.random.Generator) -> None:
    features = oracle.unit(rng, 900, 24)
    features[100:800] = features[100]
    indices, _ = knn(features, 5)
    assert indices[100].tolist() == [100, 101, 102, 103, 104]
    assert indices[700].tolist() == [700, 100, 101, 102, 103]
    loners = np.r_[0:100, 800:900]
    wanted, _ = search(torch.from_numpy(features), torch.from_numpy(loners), 5, 64)
    assert (indices[loners] == wanted.numpy()).all()


def test_one_image() -> None:
    indices, similarities = knn(np.array([[0.6, 0.8]], dtype=np.float32), 30)
    assert indices.tolist() == [[0]] and similarities[0, 0] == pytest.approx(1)


def test_k_beyond_the_images_gives_all_of_them(rng: np.random.Generator) -> None:
    indices, _ = knn(oracle.unit(rng, 9, 5), 30)
    assert indices.shape == (9, 9)
    assert (np.sort(indices, axis=1) == np.arange(9)).all()


@pytest.mark.parametrize("block_size", [3, 7, 64, 1000])
def test_block_size_changes_nothing(rng: np.random.Generator, block_size: int) -> None:
    features = oracle.unit(rng, 70, 33, copies=9)
    wanted = knn(features, 12)
    found = knn(features, 12, block_size=block_size)
    assert (found[0] == wanted[0]).all() and (found[1] == wanted[1]).all()


@pytest.mark.parametrize("name", ["int8", "bfloat16", "float32"])
@needs_kernel
def test_any_number_format_gives_the_same(
    rng: np.random.Generator, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = oracle.unit(rng, 400, 48, copies=20)
    wanted = knn(features, 10)
    monkeypatch.setattr(triangle, "formats", lambda: [name])
    monkeypatch.setattr(triangle, "INT8_BOUND", 1.0)
    assert triangle.quantize(features).rows.dtype == getattr(torch, name)
    found = knn(features, 10, block_size=96)
    assert (found[0] == wanted[0]).all() and (found[1] == wanted[1]).all()


@pytest.mark.parametrize("name", ["int8", "bfloat16", "float32"])
def test_quantized_products_keep_their_bound(rng: np.random.Generator, name: str) -> None:
    features = oracle.unit(rng, 300, 200)
    quantized = triangle.quantize(features, name)
    rows = quantized.rows.double().numpy() * quantized.scales[:, None].astype(np.float64)
    error = np.abs(rows @ rows.T - features.astype(np.float64) @ features.T.astype(np.float64))
    assert (2 * error <= quantized.slack[:, None]).all()
    assert name == "float32" or error.max() > 0


@needs_kernel
def test_a_quantized_value_beyond_its_bound_is_found_out(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = oracle.unit(rng, 200, 32)
    wanted = knn(features, 8)
    original = triangle.quantize

    def lying(given: np.ndarray, name: str | None = None) -> triangle.QuantizedFeatures:
        quantized = original(given, "float32")
        rows = quantized.rows.clone()
        rows[::3] *= 1.5
        return triangle.QuantizedFeatures(rows, quantized.scales, quantized.slack, 0, torch.mm)

    monkeypatch.setattr(triangle, "quantize", lying)
    found = knn(features, 8)
    wrong = found[0] != wanted[0]
    # Each row with a wrong value in its list is searched again.
    assert not wrong[::3].any()


def test_threads_change_nothing(rng: np.random.Generator) -> None:
    features, before = oracle.unit(rng, 300, 40, copies=11), torch.get_num_threads()
    wanted = knn(features, 15)
    try:
        torch.set_num_threads(1)
        found = knn(features, 15)
    finally:
        torch.set_num_threads(before)
    assert (found[0] == wanted[0]).all() and (found[1] == wanted[1]).all()


@needs_kernel
def test_pure_python_gives_the_same_bits(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = oracle.unit(rng, 300, 45, copies=11)
    wanted, far = knn(features, 15), exact_and_farthest(features, 4)[2]
    monkeypatch.setenv("UNREID_PURE_PYTHON", "1")
    assert kernel("knn") is None
    found = knn(features, 15, block_size=77)
    assert (found[0] == wanted[0]).all() and (found[1] == wanted[1]).all()
    assert (exact_and_farthest(features, 4)[2] == far).all()


@needs_kernel
@given(pairs=st.integers(0, 40), channels=st.integers(1, 70), seed=st.integers(0, 99))
def test_pair_products_equal_their_reference(pairs: int, channels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    left = rng.standard_normal((9, channels), dtype=np.float32)
    right = rng.standard_normal((5, channels), dtype=np.float32)
    rows, columns = rng.integers(0, 9, pairs), rng.integers(0, 5, pairs)
    found = kernel("knn").pair_products(left, right, rows, columns, 2)  # type: ignore[union-attr]
    assert (found == knn_reference.pair_products(left, right, rows, columns)).all()
    wanted = (left[rows].astype(np.float64) * right[columns]).sum(axis=1)
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)


def test_farthest_is_the_smallest_of_the_row(rng: np.random.Generator) -> None:
    features = oracle.unit(rng, 210, 20)
    least = exact_and_farthest(features, 3, 50)[2]
    np.testing.assert_allclose(least, (features @ features.T).min(axis=1), atol=1e-6)
    assert exact_and_farthest(features[:1], 1)[2] == pytest.approx(1)


def test_permuting_images_permutes_neighbours(rng: np.random.Generator) -> None:
    features = oracle.unit(rng, 150, 24)
    order = rng.permutation(150)
    assert (order[knn(features[order], 9)[0]] == knn(features, 9)[0][order]).all()


def test_a_tensor_gives_tensors(rng: np.random.Generator) -> None:
    features = oracle.unit(rng, 80, 12)
    wanted = knn(features, 6)
    indices, similarities = knn(torch.from_numpy(features), 6)
    assert indices.dtype == torch.int32 and similarities.dtype == torch.float32
    assert (indices.numpy() == wanted[0]).all() and (similarities.numpy() == wanted[1]).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_tensor_on_the_gpu_gives_the_same(rng: np.random.Generator) -> None:
    features = oracle.unit(rng, 700, 64, copies=40)
    wanted = knn(features, 20)
    indices, similarities = knn(torch.from_numpy(features).cuda(), 20, block_size=99)
    assert indices.is_cuda and (indices.cpu().numpy() == wanted[0]).all()
    np.testing.assert_allclose(similarities.cpu().numpy(), wanted[1], atol=1e-7)


@pytest.mark.parametrize("method", ["ivf", "hnsw"])
def test_approximate_finds_nearly_all_and_is_ordered_alike(
    rng: np.random.Generator, method: str
) -> None:
    features = oracle.unit(rng, 1500, 24, copies=30)
    exact, _ = knn(features, 10)
    indices, similarities = knn(features, 10, method=method)
    again, _ = knn(features, 10, method=method)
    hits = [len(np.intersect1d(a, b)) for a, b in zip(indices, exact)]
    assert np.mean(hits) > 9.5
    assert (indices[:, 0] == np.arange(1500)).all() and (indices == again).all()
    assert (np.diff(similarities[:, 1:], axis=1) <= 0).all()
    assert all(len(set(row)) == 10 for row in indices.tolist())


@pytest.mark.parametrize("method", ["ivf", "hnsw"])
def test_approximate_with_few_images_completes_every_row(
    rng: np.random.Generator, method: str
) -> None:
    indices, _ = knn(oracle.unit(rng, 40, 8), 39, method=method, num_probes=1)
    assert all(len(set(row)) == 39 and min(row) >= 0 for row in indices.tolist())


def test_the_input_is_not_modified(rng: np.random.Generator) -> None:
    features = oracle.unit(rng, 60, 8)
    before = features.copy()
    features.setflags(write=False)
    knn(features, 5)
    assert (features == before).all()


def test_float64_and_strided_rows_work(rng: np.random.Generator) -> None:
    features = oracle.unit(rng, 50, 16)
    wanted = knn(features, 5)[0]
    assert (knn(features.astype(np.float64), 5)[0] == wanted).all()
    assert (knn(np.asfortranarray(features), 5)[0] == wanted).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f * 2, "unit rows"),
        (lambda f: np.where(np.arange(len(f))[:, None] == 3, np.nan, f), "row 3 holds NaN"),
        (lambda f: f[0], "shape"),
    ],
)
def test_bad_features_are_refused_by_name(rng: np.random.Generator, change, words: str) -> None:
    with pytest.raises(ValueError, match=f"features.*{words}"):
        knn(change(oracle.unit(rng, 10, 4)), 3)


@pytest.mark.parametrize("given", [{"k": 0}, {"k": 2.5}, {"k": 3, "method": "lsh"},
                                   {"k": 3, "block_size": 0}])  # fmt: skip
def test_bad_settings_are_refused(rng: np.random.Generator, given: dict) -> None:
    with pytest.raises(ValueError, match=r"must be"):
        knn(oracle.unit(rng, 10, 4), **given)


def test_plain_search__holds_a_bounded_product_and_finds_the_same(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    features = torch.from_numpy(rng.standard_normal((300, 8)).astype(np.float32))
    features = torch.nn.functional.normalize(features)
    rows = torch.arange(300)
    wanted = search(features, rows, 5, 1024)
    shapes: list[tuple[int, ...]] = []
    product = torch.Tensor.__matmul__

    def noted(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        result = product(one, other)
        shapes.append(tuple(result.shape))
        return result

    monkeypatch.setattr(torch.Tensor, "__matmul__", noted)
    # The module itself: the package exports a function of the same name.
    module = importlib.import_module("unreid.graph.knn")
    monkeypatch.setattr(module, "MAX_ENTRIES", (3000, 3000))
    found = search(features, rows, 5, 1024)
    assert max(a * b for a, b in shapes) == 3000
    assert all(torch.equal(a, b) for a, b in zip(found, wanted))
