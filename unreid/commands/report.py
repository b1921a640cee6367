"""Write a self-contained HTML report of one run, or a comparison of several runs.

A training writes its report at the end (UNSUP.REPORT). Incomplete runs are accepted.

example:
  FASTREID_DATASETS=/data unreid report runs/market

  unreid report runs/market runs/market_without_refinement --output compare.html
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

from unreid.cli import Parser, guarded, warn
from unreid.commands.options import check_output_file, check_positive

#: File name of the page if an earlier report exists and the images cannot be read.
WITHOUT_IMAGES = "report_without_images.html"


def build_parser() -> Parser:
    """Return the parser of the command."""
    parser = Parser(__doc__, prog="unreid report")
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="OUTPUT_DIR of a training; two or more are compared"
    )
    parser.add_argument(
        "--output", metavar="FILE", help="the page (RUN/report.html; compare.html for several runs)"
    )
    parser.add_earlier_name("--out", "--output")
    parser.add_argument(
        "--map",
        choices=("tsne", "pca"),
        default="tsne",
        help="two-dimensional embedding of features (tsne)",
    )
    parser.add_argument(
        "--max-images",
        type=int,
        metavar="N",
        help="training images for neighbours and map (2000; on a GPU 8000)",
    )
    parser.add_argument(
        "--max-queries",
        type=int,
        metavar="N",
        help="queries for the rank lists (500; on a GPU 3000)",
    )
    parser.add_argument(
        "--max-gallery",
        type=int,
        metavar="N",
        help="gallery images for the rank lists (4000; on a GPU 20000)",
    )
    parser.add_argument(
        "--no-model",
        action="store_true",
        help="curves, clusters and settings only; needs no weights",
    )
    return parser


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the parsed and checked command line."""
    parser = build_parser()
    args: argparse.Namespace = parser.parse_args(arguments)
    check_positive(parser, args, ["max_images", "max_queries", "max_gallery"], 2)
    check_output_file(parser, "--output", args.output)
    return args


def main(arguments: list[str] | None = None) -> int:
    """Return 0 when the page is written, 2 for bad input."""
    args = parse(arguments)
    return guarded(lambda: page(args))


def page(args: argparse.Namespace) -> None:
    """Write the page and print its path."""
    for folder in args.runs:
        if not os.path.isdir(folder):
            raise FileNotFoundError(f"{folder}: no such folder; name the OUTPUT_DIR of a training")
    started = time.perf_counter()
    path = compare(args) if len(args.runs) > 1 else report(args)
    print(
        f"{path}: {path.stat().st_size / 1e6:.1f} MB in {time.perf_counter() - started:.0f} s;"
        " open it in a browser"
    )


def compare(args: argparse.Namespace) -> Path:
    """Write the comparison page of several runs; return its path."""
    from unreid.visualization.compare import COMPARISON, write_comparison

    return write_comparison(args.runs, args.output or COMPARISON)


def report(args: argparse.Namespace) -> Path:
    """Write the page of one run; return its path."""
    from unreid.visualization.history import read_run
    from unreid.visualization.page import write_report
    from unreid.visualization.retrieval import Limits
    from unreid.visualization.sources import load_sources

    folder = args.runs[0]
    read_run(folder)  # raises an error if the folder has no run, before data is loaded
    cfg, images, pids, remarks = load_sources(folder, [])
    limits = None
    if cfg is not None:
        usual = Limits.of_device(cfg.MODEL.DEVICE)
        limits = Limits(
            args.max_images or usual.train,
            args.max_queries or usual.queries,
            args.max_gallery or usual.gallery,
        )
    for remark in remarks:
        sys.stderr.write(f"note: {remark}\n")
    return write_report(
        folder,
        cfg=None if args.no_model else cfg,
        images=images,
        pids=pids,
        limits=limits,
        method=args.map,
        output=args.output or beside(folder, images),
        remarks=remarks,
    )


def beside(folder: str, images: Any) -> str | None:
    """Return another file name if ``report.html`` exists and the images cannot be read."""
    whole = os.path.join(folder, "report.html")
    if images is not None or not os.path.isfile(whole):
        return None
    path = os.path.join(folder, WITHOUT_IMAGES)
    warn(
        f"the images cannot be read now, so {whole} stays as it is and the new page is {path};"
        " --output names another one"
    )
    return path
