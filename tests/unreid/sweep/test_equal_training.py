"""Two source trees are equivalent if and only if they train bit-identical weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.projects.overrides import ROOT
from unreid.sweep.code_version import EquivalentCode
from unreid.sweep.equal_training import add_lines, first_difference, prove_equal

CONFIG = "projects/SphereCluster/configs/synthetic.yml"


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    found = tmp_path / "old", tmp_path / "new"
    for tree in found:
        for name in ("unreid", "projects", "tools"):
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    return found


def test_refactoring__gives_a_line_and_a_change_of_training_is_an_error(
    trees: tuple[Path, Path], tmp_path: Path
) -> None:
    old, new = trees
    path = new / "unreid" / "graph" / "jaccard.py"
    path.write_text(path.read_text() + "\n\nUNUSED = 1\n")
    short = [("SOLVER.MAX_EPOCH", "1"), ("UNSUP.ITERS_PER_EPOCH", "2")]
    pairs = prove_equal(old, new, tmp_path / "out", configs=[CONFIG], settings=short)
    ((one, other),) = pairs
    assert one != other
    file = tmp_path / "results" / "equivalent_code.txt"
    assert add_lines(file, pairs, "the command") == [f"{one} {other}  the command"]
    assert EquivalentCode.read(file).same(one, other)

    path = new / "unreid" / "config.py"
    path.write_text(
        path.read_text().replace("JACCARD.K1 = 30", "JACCARD.K1 = 29") + "\nSOLVER_EPSILON = 1\n"
    )
    step = new / "projects" / "SphereCluster" / "spherecluster" / "config.py"
    text = step.read_text()
    assert "LAMBDA = " in text
    step.write_text(text.replace("LAMBDA = ", "LAMBDA = 1.5 + ", 1))
    with pytest.raises(RuntimeError, match="the trees do not train the same: "):
        prove_equal(old, new, tmp_path / "again", configs=[CONFIG], settings=short)


def test_folder_that_is_no_checkout__is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected a checkout of unreid"):
        prove_equal(tmp_path, ROOT, tmp_path / "out")


@pytest.mark.parametrize(
    ("labels", "weight", "different"),
    [([0, 1], 1.0, ""), ([1, 0], 1.0, "labels/epoch_000.npz: array labels"),
     ([0, 1], 1.0000001, "model_final.pth: /w")],
)  # fmt: skip
def test_first_difference__compares_bits(
    tmp_path: Path, labels: list[int], weight: float, different: str
) -> None:
    for name, values, w in (("a", [0, 1], 1.0), ("b", labels, weight)):
        (tmp_path / name / "labels").mkdir(parents=True)
        np.savez(tmp_path / name / "labels" / "epoch_000.npz", labels=np.array(values))
        torch.save({"model": {"w": torch.tensor(w)}}, tmp_path / name / "model_final.pth")
    assert first_difference(tmp_path / "a", tmp_path / "b") == different
    shutil.rmtree(tmp_path / "b" / "labels")
    assert "epoch_000.npz" in first_difference(tmp_path / "a", tmp_path / "b")
