#!/usr/bin/env python3
"""Read a data set once: a table of what is in it, and what to mend before training on it.

Nothing is changed. The exit code is 1 when there is an error, 0 when there is none.

example:
  python tools/check_data.py --root /data/shop --pattern 'cam(?P<camera>[0-9]+)/(?P<id>[0-9]+)_'
  python tools/check_data.py --root /data/shop --camera subfolder
  python tools/check_data.py --root /data/shop --csv pictures.csv
  python tools/check_data.py --config-file projects/CALR/configs/synthetic.yml \\
      DATASETS.NAMES '("Folder",)' DATASETS.TESTS "()" UNSUP.FOLDER.ROOT /data/shop
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

# Run from a checkout that was not installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import unreid  # noqa: F401  (before fastreid: makes it importable)
from unreid.checks import check_integer
from unreid.cli import Parser, Progress, duration, guarded, words


def build_parser() -> Parser:
    """The command line."""
    parser = Parser(
        description=__doc__,
        usage="%(prog)s --root FOLDER [--pattern REGEX | --csv FILE | --camera WHERE] ...\n"
              "       %(prog)s --config-file FILE [KEY VALUE ...]",
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--root", metavar="FOLDER", help="a folder of pictures")
    which.add_argument("--config-file", metavar="FILE",
                       help="a project's yml: what it trains and is tested on")
    parser.add_argument("--pattern", default="", metavar="REGEX",
                        help="searched in the path relative to the root; named groups camera,"
                        " id, tracklet")
    parser.add_argument("--csv", default="", metavar="FILE",
                        help="columns path (relative to the root), camera, perhaps id, tracklet")
    parser.add_argument("--camera", default="", metavar="WHERE",
                        help="regex, subfolder, csv, or one camera for all")
    parser.add_argument("--levels", nargs="+", default=["camera"], metavar="LEVEL",
                        help="with --camera subfolder: what the sub-folders are, from the outermost"
                        " (camera, id, tracklet or '')")
    parser.add_argument("--min-images", type=int, default=20, metavar="N",
                        help="name cameras with fewer training images (20)")
    parser.add_key_values("settings that override the config file")
    return parser


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line, checked as far as it can be without the data."""
    parser = build_parser()
    args: argparse.Namespace = parser.parse_args(arguments)
    if args.root and args.opts:
        parser.error(f"KEY VALUE pairs ({args.opts[0]} ...) go with --config-file")
    if args.config_file and (args.pattern or args.csv or args.camera):
        parser.error("with --config-file, name the folder by UNSUP.FOLDER.ROOT, PATTERN, CSV and"
                     " CAMERA")
    return args


def of_root(args: argparse.Namespace) -> list[Any]:
    """The pictures of --root."""
    from unreid.data.folder import read_folder
    from unreid.data.survey import Picture

    items = read_folder(args.root, pattern=args.pattern, csv=args.csv, camera=args.camera,
                        levels=tuple(args.levels))
    return [Picture("all", item) for item in items]


def of_config(cfg: Any) -> list[Any]:
    """The pictures that a config trains and is tested on."""
    from unreid.data.survey import list_pictures, pictures_of
    from unreid.data.unlabelled import build_dataset, training_rows

    found = []
    for name in cfg.DATASETS.NAMES:
        dataset = build_dataset(name, "DATASETS.NAMES", cfg)
        found += pictures_of(training_rows(name, dataset, cfg), "train")
    for name in cfg.DATASETS.TESTS:
        found += list_pictures(build_dataset(name, "DATASETS.TESTS", cfg), ("query", "gallery"))
    return found


def settings(args: argparse.Namespace, with_ids: bool) -> str:
    """What train_net.py is told to train on the folder that was checked."""
    pairs = {"DATASETS.NAMES": '("Folder",)',
             "DATASETS.TESTS": '("Folder",)' if with_ids else "()",
             "UNSUP.FOLDER.ROOT": args.root, "UNSUP.FOLDER.PATTERN": args.pattern,
             "UNSUP.FOLDER.CSV": args.csv, "UNSUP.FOLDER.CAMERA": args.camera}
    if args.camera == "subfolder" and args.levels != ["camera"]:
        pairs["UNSUP.FOLDER.LEVELS"] = str(tuple(args.levels))
    return " ".join(f"{key} {shlex.quote(value)}" for key, value in pairs.items() if value)


def report(args: argparse.Namespace, pictures: list[Any], skip_bad: bool) -> int:
    """Read the files, print table and findings; 1 when one is an error."""
    from tabulate import tabulate

    from unreid.data.folder import image_files
    from unreid.data.survey import findings, read_pictures, suggest_reading, table

    started = time.perf_counter()
    progress = Progress(len(pictures), "reading")
    readings = read_pictures([p.item.path for p in pictures], progress.step)
    progress.end()
    if pictures:
        print(tabulate(table(pictures, readings), headers="keys"))
        print(f"{len(pictures)} files read in {duration(time.perf_counter() - started)}\n")
    found = findings(pictures, readings, min_images=args.min_images, skip_bad=skip_bad)
    for finding in found:
        print(f"{finding.level}: {finding.text}")
    if args.root and not (args.pattern or args.csv or args.camera):
        hint = suggest_reading(image_files(args.root))
        if hint:
            print(f"hint: {hint}")
    if args.root and args.csv:
        files = set(image_files(args.root))
        unlisted = sorted(files - {os.path.relpath(p.item.path, args.root) for p in pictures})
        if unlisted:
            print(f"note: {len(unlisted)} pictures below {args.root} are not in {args.csv}, such as"
                  f" {unlisted[0]}")
    errors = sum(finding.level == "error" for finding in found)
    if errors:
        print(f"{errors} error{'s' * (errors > 1)} to mend first")
        return 1
    print("no error")
    if args.root:
        cameras: dict[str, set[str]] = {}
        for p in pictures:
            if p.item.pid is not None:
                cameras.setdefault(p.item.pid, set()).add(p.item.camera)
        testable = any(len(seen) > 1 for seen in cameras.values())
        print(f"to train on it: {settings(args, testable)}")
    return 0


def work(args: argparse.Namespace) -> int:
    """Check what the command line names; data that cannot be listed are an error of the data."""
    check_integer("--min-images", args.min_images, 0)
    skip_bad = False
    cfg = None
    if args.config_file:
        from unreid.config import load_config

        # Weights are no part of the data.
        opts = [*args.opts, "MODEL.BACKBONE.PRETRAIN", "False"]
        cfg, _ = load_config(args.config_file, opts)
        skip_bad = cfg.UNSUP.BAD_IMAGE == "skip"
    try:
        pictures = of_root(args) if cfg is None else of_config(cfg)
    except (KeyError, ValueError, OSError) as error:
        if os.environ.get("UNREID_TRACEBACK"):
            raise
        print(f"error: {words(error)}", file=sys.stderr)
        return 1
    return report(args, pictures, skip_bad)


def main(arguments: list[str] | None = None) -> int:
    """0 when there is no error, 1 when there is, 2 for a misspelt command, 130 when interrupted."""
    args = parse(arguments)
    return guarded(lambda: work(args))


if __name__ == "__main__":
    sys.exit(main())
