"""Write a trained network as ONNX or TorchScript, and compare it with PyTorch.

The input is (B, 3, H, W) float32 RGB in 0..255, any B; the output is (B, D) unit features. The file
is written only if its features equal those of PyTorch to 1e-4. The resize that comes before the
network is printed, and written into the metadata of the file.

example:
  pip install "unreid[export]"
  unreid export --run runs/demo --output model.onnx

  unreid export --run runs/demo --format torchscript --output model.pt
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from unreid.cli import Parser, guarded
from unreid.commands.options import (
    add_model_options,
    build_predictor,
    check_model_files,
    check_model_options,
    check_output_file,
)

#: Formats of :mod:`unreid.inference.export`, and suffix -> format.
KINDS = ("onnx", "torchscript")
SUFFIXES = {".onnx": "onnx", ".pt": "torchscript", ".ts": "torchscript", ".pth": "torchscript"}


def build_parser() -> Parser:
    """Return the parser of the command."""
    parser = Parser(__doc__, prog="unreid export")
    parser.add_argument("--output", required=True, metavar="FILE", help="such as model.onnx")
    parser.add_argument("--format", choices=KINDS, help="(by the suffix of --output)")
    parser.add_argument(
        "--check-batch",
        nargs="+",
        type=int,
        default=[1, 5],
        metavar="B",
        help="numbers of images to compare on (1 5)",
    )
    add_model_options(parser)
    return parser


def parse(arguments: list[str] | None = None) -> Any:
    """Return the parsed command line; by default the suffix of --output gives the format."""
    parser = build_parser()
    args = parser.parse_args(arguments)
    check_model_options(parser, args)
    args.format = args.format or SUFFIXES.get(Path(args.output).suffix.lower())
    if args.format is None:
        parser.error(
            f"--output {args.output}: say --format onnx or torchscript, or end in .onnx or .pt"
        )
    if min(args.check_batch) < 1:
        parser.error(f"--check-batch must be integers >= 1, got {min(args.check_batch)}")
    check_output_file(parser, "--output", args.output)
    return args


def main(arguments: list[str] | None = None) -> int:
    """Return 0 when the file is written, 2 for bad input or if features differ from PyTorch's."""
    args = parse(arguments)
    return guarded(lambda: run(args))


def run(args: Any) -> int:
    """Export the network, compare it with PyTorch, and print the largest difference."""
    check_model_files(args)

    from unreid.inference.export import check_packages, describe_input, export

    if args.format == "onnx":
        check_packages()
    predictor = build_predictor(args)
    parity = export(predictor, args.output, args.format, batches=args.check_batch)
    height, width = predictor.size
    about = describe_input(predictor)
    differences = ", ".join(
        f"{difference:.1e} for {batch} image{'s' if batch > 1 else ''}"
        for batch, difference in parity.differences.items()
    )
    sys.stdout.write(
        f"{os.path.abspath(args.output)}: {args.format}, {parity.megabytes:.1f} MiB,"
        f" (B, 3, {height}, {width}) -> (B, {predictor.num_features})\n"
        f"largest difference from PyTorch: {differences}\n"
        f"input: RGB, resized by Pillow to width {about['unreid.resize_width']}, height"
        f" {about['unreid.resize_height']}, {about['unreid.resize']}\n"
    )
    return 0
