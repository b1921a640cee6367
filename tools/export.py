#!/usr/bin/env python3
"""Write a trained network as ONNX or TorchScript, and check it against PyTorch.

The file takes RGB pictures as (B, 3, H, W) float32 in 0..255, any B, and gives (B, D) features of
length one. It is written only if its features are PyTorch's to 1e-4.

example:
  pip install -e ".[export]"
  python tools/export.py --run runs/demo --output model.onnx

  python tools/export.py --run runs/demo --format torchscript --output model.pt
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

# Run from a checkout that was not installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import unreid  # noqa: F401  (before fastreid: makes it importable)
from unreid.cli import Parser, guarded

SUFFIXES = {".onnx": "onnx", ".pt": "torchscript", ".ts": "torchscript", ".pth": "torchscript"}


def parse(arguments: list[str] | None = None) -> Any:
    """The command line; the format follows from the name of the output where it is not given."""
    from unreid.inference.arguments import add_model_options, check_model_options
    from unreid.inference.export import KINDS

    parser = Parser(__doc__)
    parser.add_argument("--output", required=True, metavar="FILE", help="such as model.onnx")
    parser.add_argument("--format", choices=KINDS, help="(by the suffix of --output)")
    parser.add_argument("--check-batch", nargs="+", type=int, default=[1, 5], metavar="B",
                        help="numbers of pictures to compare on (1 5)")
    add_model_options(parser)
    args = parser.parse_args(arguments)
    check_model_options(parser, args)
    args.format = args.format or SUFFIXES.get(Path(args.output).suffix.lower())
    if args.format is None:
        parser.error(f"--output {args.output}: say --format onnx or torchscript, or end in .onnx"
                     " or .pt")
    if min(args.check_batch) < 1:
        parser.error(f"--check-batch must be integers >= 1, got {min(args.check_batch)}")
    return args


def main(arguments: list[str] | None = None) -> int:
    """0 when the file is written, 2 for bad input or features that differ."""
    args = parse(arguments)
    return guarded(lambda: run(args))


def run(args: Any) -> int:
    """Export, compare, say what was found."""
    from unreid.inference.arguments import build_predictor
    from unreid.inference.export import check_packages, export

    if args.format == "onnx":
        check_packages()
    predictor = build_predictor(args)
    parity = export(predictor, args.output, args.format, batches=args.check_batch)
    height, width = predictor.size
    print(f"{os.path.abspath(args.output)}: {args.format}, {parity.megabytes:.1f} MiB,"
          f" (B, 3, {height}, {width}) -> (B, {predictor.num_features})")
    print("largest difference from PyTorch: " + ", ".join(
        f"{difference:.1e} for {batch} picture{'s' if batch > 1 else ''}"
        for batch, difference in parity.differences.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
