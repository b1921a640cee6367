"""Exported networks equal PyTorch for any batch size; failures leave no file."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.projects.overrides import ROOT
from tests.unreid.inference.making import CALR, PAIRS, SPHERE, make_run
from unreid.inference import Predictor, export
from unreid.inference.export import FeatureNetwork

pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated.*")


def check(
    predictor: Predictor,
    parity: export.Parity,
    about: dict[str, str],
    run: Callable[[np.ndarray], np.ndarray],
    rng: np.random.Generator,
) -> None:
    """Check the metadata of the export, and its features of 1, 5 and 13 images."""
    assert set(parity.differences) == {1, 5} and max(parity.differences.values()) <= 1e-4
    assert about["unreid.fingerprint"] == predictor.fingerprint
    assert (about["unreid.height"], about["unreid.width"]) == ("64", "32")
    network = FeatureNetwork(predictor.model, predictor.flip)
    for batch in (1, 5, 13):
        images = rng.uniform(0, 255, (batch, 3, *predictor.size)).astype(np.float32)
        theirs = run(images)
        with torch.no_grad():
            ours = network(torch.from_numpy(images)).numpy()
        assert theirs.shape == (batch, predictor.num_features)
        np.testing.assert_allclose(theirs, ours, atol=1e-4)
        np.testing.assert_allclose(np.linalg.norm(theirs, axis=1), 1, atol=1e-4)


# CALR's is checked with the example of the docs.
@pytest.mark.parametrize("config", [SPHERE, PAIRS], ids=lambda c: c.parts[1])
def test_onnx__equals_pytorch_for_any_batch_size(
    config: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    predictor = Predictor.from_run(make_run(tmp_path / "run", config))
    path = tmp_path / "out" / "model.onnx"
    parity = export.export(predictor, str(path), "onnx")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    check(
        predictor,
        parity,
        session.get_modelmeta().custom_metadata_map,
        lambda images: session.run(None, {"images": images})[0],
        rng,
    )
    assert list(path.parent.iterdir()) == [path], "no file of weights beside it"


def example_of_the_docs() -> str:
    """Return the block ``embed.py`` of docs/export.md."""
    text = (ROOT / "docs" / "export.md").read_text()
    (block,) = re.findall(
        r'^```python title="embed\.py"\n(.*?)^```$', text, re.MULTILINE | re.DOTALL
    )
    return block


def test_example_of_the_docs__gives_the_predictors_features_without_torch(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """The images have another size than the input of the network."""
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    example = example_of_the_docs()
    assert len([line for line in example.splitlines() if line.strip()]) <= 15
    predictor = Predictor.from_run(make_run(tmp_path / "run", CALR))
    parity = export.export(predictor, str(tmp_path / "model.onnx"), "onnx")
    session = runtime.InferenceSession(parity.path, providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    check(predictor, parity, about, lambda x: session.run(None, {"images": x})[0], rng)
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was held upright
    for name, size, exif in (("a", (75, 210), Image.Exif()), ("b", (180, 90), turned)):
        coarse = Image.fromarray(rng.integers(0, 256, (30, 15, 3), dtype=np.uint8))
        coarse.resize(size).save(tmp_path / f"{name}.jpg", exif=exif)
    ending = (
        "import sys\n"
        "assert not {'torch', 'fastreid', 'unreid', 'torchvision'} & set(sys.modules)\n"
        "np.save('features.npy', features)\n"
    )
    (tmp_path / "embed.py").write_text(example + ending)
    subprocess.run([sys.executable, "embed.py"], cwd=tmp_path, check=True, timeout=300)
    theirs, paths = np.load(tmp_path / "features.npy"), [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    np.testing.assert_allclose(theirs, predictor([str(p) for p in paths]), atol=1e-4)
    (tmp_path / "embed.py").write_text(
        example.replace('about["unreid.resize"]', '"bilinear"') + ending
    )
    subprocess.run([sys.executable, "embed.py"], cwd=tmp_path, check=True, timeout=300)
    assert np.abs(np.load(tmp_path / "features.npy") - theirs).max() > 1e-3, "the filter matters"


def test_metadata__has_the_resize_of_the_test_transform(predictor: Predictor) -> None:
    cfg = predictor.cfg.clone()
    cfg.defrost()
    cfg.INPUT.SIZE_TEST = [72, 40]
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.SIZE = True, [64, 32]
    cropped = Predictor(cfg, Brightness(), name="brightness.pth")
    about = export.describe_input(cropped)
    resize, crop = cropped.transform.transforms[:2]
    assert resize.interpolation.value == about["unreid.resize"] == "bicubic"
    assert [int(about[f"unreid.resize_{side}"]) for side in ("height", "width")] == resize.size
    assert (int(about["unreid.height"]), int(about["unreid.width"])) == tuple(crop.size)
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.SIZE_TEST = False, [64]
    with pytest.raises(ValueError, match=r"INPUT\.SIZE_TEST must be \[height, width\].*got \[64\]"):
        export.describe_input(Predictor(cfg, Brightness(), name="brightness.pth"))


# The network of CALR is exported by tests/tools/test_export.py.
@pytest.mark.parametrize("config", [SPHERE, PAIRS], ids=lambda c: c.parts[1])
def test_torchscript__equals_pytorch_for_any_batch_size(
    config: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    predictor = Predictor.from_run(make_run(tmp_path / "run", config), flip=config == SPHERE)
    path = str(tmp_path / "model.pt")
    parity = export.export(predictor, path, "torchscript")
    extra = {"unreid.json": ""}
    module = torch.jit.load(path, _extra_files=extra)
    check(
        predictor,
        parity,
        json.loads(extra["unreid.json"]),
        lambda images: module(torch.from_numpy(images)).numpy(),
        rng,
    )


class Brightness(torch.nn.Module):
    """Minimal network with the interface of a model."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 4)

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.linear(batch["images"].mean(dim=(2, 3)))


@pytest.fixture
def small(predictor: Predictor) -> Predictor:
    """Return a predictor with a minimal network."""
    return Predictor(predictor.cfg, Brightness(), name="brightness.pth")


def test_difference_beyond_the_tolerance__writes_nothing(
    small: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = export._read_torchscript
    monkeypatch.setattr(
        export, "_read_torchscript", lambda file: lambda images: read(file)(images) + 2e-4
    )
    (tmp_path / "model.pt").write_bytes(b"older")
    with pytest.raises(RuntimeError, match=r"differs from PyTorch by 0\.0002 \(maximum 0\.0001"):
        export.export(small, str(tmp_path / "model.pt"), "torchscript")
    assert (tmp_path / "model.pt").read_bytes() == b"older"


def test_constant_batch_size__is_detected(
    small: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = export._read_torchscript
    monkeypatch.setattr(
        export, "_read_torchscript", lambda file: lambda images: read(file)(images)[:1]
    )
    with pytest.raises(RuntimeError, match=r"shape \(1, 4\) for 5 images, PyTorch \(5, 4\)"):
        export.export(small, str(tmp_path / "model.pt"), "torchscript")
    assert not (tmp_path / "model.pt").exists()


def test_onnx_without_its_packages__names_the_extra(
    small: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *a: None if name == "onnxruntime" else find(name, *a),
    )
    with pytest.raises(ImportError, match=r'needs onnxruntime: pip install "unreid\[export\]"'):
        export.export(small, str(tmp_path / "model.onnx"))


def test_bad_arguments__are_named(small: Predictor) -> None:
    with pytest.raises(ValueError, match="kind must be one of 'onnx', 'torchscript', got 'onx'"):
        export.export(small, "x", "onx")
    with pytest.raises(ValueError, match="batches must be an integer >= 1, got 0"):
        export.export(small, "x", "torchscript", batches=[0])


def test_network_that_cannot_be_exported__is_a_one_line_error(
    small: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = Brightness.forward

    def branching(self: Brightness, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return forward(self, batch) if batch["images"].sum() > 1 else batch["images"][:, :, 0, 0]

    monkeypatch.setattr(Brightness, "forward", branching)
    for kind in export.KINDS:
        with pytest.raises(RuntimeError, match=r"brightness\.pth cannot be exported") as caught:
            export.export(small, str(tmp_path / "model"), kind)
        assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "model").exists()
