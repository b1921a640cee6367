"""The options that label.py, search.py and export.py share: which model, which pictures."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any

from unreid.cli import Parser
from unreid.data.folder import (
    CAMERA_FROM,
    SUFFIXES,
    FolderItem,
    check_reading,
    read_folder,
)
from unreid.inference.predictor import Predictor


def add_model_options(parser: Parser, flip: str = "UNSUP.EXTRACT_FLIP") -> None:
    """``--run``, or ``--config-file`` and ``--weights``; ``--device``, ``--flip``, ..."""
    model = parser.add_argument_group("model")
    model.add_argument("--run", metavar="FOLDER",
                       help="a run: its config.yaml and model_final.pth")
    model.add_argument("--config-file", metavar="FILE", help="instead of --run, with --weights")
    model.add_argument("--weights", metavar="FILE",
                       help="weights of --config-file, or others than the run's model_final.pth")
    model.add_argument("--device", default="", metavar="NAME",
                       help="cpu, cuda, cuda:1 (as the run; the CPU where there is no GPU)")
    model.add_argument("--batch-size", type=int, metavar="N",
                       help="pictures in a forward pass (TEST.IMS_PER_BATCH)")
    model.add_argument("--flip", action=argparse.BooleanOptionalAction, default=None,
                       help=f"average with the mirror image's feature ({flip})")


def check_model_options(parser: Parser, args: Any) -> None:
    """End with an error where the options name no model, or two."""
    if args.run and args.config_file:
        parser.error("give --run or --config-file, not both")
    if not args.run and not (args.config_file and args.weights):
        parser.error("name a model: --run FOLDER, or --config-file FILE --weights FILE")


def build_predictor(args: Any) -> Predictor:
    """The model that the options name; see :meth:`Predictor.from_run` for errors."""
    options = {"device": args.device, "batch_size": args.batch_size, "flip": args.flip}
    if args.run:
        return Predictor.from_run(args.run, weights=args.weights or "", **options)
    return Predictor.from_config(args.config_file, args.weights, **options)


def add_folder_options(parser: Parser) -> None:
    """Where camera and id of a picture are written."""
    folder = parser.add_argument_group("cameras, and ids where they are known")
    folder.add_argument("--pattern", default="", metavar="REGEX",
                        help="with named groups camera (and id), searched in the path relative to"
                        r" the folder, such as '(?P<id>\d+)_c(?P<camera>\d+)'")
    folder.add_argument("--csv", default="", metavar="FILE",
                        help="columns path, camera (and id); only these pictures are read")
    folder.add_argument("--camera", default="", choices=("", *CAMERA_FROM), metavar="WHERE",
                        help="regex, subfolder, csv or one (by what is given; else one for all)")
    folder.add_argument("--levels", nargs="+", default=("camera",), metavar="FIELD",
                        help="with --camera subfolder: what the folders are (camera)")
    folder.add_argument("--skip-bad", action="store_true",
                        help="name unreadable pictures and go on without them")


def read_pictures(root: str, args: Any, csv: str | None = None) -> tuple[FolderItem, ...]:
    """The pictures of a folder; see :func:`unreid.data.folder.read_folder` for errors.

    Raises:
        ValueError: there is none.
    """
    items = read_folder(root, pattern=args.pattern, csv=args.csv if csv is None else csv,
                        camera=args.camera if csv is None or csv else "", levels=args.levels)
    if not items:
        raise ValueError(f"{root}: no picture found ({' '.join(SUFFIXES)}, in it and below)")
    return items


def read_queries(paths: Sequence[str], args: Any) -> tuple[FolderItem, ...]:
    """Pictures by their names, and all of folders; of a file that the pattern does not match
    neither camera nor id is known.

    Raises:
        FileNotFoundError: names what is not there. ValueError: see :func:`read_pictures`.
    """
    items: list[FolderItem] = []
    for path in paths:
        if os.path.isdir(path):
            items += _query_folder(path, args)
        elif os.path.isfile(path):
            items.append(_query_file(path, args))
        else:
            raise FileNotFoundError(f"--query {path}: no such file or folder")
    return tuple(items)


def _query_folder(path: str, args: Any) -> tuple[FolderItem, ...]:
    if args.csv and not args.query_csv:
        # The gallery's table does not know these; without a table of their own they are nobody's.
        plain = argparse.Namespace(pattern="", csv="", camera="one", levels=args.levels)
        return tuple(FolderItem(item.path, "", None, None) for item in read_pictures(path, plain))
    return read_pictures(path, args, args.query_csv)


def _query_file(path: str, args: Any) -> FolderItem:
    if args.pattern:
        _, expression, _ = check_reading(pattern=args.pattern, levels=args.levels,
                                         camera="" if args.camera == "csv" else args.camera)
        (found,) = expression.search([path.replace(os.sep, "/")]) if expression else (None,)
        groups = found or {}
        return FolderItem(path, groups.get("camera") or "", groups.get("id") or None, None)
    return FolderItem(path, "", None, None)
