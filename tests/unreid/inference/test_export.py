"""Exported networks give PyTorch's features for any batch, and failures leave no file."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.unreid.inference.making import CALR, PAIRS, SPHERE, make_run
from unreid.inference import Predictor, export
from unreid.inference.export import FeatureNetwork

pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated.*")


def compare(predictor: Predictor, run: object, rng: np.random.Generator) -> None:
    """Features of fresh noise, for one, five and thirteen pictures."""
    network = FeatureNetwork(predictor.model, predictor.flip)
    for batch in (1, 5, 13):
        images = rng.uniform(0, 255, (batch, 3, *predictor.size)).astype(np.float32)
        theirs = run(images)  # type: ignore[operator]
        with torch.no_grad():
            ours = network(torch.from_numpy(images)).numpy()
        assert theirs.shape == (batch, predictor.num_features)
        np.testing.assert_allclose(theirs, ours, atol=1e-4)
        np.testing.assert_allclose(np.linalg.norm(theirs, axis=1), 1, atol=1e-4)


@pytest.mark.parametrize("config", [CALR, SPHERE, PAIRS], ids=lambda c: c.parts[1])
@pytest.mark.parametrize("kind", ["onnx", "torchscript"])
def test_features__are_pytorchs_for_batches_of_any_size(
    config: Path, kind: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    predictor = Predictor.from_run(make_run(tmp_path / "run", config), flip=config == SPHERE)
    path = str(tmp_path / "out" / "model")
    if kind == "onnx":
        runtime = pytest.importorskip("onnxruntime")
        parity = export.export(predictor, path, kind)
        session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
        about = session.get_modelmeta().custom_metadata_map
        compare(predictor, lambda images: session.run(None, {"images": images})[0], rng)
    else:
        parity = export.export(predictor, path, kind)
        extra = {"unreid.json": ""}
        module = torch.jit.load(path, _extra_files=extra)
        about = json.loads(extra["unreid.json"])
        compare(predictor, lambda images: module(torch.from_numpy(images)).numpy(), rng)
    assert set(parity.differences) == {1, 5} and max(parity.differences.values()) <= 1e-4
    assert about["unreid.fingerprint"] == predictor.fingerprint
    assert (about["unreid.height"], about["unreid.width"]) == ("64", "32")
    assert not predictor.model.training and [p.name for p in (tmp_path / "out").iterdir()] == [
        "model"]


def test_difference_beyond_the_tolerance__writes_nothing(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = export._read_torchscript
    monkeypatch.setattr(export, "_read_torchscript",
                        lambda file: lambda images: read(file)(images) + 2e-4)
    (tmp_path / "model.pt").write_bytes(b"older")
    with pytest.raises(RuntimeError, match=r"differs from PyTorch by 0\.0002 \(at most 0\.0001"):
        export.export(predictor, str(tmp_path / "model.pt"), "torchscript")
    assert (tmp_path / "model.pt").read_bytes() == b"older"


def test_batch_that_became_a_constant__is_found(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = export._read_torchscript
    monkeypatch.setattr(export, "_read_torchscript",
                        lambda file: lambda images: read(file)(images)[:1])
    with pytest.raises(RuntimeError, match=r"gives \(1, 1280\) for 5 images, PyTorch \(5, 1280\)"):
        export.export(predictor, str(tmp_path / "model.pt"), "torchscript")
    assert not (tmp_path / "model.pt").exists()


def test_onnx_without_its_packages__names_the_extra(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec",
                        lambda name, *a: None if name == "onnxruntime" else find(name, *a))
    with pytest.raises(ImportError, match=r'needs onnxruntime: pip install "unreid\[export\]"'):
        export.export(predictor, str(tmp_path / "model.onnx"))


def test_bad_arguments__are_named(predictor: Predictor) -> None:
    with pytest.raises(ValueError, match="kind must be one of 'onnx', 'torchscript', got 'onx'"):
        export.export(predictor, "x", "onx")
    with pytest.raises(ValueError, match="batches must be an integer >= 1, got 0"):
        export.export(predictor, "x", "torchscript", batches=[0])
