#!/usr/bin/env python3
"""Make one HTML page of a training, or of several side by side; the page loads nothing.

A training makes its own page at its end (UNSUP.REPORT). A run that was stopped has one too.

example:
  FASTREID_DATASETS=/data python tools/report.py runs/market

  python tools/report.py runs/market runs/market_without_refinement --out compare.html
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

# Run from a checkout that was not installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unreid.cli import Parser, guarded  # unreid before fastreid: importable then


def build_parser() -> Parser:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN",
                        help="OUTPUT_DIR of a training; two or more are compared")
    parser.add_argument("--out", metavar="FILE",
                        help="the page (RUN/report.html; compare.html for several runs)")
    parser.add_argument("--map", choices=("tsne", "pca"), default="tsne",
                        help="how features are laid out in the plane (tsne)")
    parser.add_argument("--max-images", type=int, metavar="N",
                        help="training images for neighbours and map (2000; on a GPU 8000)")
    parser.add_argument("--max-queries", type=int, metavar="N",
                        help="queries for the rank lists (500; on a GPU 3000)")
    parser.add_argument("--max-gallery", type=int, metavar="N",
                        help="gallery images for the rank lists (4000; on a GPU 20000)")
    parser.add_argument("--no-model", action="store_true",
                        help="curves, clusters and settings alone: seconds, and no weights needed")
    return parser


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line, with its numbers checked."""
    parser = build_parser()
    args: argparse.Namespace = parser.parse_args(arguments)
    for name in ("max_images", "max_queries", "max_gallery"):
        value = getattr(args, name)
        if value is not None and value < 2:
            parser.error(f"--{name.replace('_', '-')} must be an integer >= 2, got {value}")
    return args


def main(arguments: list[str] | None = None) -> int:
    """0 when the page is written, 2 for bad input."""
    args = parse(sys.argv[1:] if arguments is None else arguments)
    return guarded(lambda: page(args))


def page(args: argparse.Namespace) -> None:
    """Write the page that is asked for, and say where."""
    started = time.perf_counter()
    path = compare(args) if len(args.runs) > 1 else report(args)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB in {time.perf_counter() - started:.0f} s;"
          " open it in a browser")


def compare(args: argparse.Namespace) -> Path:
    """The page of several runs."""
    from unreid.visualization.compare import COMPARISON, write_comparison

    return write_comparison(args.runs, args.out or COMPARISON)


def report(args: argparse.Namespace) -> Path:
    """The page of one run."""
    from unreid.visualization.evidence import Limits
    from unreid.visualization.history import read_run
    from unreid.visualization.page import write_report
    from unreid.visualization.sources import load_sources

    folder = args.runs[0]
    read_run(folder)  # a folder of something else is named before anything is loaded
    cfg, images, pids, remarks = load_sources(folder, [])
    limits = None
    if cfg is not None:
        usual = Limits.of_device(cfg.MODEL.DEVICE)
        limits = Limits(args.max_images or usual.train, args.max_queries or usual.queries,
                        args.max_gallery or usual.gallery)
    for remark in remarks:
        print(f"note: {remark}", file=sys.stderr)
    return write_report(folder, cfg=None if args.no_model else cfg, images=images, pids=pids,
                        limits=limits, method=args.map, output=args.out, remarks=remarks)


if __name__ == "__main__":
    sys.exit(main())
