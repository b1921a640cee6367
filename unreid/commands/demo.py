"""Train CALR without labels on a small synthetic data set, and print the scores before and after.

example:
  unreid demo
  unreid demo --seed 1 --output runs/demo_seed1 SOLVER.MAX_EPOCH 6
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from unreid.cli import Parser, guarded
from unreid.commands.options import check_output_folder

CONFIG = "CALR/synthetic"
#: Numbers of training identities, test identities, and images per identity.
TRAIN_IDS, TEST_IDS, IMAGES_PER_ID = 110, 60, 12


def build_parser() -> Parser:
    """Return the parser of the command."""
    parser = Parser(__doc__, prog="unreid demo")
    parser.add_argument(
        "--output", default="runs/demo", metavar="FOLDER", help="images and run (runs/demo)"
    )
    parser.add_earlier_name("--out", "--output")
    parser.add_argument("--seed", type=int, default=0, help="of the images and the training (0)")
    parser.add_key_values("settings that override the config")
    return parser


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the parsed and checked command line."""
    parser = build_parser()
    args: argparse.Namespace = parser.parse_args(arguments)
    check_output_folder(parser, "--output", args.output)
    return args


def table(results: dict[str, Any]) -> str:
    """Return a table of the scores before and after training, and of the label metrics."""
    from tabulate import tabulate

    before, after, labels = results["before"], results["after"], results["labels"]
    rows = [
        [name, before[name], after[name], after[name] - before[name]]
        for name in ("mAP", "Rank-1", "Rank-5", "mINP")
    ]
    scores = tabulate(rows, ["percent", "before", "after", "gain"], floatfmt=".1f")
    people = (
        f"{labels['clusters']} clusters for {TRAIN_IDS} people, {labels['noise']} images unassigned"
    )
    pairs = ", ".join(
        f"{k} {labels[k]:.2f}" for k in ("precision", "recall", "f_score", "ari", "purity")
    )
    return f"{scores}\n\npseudo identities: {people}\nagainst ground truth: {pairs}"


def work(args: argparse.Namespace) -> int:
    """Write the data set, train and print the scores; return 0 if mAP improved, else 1."""
    from unreid.data.synthetic import generate_dataset

    started = time.perf_counter()
    data = Path(args.output) / "data"
    summary = generate_dataset(
        str(data),
        num_train_ids=TRAIN_IDS,
        num_test_ids=TEST_IDS,
        images_per_id=IMAGES_PER_ID,
        seed=args.seed,
    )
    print(
        f"{summary.num_train_images} images of {summary.num_train_ids} people under"
        f" {summary.num_cameras} cameras; training uses no identity",
        flush=True,
    )
    os.environ["FASTREID_DATASETS"] = str(data)

    from unreid.config import load_config
    from unreid.engine import run

    opts = ["OUTPUT_DIR", args.output, "UNSUP.SEED", str(args.seed), *args.opts]
    cfg, project = load_config(CONFIG, opts)
    settings = SimpleNamespace(config_file=CONFIG, eval_only=False, resume=False)
    results = run.train(cfg, project, resume=False, data=run.prepare(cfg, settings))
    centred = "; TEST.CENTER_CAMERAS on" if cfg.TEST.CENTER_CAMERAS else ""
    print(f"\nRetrieval of {TEST_IDS} people never seen in training{centred}\n\n{table(results)}\n")
    print(
        f"{time.perf_counter() - started:.0f} s in all; results, model, labels of every epoch:"
        f" {os.path.abspath(args.output)}"
    )
    return 0 if results["after"]["mAP"] > results["before"]["mAP"] else 1


def main(arguments: list[str] | None = None) -> int:
    """Return 0 if mAP improved, 1 if not, 2 for bad input, 130 after an interrupt."""
    args = parse(arguments)
    return guarded(lambda: work(args))
