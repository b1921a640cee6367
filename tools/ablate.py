#!/usr/bin/env python3
"""Train a grid of settings, several at a time, and put the results into one table and plot.

Every config x every value of every varied key x every seed is one run of tools/train_net.py with
a folder of its own. Started again, the same command skips what is finished, resumes what was
stopped, and writes the tables anew.

example:
  FASTREID_DATASETS=/data python tools/ablate.py --config-file projects/CALR/configs/market.yml \\
      --vary CALR.REFINE.ENABLED True False --vary UNSUP.MEMORY.TEMPERATURE 0.05 0.1 \\
      --set SOLVER.MAX_EPOCH 10 --seeds 0 1 2 --jobs 2 --output runs/refine

  python tools/ablate.py --configs projects/*/configs/small/*.yml --output runs/all
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Run from a checkout that was not installed.
sys.path.insert(0, str(ROOT))

from unreid.cli import Parser, guarded  # noqa: E402  (unreid before fastreid: importable then)

COMMAND = [sys.executable, str(ROOT / "tools" / "train_net.py")]


def build_parser() -> Parser:
    """The command line."""
    parser = Parser(__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--config-file", metavar="FILE", help="a project's yml")
    which.add_argument("--configs", nargs="+", metavar="FILE", help="several")
    parser.add_argument("--vary", nargs="+", action="append", default=[], metavar=("KEY", "VALUE"),
                        help="a key and its values; again for another key: all combinations")
    parser.add_argument("--set", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"),
                        help="a setting that all runs share; may be given again")
    parser.add_argument("--seeds", nargs="+", type=int, default=[], metavar="SEED",
                        help="values of UNSUP.SEED; the table has their mean and spread")
    parser.add_argument("--jobs", type=int, default=1, metavar="N",
                        help="trainings at a time; they share the machine's threads (1)")
    parser.add_argument("--output", required=True, metavar="FOLDER",
                        help="gets a folder for each run, table.md, table.csv and plot.svg")
    parser.add_argument("--dry-run", action="store_true", help="list the runs, train nothing")
    return parser


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line, checked as far as it can be without a config."""
    parser = build_parser()
    args = parser.parse_args(arguments)
    for key, *values in args.vary:
        if not values:
            parser.error(f"--vary {key}: at least one value must follow the key")
    if args.jobs < 1:
        parser.error(f"--jobs must be an integer >= 1, got {args.jobs}")
    args.configs = args.configs or [args.config_file]
    return args


def main(arguments: list[str] | None = None) -> int:
    """0 when every run is done, 1 when some failed, 2 for bad input, 130 when interrupted."""
    args = parse(arguments)
    return guarded(lambda: ablate(args))


def ablate(args: argparse.Namespace) -> int:
    """Check all runs, then train them and write the tables."""
    from unreid.ablation import expand, is_finished, run_all, write_report

    vary = [(key, values) for key, *values in args.vary]
    runs = expand(args.configs, vary, [tuple(s) for s in args.set], args.seeds, args.output)
    if args.dry_run:
        for run in runs:
            print(f"{run.folder}: {run.name}{' (finished)' if is_finished(run) else ''}")
        return 0
    try:
        outcomes = run_all(runs, COMMAND, jobs=args.jobs, say=lambda s: print(s, flush=True))
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here", file=sys.stderr)
        return 130
    table, no_plot = write_report(outcomes, [key for key, _ in vary], args.output)
    print(f"\n{table}")
    print(f"no plot: {no_plot}" if no_plot else f"plot: {Path(args.output, 'plot.svg')}")
    failed = sum(outcome.results is None for outcome in outcomes)
    if failed:
        print(f"{failed} of {len(outcomes)} runs failed; they are named below the table",
              file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
