"""Config settings of ``--images FOLDER``, for training on own images."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from unreid.cli import Parser
from unreid.commands.images import check_images, read_images
from unreid.commands.options import (
    add_folder_options,
    check_folder_options,
    given_reading,
    reading_of,
)
from unreid.data.folder import FolderItem

#: The config used for ``--images`` without ``--config``.
DEFAULT_CONFIG = "CALR/market_plus"


def add_own_images(parser: Parser) -> None:
    """Add ``--images FOLDER`` and the options that define how camera and id are read."""
    parser.add_argument(
        "--images", metavar="FOLDER", help="own images in place of the config's data set"
    )
    add_folder_options(parser)


def check_own_images(parser: Parser, args: Any) -> None:
    """Exit with an error if folder options are invalid, or given without ``--images``."""
    given = given_reading(args)
    if given and not args.images:
        parser.error(f"{given[0]} goes with --images FOLDER")
    check_folder_options(parser, args)


def folder_settings(args: Any) -> list[str]:
    """Return ``--images`` and the folder options as ``KEY VALUE`` pairs; none without ``--images``.

    The folder is also the test set if its ids allow an evaluation: see :func:`testable`.

    Raises:
        FileNotFoundError, ValueError: See :func:`unreid.data.folder.read_folder`.
    """
    if not args.images:
        return []
    check_images(args.images)
    items = read_images(args.images, reading_of(args))
    tests = '("Folder",)' if testable(items) else "()"
    pairs = {
        "DATASETS.NAMES": '("Folder",)',
        "DATASETS.TESTS": tests,
        "UNSUP.FOLDER.ROOT": args.images,
        "UNSUP.FOLDER.PATTERN": args.camera_pattern,
        "UNSUP.FOLDER.ID_PATTERN": args.id_pattern,
        "UNSUP.FOLDER.CSV": args.csv,
        "UNSUP.FOLDER.CAMERA": args.camera,
        "UNSUP.FOLDER.LEVELS": repr(tuple(args.levels)),
    }
    return [word for pair in pairs.items() for word in pair if pair[1]]


def testable(items: Iterable[FolderItem]) -> bool:
    """Return whether an identity has images of two cameras, so that a query can have a match."""
    cameras: dict[str, set[str]] = defaultdict(set)
    for item in items:
        if item.pid is not None:
            cameras[item.pid].add(item.camera)
    return any(len(seen) > 1 for seen in cameras.values())


def train_command(args: Any) -> str:
    """Return the shell command that trains on the folder given in ``args``."""
    words = ["unreid", "train", "--images", args.images]
    for name in ("camera_pattern", "id_pattern", "csv", "camera"):
        value = getattr(args, name)
        words += [f"--{name.replace('_', '-')}", value] if value else []
    if args.camera == "subfolder" and list(args.levels) != ["camera"]:
        words += ["--levels", *args.levels]
    return shlex.join(words)
