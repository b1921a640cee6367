"""Train a method without labels: on a data set of fast-reid, or on a folder of own images.

example:
  unreid train --images shop --camera-pattern 'cam([0-9]+)' --output runs/shop

  FASTREID_DATASETS=/data unreid train --config CALR/market --output runs/market

  unreid train --config CALR/market --num-gpus 4 --max-restarts 3

  unreid train --images shop --weights model.pth --output runs/frozen SOLVER.MAX_EPOCH 0
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unreid.cli import Parser, guarded
from unreid.commands.options import add_config_option, check_output_folder
from unreid.commands.own_images import (
    DEFAULT_CONFIG,
    add_own_images,
    check_own_images,
    folder_settings,
)
from unreid.engine import launch
from unreid.projects import resolve_config

#: Arguments of Python that start this command in another process: ``python -m unreid train ...``.
MODULE = ("-m", "unreid", "train")


def build_parser() -> Parser:
    """Return the parser, with the option names of fast-reid."""
    parser = Parser(
        description=__doc__,
        prog="unreid train",
        usage="%(prog)s [--config CONFIG] [--images FOLDER ...] [--output FOLDER] [--resume]"
        " [--eval-only]\n       [--num-gpus N] [--max-restarts N]\n"
        "       [--num-machines N --machine-rank R --dist-url tcp://HOST:PORT] [KEY VALUE ...]",
    )
    add_config_option(parser, f"with --images ({DEFAULT_CONFIG})")
    parser.add_argument(
        "--output",
        metavar="FOLDER",
        help="results, weights and labels (OUTPUT_DIR; with --images runs/NAME)",
    )
    parser.add_argument("--weights", metavar="FILE", help="weights to start from (MODEL.WEIGHTS)")
    parser.add_argument("--device", default="", metavar="NAME", help="cpu, cuda (MODEL.DEVICE)")
    parser.add_argument("--resume", action="store_true", help="continue the run in --output")
    parser.add_argument(
        "--eval-only", action="store_true", help="score MODEL.WEIGHTS, no training; see unreid eval"
    )
    launch.add_options(parser)
    add_own_images(parser)
    parser.add_key_values("settings that override the config, such as SOLVER.MAX_EPOCH 10")
    return parser


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the parsed and checked command line; no config is read."""
    parser = build_parser()
    args: argparse.Namespace = parser.parse_args(arguments)
    if not args.config_file and not args.images:
        parser.error("name what to train: --config CONFIG, or --images FOLDER")
    check_own_images(parser, args)
    launch.check_options(parser, args)
    check_output_folder(parser, "--output", args.output)
    return args


def resolve(args: argparse.Namespace) -> None:
    """Convert the short options to a config file and ``KEY VALUE`` pairs.

    Raises:
        FileNotFoundError, ValueError: See :func:`folder_settings` and
            :func:`unreid.projects.resolve_config`.
    """
    output = args.output
    if args.images and not output and not args.eval_only:
        output = os.path.join("runs", Path(args.images).resolve().name)
    pairs = {"OUTPUT_DIR": output, "MODEL.DEVICE": args.device, "MODEL.WEIGHTS": args.weights}
    named = [word for pair in pairs.items() for word in pair if pair[1]]
    # KEY VALUE pairs come last, so that they override the short options.
    args.opts = [*folder_settings(args), *named, *args.opts]
    args.config_file = os.fspath(resolve_config(args.config_file or DEFAULT_CONFIG))


def work(args: argparse.Namespace) -> None:
    """Train the model, or evaluate it."""
    resolve(args)

    from unreid.config import load_config
    from unreid.engine import distributed, run

    # After a failure torchrun starts the same command again, which must resume the run.
    args.resume = args.resume or launch.restarted()
    with launch.errors_on_rank_0():
        cfg, project = load_config(args.config_file, args.opts)
    with distributed.launched_process_group(cfg.MODEL.DEVICE):
        data = run.prepare(cfg, args)
        if args.eval_only:
            report(cfg, {"score": run.evaluate_only(cfg)})
            return
        if data is not None and distributed.rank() == 0:
            print(
                f"{cfg.PROJECT} on {len(data[0])} images of {len(data[0].cameras)} cameras;"
                f" log: {os.path.join(cfg.OUTPUT_DIR, 'log.txt')}",
                flush=True,
            )
        results = run.train(cfg, project, resume=args.resume, data=data)
        if cfg.SOLVER.MAX_EPOCH == 0 and distributed.rank() == 0:
            labels = results["labels"]
            print(
                "no training (SOLVER.MAX_EPOCH 0): the network as it is gives"
                f" {labels['clusters']} clusters, {labels['noise']} images unassigned"
            )
        report(cfg, {key: results.get(key) for key in ("before", "after", "selected")})


def report(cfg: Any, scores: Mapping[str, Mapping[str, Any] | None]) -> None:
    """Print the scores and the paths of results and report, on rank 0 only."""
    from unreid.engine import distributed
    from unreid.engine.console import score_table
    from unreid.engine.trainer import describe_test_settings

    if distributed.rank() > 0:
        return
    if any(scores.values()):
        print(f"\n{score_table(scores, settings=describe_test_settings(cfg))}\n")
    for name in ("results.json", "report.html", "model_final.pth"):
        path = os.path.abspath(os.path.join(cfg.OUTPUT_DIR, name))
        if os.path.isfile(path) and "score" not in scores:
            print(path)


def main(arguments: Sequence[str] | None = None, *, command: Sequence[str] = MODULE) -> int:
    """Return 0 on success, 2 for bad input, 130 when interrupted.

    Args:
        arguments: The command line.
        command: Arguments of Python that start this command in another process.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    args = parse(arguments)
    if launch.should_launch(args):
        return launch.launch(args, command[0], [*command[1:], *arguments])
    if launch.started_by_launcher():
        return launch.run_rank(lambda: work(args))
    return guarded(lambda: work(args))
