#!/usr/bin/env python3
"""Train a method without labels, or score a model.

example:
  FASTREID_DATASETS=/data python tools/train_net.py \\
      --config-file projects/CALR/configs/market.yml OUTPUT_DIR runs/market

  python tools/train_net.py --config-file projects/CALR/configs/market.yml \\
      --eval-only MODEL.WEIGHTS runs/market/model_final.pth

  torchrun --nproc-per-node 4 --max-restarts 3 tools/train_net.py --resume \\
      --config-file projects/CALR/configs/market.yml
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

# Run from a checkout that was not installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import unreid  # noqa: F401  (before fastreid: makes it importable)
from unreid.cli import Parser, guarded
from unreid.engine import launch


def build_parser() -> Parser:
    """The command line, with fast-reid's names."""
    parser = Parser(
        description=__doc__,
        usage="%(prog)s --config-file FILE [--eval-only] [--resume] [--num-gpus N]"
        " [--num-machines N --machine-rank R --dist-url tcp://HOST:PORT] [KEY VALUE ...]",
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help="a project's yml")
    parser.add_argument("--eval-only", action="store_true", help="score MODEL.WEIGHTS, no training")
    parser.add_argument("--resume", action="store_true", help="continue the run in OUTPUT_DIR")
    launch.add_options(parser)
    parser.add_key_values("settings that override the file, such as SOLVER.MAX_EPOCH 10")
    return parser


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line, checked as far as it can be without a config."""
    parser = build_parser()
    args = parser.parse_args(arguments)
    launch.check_options(parser, args)
    return args


def work(args: argparse.Namespace) -> None:
    """Train, or score."""
    from unreid.config import load_config
    from unreid.engine import distributed, run
    from unreid.engine.meeting import first_speaks

    # After a failure torchrun starts the same command again, which shall go on.
    args.resume = args.resume or launch.restarted()
    with first_speaks():
        cfg, project = load_config(args.config_file, args.opts)
    with distributed.joined(cfg.MODEL.DEVICE):
        data = run.prepare(cfg, args)
        if args.eval_only:
            run.evaluate_only(cfg)
        else:
            run.train(cfg, project, resume=args.resume, data=data)


def main(arguments: list[str] | None = None) -> int:
    """0 when all went well, 2 for bad input, 130 when interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
    args = parse(arguments)
    if launch.wanted(args):
        return launch.launch(args, __file__, arguments)
    return guarded(lambda: work(args))


if __name__ == "__main__":
    sys.exit(main())
