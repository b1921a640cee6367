#!/usr/bin/env python3
"""Pseudo identities for a folder of crops: a CSV of path, camera, identity and confidence.

The model embeds every picture, a clusterer groups them. An identity is a number, the largest
cluster is 0, and -1 are pictures that belong to none. Confidence is 0..1: 1 at the middle of its
cluster and far from others, 0.5 as near to another cluster, less when nearer to another; 0 for -1.

example:
  python tools/label.py --run runs/demo --images crops --output labels.csv --sheets sheets

  python tools/label.py --run runs/demo --images crops --pattern '_c(?P<camera>[0-9]+)' \\
      --method bottom_up --images-per-cluster 12
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

#: Options that are settings of clusterers: name -> type.
SETTINGS = {"clusters": int, "images_per_cluster": int, "eps": float, "min_samples": int,
            "k1": int, "k2": int, "neighbours": int, "min_similarity": float, "seed": int}


def build_parser() -> Parser:
    """The command line."""
    import argparse

    from unreid.inference.arguments import add_folder_options, add_model_options
    from unreid.inference.labelling import CLUSTERERS, DEFAULT

    parser = Parser(__doc__)
    parser.add_argument("--images", required=True, metavar="FOLDER", help="the crops")
    parser.add_argument("--output", default="labels.csv", metavar="FILE", help="(labels.csv)")
    parser.add_argument("--sheets", metavar="FOLDER", help="draw every cluster into a picture")
    parser.add_argument("--sheet-images", type=int, default=60, metavar="N",
                        help="pictures on a sheet, the surest first (60)")
    add_model_options(parser)
    add_folder_options(parser)
    group = parser.add_argument_group("clusterer", "\n".join(
        f"{name}: {method.idea}\n    " + " ".join(
            f"--{key.replace('_', '-')} {value}" for key, value in method.defaults.items())
        for name, method in CLUSTERERS.items()))
    group.add_argument("--method", default=DEFAULT, choices=tuple(CLUSTERERS), help=f"({DEFAULT})")
    for name, kind in SETTINGS.items():
        group.add_argument(f"--{name.replace('_', '-')}", type=kind, help=argparse.SUPPRESS)
    group.add_argument("--min-size", type=int, default=2, metavar="N",
                       help="smaller clusters become -1 (2)")
    group.add_argument("--center-cameras", action=argparse.BooleanOptionalAction, default=None,
                       help="take each camera's mean feature out first (UNSUP.CENTER_CAMERAS)")
    return parser


def parse(arguments: list[str] | None = None) -> Any:
    """The command line, checked as far as it can be without the model."""
    from unreid.inference.arguments import check_model_options
    from unreid.inference.labelling import CLUSTERERS

    parser = build_parser()
    args = parser.parse_args(arguments)
    check_model_options(parser, args)
    given = {name: getattr(args, name) for name in SETTINGS if getattr(args, name) is not None}
    for name in given:
        if name not in CLUSTERERS[args.method].defaults:
            having = [m for m, c in CLUSTERERS.items() if name in c.defaults]
            parser.error(f"--{name.replace('_', '-')} is a setting of {', '.join(having)},"
                         f" not of --method {args.method}")
    args.settings = given
    return args


def main(arguments: list[str] | None = None) -> int:
    """0 when all went well, 2 for bad input."""
    args = parse(arguments)
    return guarded(lambda: run(args))


def run(args: Any) -> int:
    """Embed, cluster, write, say what was found."""
    from unreid.inference.arguments import build_predictor, read_pictures
    from unreid.inference.labelling import label_pictures, summary

    items = read_pictures(args.images, args)
    predictor = build_predictor(args)
    embedded = predictor.embed_files([item.path for item in items], skip_bad=args.skip_bad)
    for path, reason in embedded.bad.items():
        print(f"left out: {path} ({reason})", file=sys.stderr)
    items = tuple(items[i] for i in embedded.kept)
    centre = predictor.cfg.UNSUP.CENTER_CAMERAS if args.center_cameras is None \
        else args.center_cameras
    labelled = label_pictures(
        items, embedded.features, args.method, min_size=args.min_size, settings=args.settings,
        shrinkage=predictor.cfg.UNSUP.CENTER_SHRINKAGE if centre else None,
    )
    labelled.write(args.output, args.images)
    print(summary(labelled))
    print(f"labels: {os.path.abspath(args.output)}")
    if args.sheets:
        number = labelled.draw_sheets(args.sheets, args.images, args.sheet_images)
        print(f"sheets: {number} in {os.path.abspath(args.sheets)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
