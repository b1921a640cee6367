r"""Score a model on the test set of its run, of another config, or on a folder of own images.

example:
  FASTREID_DATASETS=/data unreid eval --run runs/market

  unreid eval --config CALR/market --weights runs/market/model_final.pth \
      --images shop --camera-pattern 'cam{camera}/person{id}_*'
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from unreid.cli import Parser, guarded
from unreid.commands.options import add_config_option
from unreid.commands.own_images import add_own_images, check_own_images, folder_settings
from unreid.commands.train import report
from unreid.projects import resolve_config
from unreid.reading.run_folder import run_files


def build_parser() -> Parser:
    """Return the parser of the command."""
    parser = Parser(
        __doc__,
        prog="unreid eval",
        usage="%(prog)s (--run FOLDER | --config CONFIG) [--weights FILE]"
        " [--images FOLDER ...] [KEY VALUE ...]",
    )
    parser.add_argument(
        "--run", metavar="FOLDER", help="a run: its config.yaml and model_final.pth"
    )
    add_config_option(parser, "instead of --run")
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="other weights than the run's, or those of --config; without them the"
        " start weights are scored",
    )
    parser.add_argument("--device", default="", metavar="NAME", help="cpu, cuda (MODEL.DEVICE)")
    parser.add_argument("--output", metavar="FOLDER", help="gets log.txt (OUTPUT_DIR)")
    add_own_images(parser)
    parser.add_key_values("settings that override the config, such as TEST.FLIP.ENABLED True")
    return parser


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the parsed and checked command line; no config is read."""
    parser = build_parser()
    args: argparse.Namespace = parser.parse_args(arguments)
    if bool(args.run) == bool(args.config_file):
        parser.error("name one model: --run FOLDER, or --config CONFIG")
    check_own_images(parser, args)
    return args


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 on success, 2 for bad input, 130 when interrupted."""
    args = parse(arguments)
    return guarded(lambda: work(args))


def work(args: argparse.Namespace) -> None:
    """Evaluate the model and print the table of scores."""
    config, weights = (args.config_file, args.weights or "")
    pairs: list[str] = []
    if args.run:
        config, weights = run_files(args.run, weights)
        pairs += ["OUTPUT_DIR", args.run]
    elif weights and not os.path.isfile(os.path.expanduser(weights)):
        raise FileNotFoundError(f"--weights {weights}: no such file")
    pairs += folder_settings(args)
    if args.images and "()" in pairs:
        raise ValueError(
            f"--images {args.images}: no identity is seen by two cameras, and a"
            " query needs a match in another camera; give ids by --id-pattern,"
            " --camera-pattern with {id}, or --csv"
        )
    for key, value in (
        ("OUTPUT_DIR", args.output),
        ("MODEL.DEVICE", args.device),
        ("MODEL.WEIGHTS", weights),
    ):
        pairs += [key, value] if value else []
    if weights:  # the start weights may not exist on this machine
        pairs += ["MODEL.BACKBONE.PRETRAIN", "False"]
    args.config_file = os.fspath(resolve_config(config))
    args.opts = [*pairs, *args.opts]
    score(args)


def score(args: argparse.Namespace) -> None:
    """Load the model, evaluate it and print the scores."""
    from unreid.config import load_config
    from unreid.engine import run

    cfg, _ = load_config(args.config_file, args.opts)
    settings = argparse.Namespace(**{**vars(args), "eval_only": True, "resume": False})
    run.prepare(cfg, settings)
    report(cfg, {"score": run.evaluate_only(cfg)})
