r"""Train configs on folds and seeds, and compare every row with a baseline row.

Every config x every value of every varied key x every fold x every seed is one run with a folder of
its own. Started again, the same command skips what is finished, resumes what was stopped, and
writes the tables anew. Rows of finished runs are added to --rows, a file to commit: a run whose row
is current is not trained again, on another machine either.

example:
  unreid sweep --configs CALR/small/baseline CALR/small/calr --baseline small/baseline \
      --fold-roots /data/folds --seeds 0 1 --jobs 2 --test-settings plain centred_flip \
      --set MODEL.BACKBONE.PRETRAIN_PATH path/to/mobilenetv2_0.35x_imagenet.pth \
      --rows benchmarks/results/calr_small.jsonl --output runs/calr_small

  FASTREID_DATASETS=/data unreid sweep --config-file CALR/market --folds 4 \
      --vary CALR.REFINE.ENABLED True False --set SOLVER.MAX_EPOCH 10 --output runs/refine

  unreid sweep --prove-equal ../before --output runs/equal
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from unreid.cli import Parser
from unreid.commands.options import add_config_option, check_output_folder

#: A copy of the names in :mod:`unreid.sweep.rows`, which is slow to import; a test compares them.
TEST_SETTINGS = ("centred", "centred_flip", "flip", "plain")
EQUIVALENT = "equivalent_code.txt"


def build_parser() -> Parser:
    """Return the parser of the command."""
    parser = Parser(__doc__, prog="unreid sweep")
    which = parser.add_mutually_exclusive_group(required=True)
    add_config_option(which, "what is trained")
    which.add_argument("--configs", nargs="+", metavar="CONFIG", help="several")
    which.add_argument(
        "--prove-equal",
        metavar="TREE",
        help="train small runs here and in another checkout; where labels and"
        " weights are equal, note that the code of both counts as one",
    )
    parser.add_argument(
        "--vary",
        nargs="+",
        action="append",
        default=[],
        metavar=("KEY", "VALUE"),
        help="a key and its values; again for another key: all combinations",
    )
    parser.add_argument(
        "--set",
        nargs=2,
        action="append",
        default=[],
        metavar=("KEY", "VALUE"),
        help="a setting that all runs share; may be given again",
    )
    parser.add_argument(
        "--seeds",
        nargs="+",
        type=int,
        default=[],
        metavar="SEED",
        help="values of UNSUP.SEED (that of the config)",
    )
    folds = parser.add_mutually_exclusive_group()
    folds.add_argument(
        "--fold-roots",
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="values of FASTREID_DATASETS, one fold each; or one folder with fold0,"
        " fold1, ... in it",
    )
    folds.add_argument(
        "--folds",
        type=int,
        metavar="N",
        help="divide the data set of the first config into N folds by identity",
    )
    parser.add_argument(
        "--fold-seed",
        type=int,
        default=0,
        metavar="SEED",
        help="another seed, another division (0)",
    )
    parser.add_argument(
        "--fold-images",
        choices=("all", "train"),
        default="all",
        help="divide all images, or the training part alone (all)",
    )
    parser.add_argument(
        "--report-folds",
        nargs="+",
        default=[],
        metavar="FOLD",
        help="folds in the tables, such as 2 3 or fold2 fold3 (all)",
    )
    parser.add_argument(
        "--baseline", metavar="ROW", help="the row to compare with, such as small/baseline"
    )
    parser.add_argument(
        "--test-settings",
        nargs="+",
        default=[],
        choices=TEST_SETTINGS,
        help="score every final model at these settings too",
    )
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="trainings at a time (1)")
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        metavar="N",
        help="threads of each, unless OMP_NUM_THREADS is set (1)",
    )
    parser.add_argument(
        "--output",
        required=True,
        metavar="FOLDER",
        help="gets a folder for each run, tables and plots",
    )
    parser.add_argument("--rows", metavar="FILE", help="rows of finished runs (OUTPUT/rows.jsonl)")
    parser.add_argument(
        "--equivalent-code",
        metavar="FILE",
        help=f"code hashes that count as one ({EQUIVALENT} beside --rows)",
    )
    parser.add_argument("--no-training", action="store_true", help="tables of the rows there are")
    parser.add_argument("--dry-run", action="store_true", help="list the runs, train nothing")
    return parser


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the parsed command line; only checks that need no config are made."""
    parser = build_parser()
    args: argparse.Namespace = parser.parse_args(arguments)
    for key, *values in args.vary:
        if not values:
            parser.error(f"--vary {key}: at least one value must follow the key")
    for name in ("jobs", "threads"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} must be an integer >= 1, got {getattr(args, name)}")
    if args.report_folds and not (args.folds or args.fold_roots):
        parser.error("--report-folds needs --folds or --fold-roots")
    check_output_folder(parser, "--output", args.output)
    args.configs = args.configs or ([args.config_file] if args.config_file else [])
    args.rows = args.rows or os.path.join(args.output, "rows.jsonl")
    beside = os.path.join(os.path.dirname(args.rows), EQUIVALENT)
    args.equivalent_code = args.equivalent_code or beside
    args.test_settings = list(dict.fromkeys(args.test_settings))
    return args


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 if all runs are finished, 1 if not, 2 for bad input, 130 when interrupted."""
    args = parse(arguments)

    from unreid.sweep.command import run

    return run(args)
