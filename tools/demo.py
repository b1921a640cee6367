#!/usr/bin/env python3
"""Draw a small multi-camera data set, train CALR on it without labels, print before and after.

example:
  python tools/demo.py
  python tools/demo.py --seed 1 --out runs/demo_seed1 SOLVER.MAX_EPOCH 6
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# Run from a checkout that was not installed.
sys.path.insert(0, str(ROOT))

import unreid  # noqa: E402, F401  (before fastreid: makes it importable)
from unreid.cli import Parser, guarded  # noqa: E402
from unreid.data.synthetic import draw_dataset  # noqa: E402

CONFIG = ROOT / "projects" / "CALR" / "configs" / "synthetic.yml"
#: People to train on and other people to test on, and pictures of each.
TRAIN_IDS, TEST_IDS, IMAGES_PER_ID = 110, 60, 12


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--out", default="runs/demo", help="where to (runs/demo)")
    parser.add_argument("--seed", type=int, default=0, help="of the pictures and the training (0)")
    parser.add_key_values("settings that override the config")
    return parser.parse_args(arguments)


def table(results: dict[str, Any]) -> str:
    """Before and after, side by side, as text."""
    from tabulate import tabulate

    before, after, labels = results["before"], results["after"], results["labels"]
    rows = [[name, before[name], after[name], after[name] - before[name]]
            for name in ("mAP", "Rank-1", "Rank-5", "mINP")]
    scores = tabulate(rows, ["percent", "before", "after", "gain"], floatfmt=".1f")
    people = (f"{labels['clusters']} clusters for {TRAIN_IDS} people,"
              f" {labels['noise']} images in none")
    pairs = ", ".join(f"{k} {labels[k]:.2f}" for k in ("precision", "recall", "f_score", "ari",
                                                       "purity"))
    return f"{scores}\n\npseudo identities: {people}\nagainst the truth: {pairs}"


def work(args: argparse.Namespace) -> int:
    """Draw, train, print; 0 when the model got better."""
    started = time.perf_counter()
    data = Path(args.out) / "data"
    summary = draw_dataset(str(data), num_train_ids=TRAIN_IDS, num_test_ids=TEST_IDS,
                           images_per_id=IMAGES_PER_ID, seed=args.seed)
    print(f"{summary.num_train_images} pictures of {summary.num_train_ids} people under"
          f" {summary.num_cameras} cameras; nobody tells the network who is who", flush=True)
    os.environ["FASTREID_DATASETS"] = str(data)

    from unreid.config import load_config
    from unreid.engine import run

    opts = ["OUTPUT_DIR", args.out, "UNSUP.SEED", str(args.seed), *args.opts]
    cfg, project = load_config(str(CONFIG), opts)
    settings = SimpleNamespace(config_file=str(CONFIG), eval_only=False, resume=False)
    results = run.train(cfg, project, resume=False, data=run.prepare(cfg, settings))
    centred = "; TEST.CENTER_CAMERAS on" if cfg.TEST.CENTER_CAMERAS else ""
    print(f"\nRetrieval of {TEST_IDS} people never seen in training{centred}\n\n{table(results)}\n")
    print(f"{time.perf_counter() - started:.0f} s in all; results, model, labels of every epoch:"
          f" {os.path.abspath(args.out)}")
    return 0 if results["after"]["mAP"] > results["before"]["mAP"] else 1


def main(arguments: list[str] | None = None) -> int:
    """0 when the model got better, 1 when not, 2 for bad input, 130 when interrupted."""
    args = parse(arguments)
    return guarded(lambda: work(args))


if __name__ == "__main__":
    sys.exit(main())
