"""The network as one file for other programs: ONNX or TorchScript, checked against PyTorch.

The file takes (B, 3, H, W) float32 in 0..255, red, green, blue, any B >= 1, and gives (B, D) unit
features; mean and deviation of the pixels are taken out inside.

Notation: B images, D channels, H x W pixels.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unreid.checks import check_choice, check_integer
from unreid.engine.atomic import replace_file
from unreid.inference.predictor import Predictor

KINDS = ("onnx", "torchscript")
#: How far a feature's entry may be from PyTorch's.
TOLERANCE = 1e-4
_NEEDED = ("onnx", "onnxruntime", "onnxscript")
_ATEN = torch.ops.aten
_SHAPED = (_ATEN.view.default, _ATEN.reshape.default, _ATEN._unsafe_view.default,
           _ATEN.expand.default)


@dataclass(frozen=True)
class Parity:
    """How near the file is to PyTorch: for each B the largest difference of an entry."""

    path: str
    differences: dict[int, float]
    megabytes: float


class FeatureNetwork(nn.Module):
    """Images (B, 3, H, W) in 0..255 -> (B, D) unit rows, as :class:`Predictor` makes them."""

    def __init__(self, model: nn.Module, flip: bool) -> None:
        super().__init__()
        self.model = model
        self.flip = flip

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        features = self.model({"images": images})
        if self.flip:
            features = (features + self.model({"images": images.flip(3)})) / 2
        return F.normalize(features.float())


def export(
    predictor: Predictor, path: str, kind: str = "onnx", *, batches: Sequence[int] = (1, 5),
) -> Parity:
    """Write the network to ``path``; the file is there only if it gives PyTorch's features.

    Args:
        predictor: The model; TorchScript is bound to the device that it is on.
        path: Where to.
        kind: One of :data:`KINDS`.
        batches: Numbers of images to compare on, each >= 1.

    Raises:
        ImportError: ``onnx`` without the extra ``export``.
        ValueError: an argument out of its range.
        RuntimeError: features differ by more than :data:`TOLERANCE`, or the model cannot be
            exported; nothing is written.
    """
    check_choice("kind", kind, KINDS)
    for batch in batches:
        check_integer("batches", batch, 1)
    if kind == "onnx":
        check_packages()
        network = FeatureNetwork(copy.deepcopy(predictor.model).cpu(), predictor.flip).eval()
        write, read = _write_onnx, _read_onnx
    else:
        network = FeatureNetwork(predictor.model, predictor.flip).eval()
        write, read = _write_torchscript, _read_torchscript
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "model")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that TorchScript ages, and notes on tracing
            try:
                write(_graph(network, predictor.size), file, _about(predictor))
            except (torch._dynamo.exc.TorchDynamoException, torch.onnx.OnnxExporterError,
                    NotImplementedError) as error:
                first = str(error).strip().splitlines()[0]
                raise RuntimeError(f"{predictor.name} cannot be exported: {first}") from error
            differences = _compare(network, read(file), predictor.size, batches)
        worst = max(differences.values())
        if not worst <= TOLERANCE:
            raise RuntimeError(
                f"the exported {kind} differs from PyTorch by {worst:.2g} (at most {TOLERANCE:g}"
                f" is accepted); nothing was written to {path}"
            )
        content = Path(file).read_bytes()
    with replace_file(path) as target:
        target.write(content)
    return Parity(path, differences, len(content) / 2**20)


def check_packages() -> None:
    """Refuse where what ONNX needs is not installed.

    Raises:
        ImportError: names the packages and the extra.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"ONNX export needs {', '.join(missing)}: pip install"
                          ' "unreid[export]", or take --format torchscript, which needs nothing')


def _about(predictor: Predictor) -> dict[str, str]:
    height, width = predictor.size
    return {"unreid.fingerprint": predictor.fingerprint, "unreid.height": str(height),
            "unreid.width": str(width), "unreid.input": "RGB, 0..255, (B, 3, H, W)",
            "unreid.flip": str(predictor.flip)}


def _graph(network: nn.Module, size: tuple[int, int]) -> Any:
    """The exported program with B left open, from an example of two: one would be a constant."""
    device = next(network.parameters()).device
    example = torch.zeros(2, 3, *size, device=device)
    # strict: it follows Python's len() of a tensor, which tracing takes for a constant.
    return torch.export.export(network, (example,), strict=True,
                               dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1)}})


def _write_onnx(program: Any, file: str, about: dict[str, str]) -> None:
    onnx = torch.onnx.export(program, (), input_names=["images"], output_names=["features"],
                             verbose=False)
    assert onnx is not None
    onnx.model.metadata_props.update(about)
    onnx.save(file, external_data=False)


def _read_onnx(file: str) -> Callable[[Tensor], np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images.cpu().numpy()})[0]


def _write_torchscript(program: Any, file: str, about: dict[str, str]) -> None:
    module = program.module()
    for node in module.graph.nodes:
        if node.target in _SHAPED:
            # The one size that is not known is B: -1 says so to tracing, a number would stay.
            shape = [-1 if isinstance(s, torch.fx.Node) else s for s in node.args[1]]
            if shape.count(-1) == 1:
                node.args = (node.args[0], shape, *node.args[2:])
    module.graph.eliminate_dead_code()
    module.recompile()
    example = program.example_inputs[0][0]
    traced = torch.jit.trace(module, (example,), check_trace=False)
    torch.jit.save(traced, file, _extra_files={"unreid.json": json.dumps(about)})


def _read_torchscript(file: str) -> Callable[[Tensor], np.ndarray]:
    module = torch.jit.load(file)
    return lambda images: module(images).cpu().numpy()


@torch.no_grad()
def _compare(
    network: nn.Module, other: Callable[[Tensor], np.ndarray], size: tuple[int, int],
    batches: Sequence[int],
) -> dict[int, float]:
    """B -> largest difference of an entry on B pictures of noise."""
    generator = torch.Generator().manual_seed(0)
    device = next(network.parameters()).device
    found = {}
    for batch in batches:
        images = torch.rand(batch, 3, *size, generator=generator).to(device) * 255
        ours, theirs = network(images).cpu().numpy(), other(images)
        if ours.shape != theirs.shape:
            raise RuntimeError(f"the exported file gives {theirs.shape} for {batch} images,"
                               f" PyTorch {ours.shape}")
        found[int(batch)] = float(np.abs(ours - theirs).max())
    return found
