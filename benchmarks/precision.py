#!/usr/bin/env python3
"""Accuracy and time of the demo's recipe in float32 and in each reduced precision.

Example:
  python benchmarks/precision.py SOLVER.MAX_EPOCH 4
  python benchmarks/precision.py --modes float32,bfloat16 --seeds 0,1,2 MODEL.DEVICE cuda
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import unreid  # noqa: E402, F401  (before fastreid: makes it importable)
from unreid.cli import Parser  # noqa: E402

CONFIG = ROOT / "projects" / "CALR" / "configs" / "synthetic.yml"

#: Config settings of each mode.
MODES: dict[str, list[str]] = {
    "float32": [],
    "bfloat16": ["SOLVER.AMP.ENABLED", "True"],
    "float16": ["SOLVER.AMP.ENABLED", "True", "SOLVER.AMP.DTYPE", "float16"],
    "parts": ["SOLVER.ACCUMULATE", "4"],
    "compiled": ["MODEL.COMPILE", "True"],
    "NCHW": ["MODEL.CHANNELS_LAST", "False"],
}


def main() -> None:
    """Print one line for each mode and seed."""
    parser = Parser(description=__doc__)
    parser.add_argument("--modes", default=",".join(MODES), help=f"of {', '.join(MODES)} (all)")
    parser.add_argument("--seeds", default="0", help="such as 0,1,2 (0)")
    parser.add_key_values("settings of every run")
    args = parser.parse_args()

    from unreid.config import load_config
    from unreid.data.synthetic import generate_dataset
    from unreid.engine import run

    with tempfile.TemporaryDirectory() as folder:
        # images of tools/demo.py
        generate_dataset(
            f"{folder}/data", num_train_ids=110, num_test_ids=60, images_per_id=12, seed=0
        )
        os.environ["FASTREID_DATASETS"] = f"{folder}/data"
        print(
            "mode        seed   mAP  Rank-1  precision  recall  clusters  train s  CPU s",
            flush=True,
        )
        for mode in args.modes.split(","):
            for seed in args.seeds.split(","):
                output = f"{folder}/{mode}{seed}"
                cfg, project = load_config(
                    str(CONFIG),
                    [
                        "OUTPUT_DIR",
                        output,
                        "UNSUP.SEED",
                        seed,
                        "UNSUP.EVAL_BEFORE",
                        "False",
                        "UNSUP.REPORT",
                        "False",
                        *MODES[mode],
                        *args.opts,
                    ],
                )
                started = time.process_time()
                results = run.train(cfg, project, resume=False)
                after, labels = results["after"], results["labels"]
                print(
                    f"{mode:11} {seed:>4} {after['mAP']:5.1f} {after['Rank-1']:7.1f}"
                    f" {labels['precision']:10.3f} {labels['recall']:7.3f}"
                    f" {labels['clusters']:9} {results['seconds']['train']:8.1f}"
                    f" {time.process_time() - started:6.1f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
