"""Options that several commands share, and their checks: model, images, output."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from unreid.cli import Parser
from unreid.data.folder import check_path_settings
from unreid.projects import resolve_config
from unreid.reading.run_folder import run_files

if TYPE_CHECKING:
    from unreid.inference.predictor import Predictor


def add_config_option(target: Any, help: str, *, required: bool = False) -> None:
    """Add ``--config``, with ``--config-file``, the name of fast-reid, as an alias."""
    target.add_argument(
        "--config-file",
        "--config",
        required=required,
        metavar="CONFIG",
        help=f"{help}: a yml, or PROJECT/NAME such as CALR/market",
    )


def add_model_options(parser: Parser, flip: str = "UNSUP.EXTRACT_FLIP") -> None:
    """Add ``--run``, ``--config``, ``--weights`` and the options of feature extraction."""
    model = parser.add_argument_group("model")
    model.add_argument("--run", metavar="FOLDER", help="a run: its config.yaml and model_final.pth")
    add_config_option(model, "instead of --run, with --weights")
    model.add_argument(
        "--weights",
        metavar="FILE",
        help="weights of --config, or others than the run's model_final.pth",
    )
    model.add_argument(
        "--device",
        default="",
        metavar="NAME",
        help="cpu, cuda, cuda:1 (as the run; the CPU where there is no GPU)",
    )
    model.add_argument(
        "--batch-size", type=int, metavar="N", help="images in a forward pass (TEST.IMS_PER_BATCH)"
    )
    model.add_argument(
        "--flip",
        action=argparse.BooleanOptionalAction,
        default=None,
        help=f"average with the feature of the flipped image ({flip})",
    )


def check_model_options(parser: Parser, args: Any) -> None:
    """Exit with an error if the options name no model, or more than one."""
    if args.run and args.config_file:
        parser.error("give --run or --config, not both")
    if not args.run and not (args.config_file and args.weights):
        parser.error("name a model: --run FOLDER, or --config FILE --weights FILE")
    if args.batch_size is not None and args.batch_size < 1:
        parser.error(f"--batch-size must be an integer >= 1, got {args.batch_size}")


def check_model_files(args: Any) -> None:
    """Raise an error for missing files of the model, before torch is imported.

    Raises:
        FileNotFoundError: See :func:`unreid.reading.run_folder.run_files`.
    """
    if args.run:
        run_files(args.run, args.weights or "")
        return
    args.config_file = os.fspath(resolve_config(args.config_file))
    if not os.path.isfile(os.path.expanduser(args.weights)):
        raise FileNotFoundError(f"weights {args.weights}: no such file")


def build_predictor(args: Any) -> Predictor:
    """Return the model given by the options; see :class:`Predictor` for errors."""
    from unreid.inference.predictor import Predictor

    options = {"device": args.device, "batch_size": args.batch_size, "flip": args.flip}
    if args.run:
        return Predictor.from_run(args.run, weights=args.weights or "", **options)
    return Predictor.from_config(args.config_file, args.weights, **options)


def add_folder_options(parser: Parser) -> None:
    """Add the options that define how camera and id of an image are read."""
    folder = parser.add_argument_group("cameras, and ids where they are known")
    folder.add_argument(
        "--camera-pattern",
        default="",
        metavar="PATTERN",
        help="searched in the path relative to the folder: plain, such as"
        " 'cam{camera}/person{id}_*.jpg'; a regular expression with one group,"
        r" 'cam(\d+)'; or with named groups, '(?P<id>\d+)_c(?P<camera>\d+)'",
    )
    folder.add_argument(
        "--id-pattern",
        default="",
        metavar="PATTERN",
        help="a second pattern, of the id: '{id}_*', or with one group; an image"
        " that it does not match has no id",
    )
    folder.add_argument(
        "--csv",
        default="",
        metavar="FILE",
        help="columns path, camera (and id); only these images are read",
    )
    folder.add_argument(
        "--camera",
        default="",
        metavar="WHERE",
        help="regex, subfolder, csv or one (by what is given; else one for all)",
    )
    folder.add_argument(
        "--levels",
        nargs="+",
        default=["camera"],
        metavar="FIELD",
        help="with --camera subfolder: what the sub-folders are, from the outermost"
        " (camera, id, tracklet or '')",
    )
    parser.add_earlier_name("--pattern", "--camera-pattern")


def add_skip_bad(parser: Parser) -> None:
    """Add ``--skip-bad``."""
    parser.add_argument(
        "--skip-bad", action="store_true", help="name unreadable images and go on without them"
    )


def reading_of(args: Any) -> dict[str, Any]:
    """Return the folder options as arguments of :func:`unreid.data.folder.read_folder`."""
    return {
        "pattern": args.camera_pattern,
        "id_pattern": args.id_pattern,
        "csv": args.csv,
        "camera": args.camera,
        "levels": tuple(args.levels),
    }


def given_reading(args: Any) -> list[str]:
    """Return the names of the folder options that were given."""
    names = [
        name for name in ("camera_pattern", "id_pattern", "csv", "camera") if getattr(args, name)
    ]
    return [f"--{name.replace('_', '-')}" for name in names]


def check_folder_options(parser: Parser, args: Any) -> None:
    """Exit with an error if a pattern is invalid; no file is opened."""
    try:
        check_path_settings(**reading_of(args))
    except ValueError as error:
        parser.error(str(error))


def check_output_file(parser: Parser, option: str, path: str | None) -> None:
    """Exit with an error if no file can be written at ``path``."""
    if not path:
        return
    if os.path.isdir(path) or path.endswith(os.sep):
        parser.error(
            f"{option} {path}: must be a file, and this is a folder; name one in it, such"
            f" as {os.path.join(path, 'output')}"
        )
    _check_writable(parser, option, path, os.path.dirname(os.path.abspath(path)))


def check_output_folder(parser: Parser, option: str, path: str | None) -> None:
    """Exit with an error if ``path`` is not a folder and none can be created there."""
    if not path:
        return
    if os.path.lexists(path) and not os.path.isdir(path):
        parser.error(f"{option} {path}: must be a folder, and this is a file")
    _check_writable(parser, option, path, os.path.abspath(path))


def _check_writable(parser: Parser, option: str, path: str, folder: str) -> None:
    """Exit with an error if the nearest existing folder above is not writable.

    Folders that do not exist are created when the output is written.
    """
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    if not os.path.isdir(folder):
        parser.error(f"{option} {path}: {folder} is a file, no folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        parser.error(f"{option} {path}: {folder} cannot be written to")


def check_positive(parser: Parser, args: Any, names: Sequence[str], least: int = 1) -> None:
    """Exit with an error if a given option is smaller than ``least``."""
    for name in names:
        value = getattr(args, name)
        if value is not None and value < least:
            parser.error(f"--{name.replace('_', '-')} must be an integer >= {least}, got {value}")
