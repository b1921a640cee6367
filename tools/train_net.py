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
import os
import sys
from pathlib import Path

# Run from a checkout that was not installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import unreid  # noqa: F401  (before fastreid: makes it importable)
from unreid.checks import nearest


def build_parser() -> argparse.ArgumentParser:
    """The command line, with fast-reid's names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s --config-file FILE [--eval-only] [--resume] [--num-gpus N] [KEY VALUE ...]",
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help="a project's yml")
    parser.add_argument("--eval-only", action="store_true", help="score MODEL.WEIGHTS, no training")
    parser.add_argument("--resume", action="store_true", help="continue the run in OUTPUT_DIR")
    parser.add_argument("--num-gpus", type=int, default=1, metavar="N",
                        help="devices to train on; 1 is supported (default)")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE",
                        help="settings that override the file, such as SOLVER.MAX_EPOCH 10")
    return parser


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parse, with a suggestion for a misspelt option."""
    parser = build_parser()
    args, unknown = parser.parse_known_args(arguments)
    options = ["--config-file", "--eval-only", "--resume", "--num-gpus"]
    for word in [*unknown, *args.opts[::2]]:
        if word in options:
            parser.error(f"{word} must come before the KEY VALUE pairs")
        if word.startswith("-"):
            parser.error(f"unknown option {word}{nearest(word, options)}")
    if args.num_gpus != 1:
        parser.error(f"--num-gpus must be 1, got {args.num_gpus}: training on several devices is"
                     " not supported yet")
    return args


def main(arguments: list[str] | None = None) -> int:
    """0 when all went well, 2 for bad input."""
    args = parse(sys.argv[1:] if arguments is None else arguments)
    from unreid.config import load_config
    from unreid.engine import run

    try:
        cfg, project = load_config(args.config_file, args.opts)
        run.start(cfg, args)
        if args.eval_only:
            run.evaluate_only(cfg)
        else:
            run.train(cfg, project, resume=args.resume)
    except (KeyError, ValueError, OSError, ImportError, RuntimeError, FloatingPointError) as error:
        if os.environ.get("UNREID_TRACEBACK"):
            raise
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"error: {text}\n(UNREID_TRACEBACK=1 shows where)", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
