r"""Draw attention heads and aligned pairs of a trained PseudoPair.

example:
  FASTREID_DATASETS=datasets/synthetic unreid show-pairs --config PseudoPair/synthetic \
      --weights runs/pairs/model_final.pth --output runs/pairs/pictures
"""

from __future__ import annotations

import argparse

from unreid.cli import Parser, guarded
from unreid.commands.options import (
    add_config_option,
    check_output_folder,
)


def build_parser() -> Parser:
    """Return the parser of the command."""
    parser = Parser(__doc__, prog="unreid show-pairs")
    add_config_option(parser, "a config of PseudoPair", required=True)
    parser.add_argument("--weights", required=True, metavar="FILE", help="a checkpoint of it")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="gets the images")
    parser.add_argument("--pairs", type=int, default=6, metavar="N", help="pairs drawn at most (6)")
    parser.add_argument(
        "--max-images",
        type=int,
        default=2000,
        metavar="N",
        help="training images among which pairs are looked for (2000)",
    )
    parser.add_earlier_name("--images", "--max-images")
    parser.add_key_values()
    return parser


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the parsed and checked command line; no config is read."""
    parser = build_parser()
    args: argparse.Namespace = parser.parse_args(arguments)
    check_output_folder(parser, "--output", args.output)
    return args


def main(arguments: list[str] | None = None) -> int:
    """Return 0 on success, 2 for bad input."""
    args = parse(arguments)
    return guarded(lambda: draw(args))


def draw(args: argparse.Namespace) -> None:
    """Write the figures, and print the path of each."""
    from unreid.config import load_config

    cfg, project = load_config(args.config_file, args.opts)
    for path in project.draw_pictures(
        cfg, args.weights, args.output, num_pairs=args.pairs, num_images=args.max_images
    ):
        print(f"{path}")
