"""Training in two processes: labels, memory, files, and restart after a killed rank."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.projects.tiny_run import (
    assert_same_labels,
    assert_same_weights,
    final_checkpoint,
    label_files,
)

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def folder(synthetic_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("two")
    program = [sys.executable, "-m", "tests.unreid.engine.two_processes"]
    done = subprocess.run(
        [*program, str(synthetic_root), str(output)],
        cwd=ROOT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return output


def found(folder: Path, name: str) -> Any:
    """Return by rank: results, hashes of the memory after each step, hashes of the final model."""
    return pickle.loads((folder / f"{name}.pkl").read_bytes())


def test_first_label_step__equals_that_of_one_process(folder: Path) -> None:
    assert_same_labels(folder / "one step", folder / "two step")
    assert len(label_files(folder / "two step")["labels/epoch_000.npz"]["labels"]) == 72


def test_training_steps__equal_those_of_one_process_with_the_same_norm_groups(folder: Path) -> None:
    """Batches, gradients, running statistics and memory, up to rounding.

    Weights change by up to 0.3 here; the largest difference measured was 6e-5.
    """
    one, two = (final_checkpoint(folder / name)["model"] for name in ("one step", "two step"))
    assert one.keys() == two.keys()
    norms = [k for k in one if k.endswith("running_mean")]
    assert norms and any(bool((one[k] != 0).any()) for k in norms)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-3, msg=name)


@pytest.mark.parametrize("name", ["two step", "whole", "stages", "rounds", "killed"])
def test_memory_weights_and_buffers__are_equal_on_both_ranks(name: str, folder: Path) -> None:
    (first, memories, end), (second, their_memories, their_end) = found(folder, name)
    assert len(memories) >= 1 and memories == their_memories, "after every step"
    assert end == their_end
    assert any(k.startswith("memory.") for k in end) and any("running_var" in k for k in end)
    for key in ("before", "after", "labels"):
        assert first[key] == second[key]
    assert first["after"]


def test_memory__changes_in_every_step(folder: Path) -> None:
    """Equality with one process is tested above."""
    _, memories, _ = found(folder, "whole")[0]
    assert len(set(memories)) == len(memories) == 4


def test_files__are_written_once_by_rank_0(folder: Path) -> None:
    assert {p.name for p in (folder / "whole").iterdir() if p.suffix != ".0"} == {
        "labels",
        "model_final.pth",
        "last_checkpoint",
        "results.json",
        "metrics.json",
        "epochs.jsonl",
    }
    assert len(list((folder / "whole").glob("events.out*"))) == 1
    assert {"intra", "local_labels.npz"} <= {p.name for p in (folder / "stages").iterdir()}
    assert not list(folder.rglob("*.tmp"))


def test_selected_round__is_equal_on_both_ranks(folder: Path) -> None:
    first, second = (results["selected"] for results, *_ in found(folder, "rounds"))
    assert first == second and first["epoch"] in (0, 1) and first["mAP"] > 0


def test_killed_rank__ends_the_other_rank_and_resume_gives_the_same_weights(
    folder: Path,
) -> None:
    (code, output, seconds), _ = pickle.loads((folder / "launched.pkl").read_bytes())
    assert code == 1, output
    assert seconds < 60
    assert [line for line in output.splitlines() if line.startswith("error: ")] == [
        "error: rank 1 of 2 was killed by SIGKILL (out of memory?)"
    ], output
    assert_same_labels(folder / "whole", folder / "killed")
    assert_same_weights(folder / "whole", folder / "killed")


def test_max_restarts__restarts_after_a_killed_rank_and_gives_the_same_weights(
    folder: Path,
) -> None:
    _, (code, output, _) = pickle.loads((folder / "launched.pkl").read_bytes())
    assert code == 0, output
    assert_same_labels(folder / "whole", folder / "restarted")
    assert_same_weights(folder / "whole", folder / "restarted")
