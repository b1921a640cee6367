"""Fifty label refreshes in one process: memory, open files, workers and threads after each.

python benchmarks/soak.py [--refreshes 50] [--config-file YML] [KEY VALUE ...]

Trains on the synthetic dataset of tools/make_demo_data.py with a small network and two workers,
by the trainer of tools/train_net.py. Memory is the total of the run's processes after garbage
collection, with shared pages counted once. Memory-mapped files are excluded, because the share of a
library's pages depends on other programs on the machine. The table shows every fifth refresh.
The exit code is 1 if memory grows by 2 % or more after the fifth refresh, or if the number of open
files, processes or threads grows.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import unreid  # noqa: F401, E402  (before fastreid: makes it importable)

CONFIG = ROOT / "projects" / "CALR" / "configs" / "baseline.yml"
#: Relative growth after the fifth refresh that is reported as a leak.
LIMIT = 0.02
SETTINGS = {
    "MODEL.DEVICE": "cpu",
    "MODEL.BACKBONE.NAME": "build_mobilenetv2_backbone",
    "MODEL.BACKBONE.DEPTH": "0.1x",
    "MODEL.BACKBONE.FEAT_DIM": "1280",
    "MODEL.BACKBONE.PRETRAIN": "False",
    "INPUT.SIZE_TRAIN": "[64, 32]",
    "INPUT.SIZE_TEST": "[64, 32]",
    "DATASETS.NAMES": "('Market1501',)",
    "DATASETS.TESTS": "('Market1501',)",
    "DATALOADER.NUM_WORKERS": "2",
    "DATALOADER.NUM_INSTANCE": "4",
    "SOLVER.IMS_PER_BATCH": "16",
    "TEST.IMS_PER_BATCH": "64",
    "SOLVER.CHECKPOINT_PERIOD": "1",
    "TEST.EVAL_PERIOD": "10",
    "UNSUP.ITERS_PER_EPOCH": "5",
    "UNSUP.EVAL_BEFORE": "False",
    "UNSUP.REPORT": "False",
    "UNSUP.KNN.K": "2",
    "UNSUP.CLUSTER.MIN_SIZE": "2",
}


@dataclass(frozen=True)
class State:
    """Resources of a run at one moment: bytes of all processes, and counts."""

    memory: int
    files: int
    processes: int
    threads: int

    @classmethod
    def now(cls) -> State:
        """Measure this process and its children."""
        gc.collect()
        own = Path("/proc/self")
        children = (own / "task" / str(os.getpid()) / "children").read_text().split()
        return cls(
            sum(_taken(pid) for pid in ("self", *children)),
            len(os.listdir(own / "fd")),
            len(children),
            len(os.listdir(own / "task")),
        )


def _taken(pid: str) -> int:
    """Return the proportional anonymous and shared memory of a process in bytes."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(
        int(line.split()[1]) * 1024
        for line in lines
        if line.startswith(("Pss_Anon:", "Pss_Shmem:"))
    )


def soak(config: str, opts: list[str], refreshes: int) -> list[State]:
    """Train for ``refreshes`` epochs, each after a label refresh; return a state per epoch."""
    import torch
    from fastreid.engine.hooks import HookBase

    from unreid.config import load_config
    from unreid.data.unlabelled import load_training_images
    from unreid.engine.run import LabelScorer, with_dataset_size
    from unreid.engine.trainer import UnsupervisedTrainer
    from unreid.registry import LABELER_REGISTRY

    torch.set_num_threads(1)
    cfg, _ = load_config(config, [*opts, "SOLVER.MAX_EPOCH", str(refreshes)])
    images, pids = load_training_images(cfg.DATASETS.NAMES, cfg=cfg)
    cfg = with_dataset_size(cfg, num_cameras=len(images.cameras), num_images=len(images))
    labeler = LABELER_REGISTRY.get(cfg.UNSUP.LABELER).from_config(cfg, images)
    quality = None if pids is None else LabelScorer(pids, images.camids)
    trainer = UnsupervisedTrainer(cfg, images, labeler, quality=quality)
    states: list[State] = []

    class Watch(HookBase):
        def after_epoch(self) -> None:
            states.append(State.now())

    trainer.register_hooks([Watch()])
    trainer.train()
    return states


def faults(states: list[State], since: int = 4) -> list[str]:
    """Return messages about growth after the refresh number ``since`` (from 0)."""
    first, rest = states[since], states[since + 1 :]
    found = []
    # Use the mean of the last five, because single values vary by a few pages.
    tail = [s.memory for s in rest[-5:]]
    grown = sum(tail) / len(tail) / first.memory - 1
    if grown >= LIMIT:
        found.append(f"memory grew by {100 * grown:.1f} %")
    for name in ("files", "processes", "threads"):
        before, after = getattr(first, name), getattr(rest[-1], name)
        if after > before:
            found.append(f"{name}: {before}, then {after}")
    return found


def main() -> int:
    """Print the table; return 1 if resources grow, else 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--refreshes", type=int, default=50)
    parser.add_argument("--config-file", default=str(CONFIG))
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE")
    args = parser.parse_args()
    if args.refreshes < 7:
        parser.error("--refreshes must be an integer >= 7: growth is measured from the fifth on")
    from unreid.data.synthetic import generate_dataset

    with tempfile.TemporaryDirectory() as folder:
        generate_dataset(
            Path(folder) / "data", num_train_ids=20, num_test_ids=6, images_per_id=9, seed=0
        )
        os.environ["FASTREID_DATASETS"] = str(Path(folder) / "data")
        pairs: dict[str, Any] = {**SETTINGS, "OUTPUT_DIR": str(Path(folder) / "run")}
        opts = [word for pair in pairs.items() for word in pair]
        started = time.monotonic()
        states = soak(args.config_file, [*opts, *args.opts], args.refreshes)
        seconds = time.monotonic() - started
    print("| refresh | MiB, all processes | files | worker processes | threads |")
    print("|---|---|---|---|---|")
    for number, state in enumerate(states, 1):
        if number == 1 or number % 5 == 0:
            print(
                f"| {number} | {state.memory / 2**20:.1f} | {state.files} | {state.processes} |"
                f" {state.threads} |"
            )
    grown = 100 * (states[-1].memory / states[4].memory - 1)
    print(
        f"{len(states)} refreshes in {seconds:.0f} s; after the fifth memory changed by"
        f" {grown:+.2f} %"
    )
    found = faults(states)
    for fault in found:
        print(f"LEAK: {fault}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
