"""A run killed in stage 1, in stage 2's label step or in an iteration resumes bit-identically.

The library has no hook for this. The test writes a script that replaces one method, so that the
process kills itself with SIGKILL at the n-th call, and then runs tools/train_net.py.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.projects.overrides import ROOT, tiny_options
from tests.projects.tiny_run import (
    MARKET,
    assert_same_labels,
    assert_same_weights,
    final_checkpoint,
    train_tiny,
)

SCRIPT = f"""
import os, runpy, signal, sys
sys.path.insert(0, {str(ROOT)!r})
import unreid
from unreid.engine.label_hook import PseudoLabelHook
from unreid.engine.step import UnsupervisedStep

place, number = sys.argv[1], int(sys.argv[2])
owner, name = {{"labels": (PseudoLabelHook, "_publish"),
               "step": (UnsupervisedStep, "run_step")}}[place]
original, calls = getattr(owner, name), 0

def deadly(self, *args):
    global calls
    calls += 1
    if calls == number:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, *args)

setattr(owner, name, deadly)
sys.argv = [{str(ROOT / "tools" / "train_net.py")!r}, *sys.argv[3:]]
runpy.run_path(sys.argv[0], run_name="__main__")
"""

#: In this test stage 1 has 3 cameras x 2 epochs x 2 iterations, and stage 2 has 2 x 2.
EPOCHS = {"CALR__INTRA__EPOCHS": 2, "CALR__INTRA__ITERS_PER_EPOCH": 2, "UNSUP__EVAL_BEFORE": True}


def command(output: Path, *flags: str) -> list[str]:
    return ["--config-file", str(ROOT / MARKET), *flags, *tiny_options(MARKET, output, **EPOCHS)]


def environment(root: Path) -> dict[str, str]:
    # One thread as in tiny_run: bit-identical results need a fixed order of summation.
    one = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}
    return {**os.environ, "FASTREID_DATASETS": str(root), **one}


def run_tool(root: Path, output: Path, *flags: str) -> None:
    tool = str(ROOT / "tools" / "train_net.py")
    done = subprocess.run(
        [sys.executable, tool, *command(output, *flags)],
        env=environment(root),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@pytest.fixture(scope="module")
def uninterrupted(synthetic_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("whole") / "run"
    train_tiny(MARKET, synthetic_root, output, **EPOCHS)
    return output


PLACES = {
    # The first iteration of the second camera: only the first camera's results are on disk.
    "stage 1, before the second camera's first checkpoint": ("step", 5),
    "stage 2, the label step of the second epoch": ("labels", 8),
    "stage 2, an iteration of the second epoch": ("step", 16),
}


@pytest.mark.parametrize("place", PLACES)
def test_sigkill__then_resume__equals_an_uninterrupted_run(
    place: str, uninterrupted: Path, synthetic_root: Path, tmp_path: Path
) -> None:
    script, output = tmp_path / "deadly.py", tmp_path / "run"
    script.write_text(SCRIPT)
    what, number = PLACES[place]
    killed = subprocess.run(
        [sys.executable, str(script), what, str(number), *command(output)],
        env=environment(synthetic_root),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    assert not (output / "model_final.pth").exists()
    in_stage_2 = (output / "local_labels.npz").exists()
    assert in_stage_2 == place.startswith("stage 2")
    if what == "labels":
        run_tool(synthetic_root, output, "--resume")
    else:  # in this process, which saves the start of another Python
        train_tiny(MARKET, synthetic_root, output, resume=True, **EPOCHS)
    assert_same_labels(uninterrupted, output)
    assert_same_weights(uninterrupted, output)
    assert final_checkpoint(output)["epoch"] == 1
    whole, resumed = (json.loads((o / "results.json").read_text()) for o in (uninterrupted, output))
    for key in ("before", "after", "labels"):
        assert whole[key] == resumed[key] is not None
