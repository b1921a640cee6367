"""Validate a folder of crops or a data set before training: a table, and the problems found.

Nothing is changed. The exit code is 1 when there is an error, 0 when there is none.

example:
  unreid check shop
  unreid check shop --camera-pattern 'cam{camera}/person{id}_*'
  unreid check shop --camera subfolder
  unreid check shop --csv images.csv
  FASTREID_DATASETS=/data unreid check --config CALR/market
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from unreid.cli import Parser, Progress, duration, error_text, guarded
from unreid.commands.options import (
    add_config_option,
    add_folder_options,
    check_positive,
    given_reading,
    reading_of,
)
from unreid.commands.own_images import testable, train_command


def build_parser() -> Parser:
    """Return the parser of the command."""
    parser = Parser(
        description=__doc__,
        prog="unreid check",
        usage="%(prog)s FOLDER [--camera-pattern PATTERN | --csv FILE | --camera WHERE] ...\n"
        "       %(prog)s --config CONFIG [KEY VALUE ...]",
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--images", metavar="FOLDER", help="a folder of images; the option's name can be left out"
    )
    add_config_option(which, "what it trains and is tested on")
    parser.add_earlier_name("--root", "--images")
    add_folder_options(parser)
    parser.add_argument(
        "--min-images",
        type=int,
        default=20,
        metavar="N",
        help="name cameras with fewer training images (20)",
    )
    parser.add_key_values("settings that override the config")
    return parser


def with_option(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with ``--images`` inserted before a first or last folder argument."""
    given = list(arguments)
    if given and not given[0].startswith("-"):
        return ["--images", *given]
    named = {word.partition("=")[0] for word in given}
    if (
        len(given) > 2
        and not given[-1].startswith("-")
        and not given[-2].startswith("-")
        and not named & {"--images", "--root", "--config", "--config-file"}
    ):
        return ["--images", given[-1], *given[:-1]]
    return given


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the parsed and checked command line; no data is read."""
    parser = build_parser()
    args: argparse.Namespace = parser.parse_args(
        with_option(sys.argv[1:] if arguments is None else arguments)
    )
    if args.images and args.opts:
        parser.error(f"KEY VALUE pairs ({args.opts[0]} ...) go with --config")
    if args.config_file and given_reading(args):
        parser.error("with --config, name the folder by UNSUP.FOLDER.ROOT, PATTERN, CSV and CAMERA")
    check_positive(parser, args, ["min_images"], 0)
    return args


def of_folder(args: argparse.Namespace) -> list[Any]:
    """Return the images of --images."""
    from unreid.data.dataset_check import ImageEntry
    from unreid.data.folder import read_folder

    return [ImageEntry("all", item) for item in read_folder(args.images, **reading_of(args))]


def of_config(cfg: Any) -> list[Any]:
    """Return the training and test images of a config."""
    from unreid.data.dataset_check import entries_of, list_images
    from unreid.data.unlabelled import build_dataset, training_rows

    found = []
    for name in cfg.DATASETS.NAMES:
        dataset = build_dataset(name, "DATASETS.NAMES", cfg)
        found += entries_of(training_rows(name, dataset, cfg), "train")
    for name in cfg.DATASETS.TESTS:
        found += list_images(build_dataset(name, "DATASETS.TESTS", cfg), ("query", "gallery"))
    return found


def report(args: argparse.Namespace, entries: list[Any], skip_bad: bool) -> int:
    """Read the files, print the table and the problems; return 1 if a problem is an error."""
    from tabulate import tabulate

    from unreid.data.dataset_check import find_problems, read_files, summary_table

    started = time.perf_counter()
    progress = Progress(len(entries), "reading")
    infos = read_files([p.item.path for p in entries], progress.step)
    progress.end()
    if entries:
        print(tabulate(summary_table(entries, infos), headers="keys"))
        print(f"{len(entries)} files read in {duration(time.perf_counter() - started)}\n")
    found = find_problems(entries, infos, min_images=args.min_images, skip_bad=skip_bad)
    for problem in found:
        print(f"{problem.level}: {problem.text}")
    if args.images:
        hints(args, entries)
    errors = sum(problem.level == "error" for problem in found)
    if errors:
        print(f"{errors} error{'s' * (errors > 1)} found")
        return 1
    print("no error")
    if args.images:
        alone = (
            ""
            if testable(p.item for p in entries)
            else "  (without evaluation: no identity is seen by two cameras)"
        )
        print(f"to train on it: {train_command(args)}{alone}")
    return 0


def hints(args: argparse.Namespace, entries: list[Any]) -> None:
    """Print possible sources of the camera, and images that a CSV does not list."""
    from unreid.data.dataset_check import suggest_camera_option
    from unreid.data.folder import image_files

    if not given_reading(args):
        hint = suggest_camera_option(image_files(args.images))
        if hint:
            print(f"hint: {hint}")
    if args.csv:
        files = set(image_files(args.images))
        unlisted = sorted(files - {os.path.relpath(p.item.path, args.images) for p in entries})
        if unlisted:
            print(
                f"note: {len(unlisted)} images below {args.images} are not in {args.csv}, such"
                f" as {unlisted[0]}"
            )


def work(args: argparse.Namespace) -> int:
    """Check the folder or config; return the exit code."""
    skip_bad = False
    cfg = None
    if args.config_file:
        from unreid.config import load_config

        # Checking the data needs no pretrained weights.
        opts = [*args.opts, "MODEL.BACKBONE.PRETRAIN", "False"]
        cfg, _ = load_config(args.config_file, opts)
        skip_bad = cfg.UNSUP.BAD_IMAGE == "skip"
    try:
        entries = of_folder(args) if cfg is None else of_config(cfg)
    except (KeyError, ValueError, OSError) as error:
        if os.environ.get("UNREID_TRACEBACK"):
            raise
        print(f"error: {error_text(error)}", file=sys.stderr)
        return 1
    return report(args, entries, skip_bad)


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 if the data has no error, 1 if it has, 2 for bad input, 130 when interrupted."""
    args = parse(arguments)
    return guarded(lambda: work(args))
