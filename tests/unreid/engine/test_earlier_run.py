"""Output folder at the start of a run: earlier runs are moved, temporary files are deleted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from unreid.engine.atomic import replace_file
from unreid.engine.earlier_run import (
    finish_move,
    move_earlier_run,
    output_files,
    remove_temporary_files,
)

NAMES = ["config.yaml", "last_checkpoint", "local_labels.npz", "model_final.pth", "results.json"]


def fill(folder: Path, text: str) -> None:
    folder.mkdir(exist_ok=True)
    for name in NAMES:
        (folder / name).write_text(text)


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("moved", range(len(NAMES) + 2))
def test_interrupted_move__is_completed_so_that_files_of_two_runs_are_never_mixed(
    moved: int, resume: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "earlier")
    rename, calls = os.rename, []

    def killed(source: str, target: str) -> None:
        if len(calls) == moved:
            raise KeyboardInterrupt
        calls.append(source)
        rename(source, target)

    monkeypatch.setattr(os, "rename", killed)
    if moved <= len(NAMES):
        with pytest.raises(KeyboardInterrupt):
            move_earlier_run(str(tmp_path))
    monkeypatch.setattr(os, "rename", rename)
    target = (finish_move if resume else move_earlier_run)(str(tmp_path))
    done = resume and moved > len(NAMES)  # no move was started: resume continues the run
    assert target == (None if done else str(tmp_path / "previous" / "001"))
    where = tmp_path if done else tmp_path / "previous" / "001"
    assert sorted(p.name for p in where.iterdir()) == NAMES
    assert output_files(str(tmp_path)) == (NAMES if done else [])


def test_folder_without_a_run__is_not_changed(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    for folder in (tmp_path, tmp_path / "missing"):
        assert move_earlier_run(str(folder)) is None
        assert finish_move(str(folder)) is None
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_temporary_files_of_killed_writes__are_deleted_and_no_others(tmp_path: Path) -> None:
    kept = ["model_last.pth", "notes.tmp", "data/a.7.tmp", "labels/epoch_000.npz"]
    gone = [
        "labels/epoch_001.npz.41.tmp",
        "model_last.pth.41.tmp",
        "intra/market1501_0/labels/epoch_000.npz.41.tmp",
    ]
    for name in (*kept, *gone):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert remove_temporary_files(str(tmp_path)) == sorted(str(tmp_path / name) for name in gone)
    left = [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()]
    assert sorted(left) == sorted(kept)
    assert remove_temporary_files(str(tmp_path / "missing")) == []


def test_temporary_files__have_the_names_that_replace_file_uses(tmp_path: Path) -> None:
    with replace_file(str(tmp_path / "model_last.pth")):
        (half,) = os.listdir(tmp_path)
        assert remove_temporary_files(str(tmp_path)) == [str(tmp_path / half)]
        (tmp_path / half).write_text("")
