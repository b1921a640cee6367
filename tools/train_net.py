#!/usr/bin/env python3
"""Train a method without labels, or score a model.

example:
  FASTREID_DATASETS=/data python tools/train_net.py \\
      --config-file projects/CALR/configs/market.yml OUTPUT_DIR runs/market

  python tools/train_net.py --config-file projects/CALR/configs/market.yml \\
      --eval-only MODEL.WEIGHTS runs/market/model_final.pth
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

# Run from a checkout that was not installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import unreid  # noqa: F401  (before fastreid: makes it importable)
from unreid.cli import Parser, guarded


def build_parser() -> Parser:
    """The command line, with fast-reid's names."""
    parser = Parser(
        description=__doc__,
        usage="%(prog)s --config-file FILE [--eval-only] [--resume] [--num-gpus N] [KEY VALUE ...]",
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help="a project's yml")
    parser.add_argument("--eval-only", action="store_true", help="score MODEL.WEIGHTS, no training")
    parser.add_argument("--resume", action="store_true", help="continue the run in OUTPUT_DIR")
    parser.add_argument("--num-gpus", type=int, default=1, metavar="N",
                        help="devices to train on; 1 is supported (default)")
    parser.add_key_values("settings that override the file, such as SOLVER.MAX_EPOCH 10")
    return parser


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line, checked as far as it can be without a config."""
    parser = build_parser()
    args = parser.parse_args(arguments)
    if args.num_gpus != 1:
        parser.error(f"--num-gpus must be 1, got {args.num_gpus}: training on several devices is"
                     " not supported yet")
    return args


def work(args: argparse.Namespace) -> None:
    """Train, or score."""
    from unreid.config import load_config
    from unreid.engine import run

    cfg, project = load_config(args.config_file, args.opts)
    data = run.prepare(cfg, args)
    if args.eval_only:
        run.evaluate_only(cfg)
    else:
        run.train(cfg, project, resume=args.resume, data=data)


def main(arguments: list[str] | None = None) -> int:
    """0 when all went well, 2 for bad input, 130 when interrupted."""
    args = parse(sys.argv[1:] if arguments is None else arguments)
    return guarded(lambda: work(args))


if __name__ == "__main__":
    sys.exit(main())
