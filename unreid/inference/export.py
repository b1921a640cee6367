"""Export of the network to ONNX or TorchScript, with a comparison to PyTorch.

The input is (B, 3, H, W) float32 RGB in 0..255 with any B >= 1. The output is (B, D) unit features.
The file contains the pixel normalisation; its metadata describes the resize that comes before.

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
#: Maximum absolute difference of a feature's entry from PyTorch.
TOLERANCE = 1e-4
#: Filter of ``Image.resize`` in fast-reid's test transform (its ``interpolation=3``).
RESIZE = "bicubic"
_NEEDED = ("onnx", "onnxruntime", "onnxscript")
_ATEN = torch.ops.aten
_SHAPED = (
    _ATEN.view.default,
    _ATEN.reshape.default,
    _ATEN._unsafe_view.default,
    _ATEN.expand.default,
)


@dataclass(frozen=True)
class Parity:
    """Comparison of the file with PyTorch.

    Attributes:
        path: The file.
        differences: B -> largest absolute difference of an entry.
        megabytes: File size in MiB.
    """

    path: str
    differences: dict[int, float]
    megabytes: float


class FeatureNetwork(nn.Module):
    """Network from images (B, 3, H, W) in 0..255 to the (B, D) features of :class:`Predictor`."""

    def __init__(self, model: nn.Module, flip: bool) -> None:
        super().__init__()
        self.model = model
        self.flip = flip

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, D) unit features."""
        features = self.model({"images": images})
        if self.flip:
            features = (features + self.model({"images": images.flip(3)})) / 2
        return F.normalize(features.float())


def export(
    predictor: Predictor,
    path: str,
    kind: str = "onnx",
    *,
    batches: Sequence[int] = (1, 5),
) -> Parity:
    """Write the network to ``path`` if its features equal those of PyTorch.

    Args:
        predictor: The model; a TorchScript file works on the predictor's device only.
        path: File to write.
        kind: One of :data:`KINDS`.
        batches: Batch sizes to compare, each >= 1.

    Returns:
        The comparison with PyTorch.

    Raises:
        ImportError: ``onnx`` is requested without the extra ``export``.
        ValueError: An argument is out of range.
        RuntimeError: Features differ by more than :data:`TOLERANCE`, or the model cannot be
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
            warnings.simplefilter("ignore")  # TorchScript deprecation and tracing
            try:
                write(_graph(network, predictor.size), file, describe_input(predictor))
            except (
                torch._dynamo.exc.TorchDynamoException,
                torch.onnx.OnnxExporterError,
                NotImplementedError,
            ) as error:
                first = str(error).strip().splitlines()[0]
                raise RuntimeError(f"{predictor.name} cannot be exported: {first}") from error
            differences = _compare(network, read(file), predictor.size, batches)
        worst = max(differences.values())
        if not worst <= TOLERANCE:
            raise RuntimeError(
                f"the exported {kind} differs from PyTorch by {worst:.2g} (maximum"
                f" {TOLERANCE:g}); nothing was written to {path}"
            )
        content = Path(file).read_bytes()
    with replace_file(path) as target:
        target.write(content)
    return Parity(path, differences, len(content) / 2**20)


def check_packages() -> None:
    """Check that the packages of the ONNX export are installed.

    Raises:
        ImportError: Packages are missing; names them and the extra.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"ONNX export needs {', '.join(missing)}: pip install"
            ' "unreid[export]", or use --format torchscript, which needs no package'
        )


def describe_input(predictor: Predictor) -> dict[str, str]:
    """Return the metadata of an exported file: what an image must go through before the network.

    ``unreid.resize_height``, ``unreid.resize_width`` and ``unreid.resize`` ("bicubic") are the
    arguments of ``PIL.Image.resize``; ``unreid.height`` and ``unreid.width`` are the size of the
    network's input. The two sizes differ where the config crops the centre (``INPUT.CROP``).

    Raises:
        ValueError: ``INPUT.SIZE_TEST`` is no pair, so that the size depends on the image.
    """
    height, width = predictor.size
    resize = [int(n) for n in predictor.cfg.INPUT.SIZE_TEST]
    if len(resize) != 2:
        raise ValueError(
            f"INPUT.SIZE_TEST must be [height, width] for an export, got {resize}: the size would"
            " depend on the image"
        )
    return {
        "unreid.fingerprint": predictor.fingerprint,
        "unreid.height": str(height),
        "unreid.width": str(width),
        "unreid.resize_height": str(resize[0]),
        "unreid.resize_width": str(resize[1]),
        "unreid.resize": RESIZE,
        "unreid.resize_library": "Pillow Image.resize, on the uint8 RGB image",
        "unreid.input": "RGB, 0..255, (B, 3, H, W)",
        "unreid.flip": str(predictor.flip),
    }


def _graph(network: nn.Module, size: tuple[int, int]) -> Any:
    """Return the exported program with dynamic B.

    The example input has B = 2, because torch.export specialises sizes of 1.
    """
    device = next(network.parameters()).device
    example = torch.zeros(2, 3, *size, device=device)
    # strict=True follows len() of a tensor; tracing makes it a constant.
    return torch.export.export(
        network,
        (example,),
        strict=True,
        dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1)}},
    )


def _write_onnx(program: Any, file: str, about: dict[str, str]) -> None:
    onnx = torch.onnx.export(
        program, (), input_names=["images"], output_names=["features"], verbose=False
    )
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
            # Only B is dynamic. Tracing keeps -1 dynamic, but turns a number into a constant.
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
    network: nn.Module,
    other: Callable[[Tensor], np.ndarray],
    size: tuple[int, int],
    batches: Sequence[int],
) -> dict[int, float]:
    """Return for each B the largest absolute difference of features of B random images."""
    generator = torch.Generator().manual_seed(0)
    device = next(network.parameters()).device
    found = {}
    for batch in batches:
        images = torch.rand(batch, 3, *size, generator=generator).to(device) * 255
        ours, theirs = network(images).cpu().numpy(), other(images)
        if ours.shape != theirs.shape:
            raise RuntimeError(
                f"the exported file returns shape {theirs.shape} for {batch} images,"
                f" PyTorch {ours.shape}"
            )
        found[int(batch)] = float(np.abs(ours - theirs).max())
    return found
