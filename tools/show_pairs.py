#!/usr/bin/env python3
"""Draw what a trained PseudoPair sees: its heads over images, and pairs aligned to each other.

example:
  FASTREID_DATASETS=datasets/synthetic python tools/show_pairs.py \\
      --config-file projects/PseudoPair/configs/synthetic.yml \\
      --weights runs/pairs/model_final.pth --output runs/pairs/pictures
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

# Run from a checkout that was not installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unreid.cli import Parser, guarded  # unreid before fastreid: importable then


def build_parser() -> Parser:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_argument("--config-file", required=True, metavar="FILE", help="a yml of PseudoPair")
    parser.add_argument("--weights", required=True, metavar="FILE", help="a checkpoint of it")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="where pictures go")
    parser.add_argument("--pairs", type=int, default=6, help="pairs drawn at most (6)")
    parser.add_argument("--images", type=int, default=2000,
                        help="training images that pairs are looked for among (2000)")  # fmt: skip
    parser.add_key_values()
    return parser


def main(arguments: list[str] | None = None) -> int:
    """0 when all went well, 2 for bad input."""
    args = build_parser().parse_args(arguments)
    return guarded(lambda: draw(args))


def draw(args: argparse.Namespace) -> None:
    """Draw, and print the path of each picture."""
    from unreid.config import load_config

    cfg, project = load_config(args.config_file, args.opts)
    if project.draw_pictures is None:
        raise ValueError(f"PROJECT must be PseudoPair to show pairs, got {project.name!r}")
    for path in project.draw_pictures(
        cfg, args.weights, args.output, num_pairs=args.pairs, num_images=args.images
    ):
        print(path)


if __name__ == "__main__":
    raise SystemExit(main())
