"""Train in one and in two processes, and write the results for ``test_two_processes.py``.

This is a separate program, because torch cannot train in a process that was forked after its parent
trained, as the test process has. The launcher starts it, too, for the tests that kill a rank.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from tests.projects.overrides import ROOT
from tests.projects.tiny_run import BASELINE, MARKET, train_tiny
from tests.unreid.engine.ranks import run_on_ranks
from unreid.engine import distributed, launch
from unreid.engine.checkpoint import unwrap
from unreid.engine.step import UnsupervisedStep
from unreid.engine.trainer import UnsupervisedTrainer

SPHERE = Path("projects/SphereCluster/configs/synthetic.yml")
#: Extraction batches are small enough that both processes get some.
SMALL = {"TEST__IMS_PER_BATCH": 16}
#: Settings for comparable steps: no random augmentation, and no Adam, which amplifies rounding.
PLAIN = {
    "INPUT__FLIP__ENABLED": False,
    "INPUT__PADDING__ENABLED": False,
    "INPUT__REA__ENABLED": False,
    "INPUT__CJ__ENABLED": False,
    "SOLVER__OPT": "SGD",
    "SOLVER__BASE_LR": 0.001,
    "SOLVER__WARMUP_ITERS": 0,
    "SOLVER__MAX_EPOCH": 1,
    "UNSUP__ITERS_PER_EPOCH": 2,
}


def state_of(trainer: UnsupervisedTrainer) -> dict[str, str]:
    """Return a hash of every weight and buffer, including those that no checkpoint contains."""
    model = unwrap(trainer.model)
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {k: hashlib.sha256(v.detach().numpy().tobytes()).hexdigest() for k, v in tensors.items()}


def trained(
    config: Path,
    root: Path,
    output: Path,
    *,
    resume: bool = False,
    before_step: Callable[[int], None] = lambda number: None,
    **settings: object,
) -> Any:
    """Train in this process; return results, hashes after each step, and final hashes."""
    trainers: list[UnsupervisedTrainer] = []
    memories: list[str] = []
    train, step = UnsupervisedTrainer.train, UnsupervisedStep.run_step

    def keep(self: UnsupervisedTrainer) -> Any:
        trainers.append(self)
        return train(self)

    def recorded(self: UnsupervisedStep) -> None:
        before_step(len(memories) + 1)
        step(self)
        memory = unwrap(self.model).memory.state_dict()
        memories.append(
            hashlib.sha256(b"".join(v.numpy().tobytes() for v in memory.values())).hexdigest()
        )

    with (
        mock.patch.object(UnsupervisedTrainer, "train", keep),
        mock.patch.object(UnsupervisedStep, "run_step", recorded),
    ):
        results = train_tiny(config, root, output, resume=resume, **settings)
    return results, memories, state_of(trainers[-1])


def main(root: Path, folder: Path) -> None:
    torch.set_num_threads(1)

    def run(name: str, size: int, config: Path, **settings: Any) -> None:
        found = run_on_ranks(
            lambda rank: trained(config, root, folder / name, **settings),
            folder / "ranks" / name,
            size=size,
        )
        (folder / f"{name}.pkl").write_bytes(pickle.dumps(found))

    run("one step", 1, BASELINE, **SMALL, **PLAIN, MODEL__GHOST_BN=4)
    run("two step", 2, BASELINE, **SMALL, **PLAIN)
    run("whole", 2, BASELINE, **SMALL, DATALOADER__NUM_WORKERS=1)
    run(
        "stages",
        2,
        MARKET,
        **SMALL,
        SOLVER__MAX_EPOCH=2,
        UNSUP__ITERS_PER_EPOCH=1,
        CALR__ADVERSARY__START_EPOCH=1,
    )
    run("rounds", 2, SPHERE, **SMALL)

    killed = launched(root, folder / "killed")
    run("killed", 2, BASELINE, **SMALL, DATALOADER__NUM_WORKERS=1, resume=True)
    restarted = launched(root, folder / "restarted", "--max-restarts", "1")
    (folder / "launched.pkl").write_bytes(pickle.dumps((killed, restarted)))


#: Launches this program as ``unreid train --num-gpus`` launches the training.
LAUNCHER = """
import argparse, sys
from unreid.engine import launch
parser = argparse.ArgumentParser()
launch.add_options(parser)
args, rest = parser.parse_known_args()
sys.exit(launch.launch(args, rest[0], rest[1:]))
"""


def launched(root: Path, output: Path, *options: str) -> tuple[int, str, float]:
    """Launch a training of two processes, of which rank 1 is killed in the fourth step.

    Returns:
        Exit code, console output, and seconds from the kill to the end.
    """
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            LAUNCHER,
            "--num-gpus",
            "2",
            *options,
            __file__,
            str(root),
            str(output),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        capture_output=True,
        timeout=300,
    )
    seconds = time.time() - float(output.with_suffix(".time").read_text())
    return done.returncode, done.stdout + done.stderr, seconds


def one_rank(root: Path, output: Path) -> None:
    """Train as a process of :func:`launched`; rank 1 kills itself unless it was restarted."""

    def before_step(number: int) -> None:
        if os.environ["RANK"] == "1" and number == 4 and not launch.restarted():
            output.with_suffix(".time").write_text(str(time.time()))
            os.kill(os.getpid(), signal.SIGKILL)

    with distributed.launched_process_group("cpu"):
        trained(
            BASELINE,
            root,
            output,
            before_step=before_step,
            resume=launch.restarted(),
            **SMALL,
            DATALOADER__NUM_WORKERS=1,
        )


if __name__ == "__main__":
    paths = Path(sys.argv[1]), Path(sys.argv[2])
    if launch.started_by_launcher():
        sys.exit(launch.run_rank(lambda: one_rank(*paths)))
    main(*paths)
