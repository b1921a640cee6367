"""A run that cannot start does not change an earlier run in the same folder."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.projects.overrides import ROOT, tiny_options
from tests.projects.tiny_run import BASELINE

CONFIG = ["--config-file", str(ROOT / BASELINE)]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    path = list(sys.path)
    spec = importlib.util.spec_from_file_location("train_net", ROOT / "tools" / "train_net.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path[:] = path
    return module


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    output = tmp_path / "run"
    output.mkdir()
    for name in ("results.json", "model_final.pth", "last_checkpoint", "config.yaml", "log.txt"):
        (output / name).write_text(name)
    return output


def content(output: Path) -> dict[str, str]:
    return {p.relative_to(output).as_posix(): p.read_text() for p in output.rglob("*.*")}


@pytest.mark.parametrize(
    "settings",
    [
        {},  # FASTREID_DATASETS names no folder
        {"DATASETS__TESTS": "('DukeMTMC',)"},
        {"DATASETS__NAMES": "('Folder',)", "UNSUP__FOLDER__ROOT": "nowhere"},
        {"UNSUP__LABELER": "''"},
    ],
    ids=["no data", "no test set", "no folder", "no labeler"],
)
def test_invalid_data__moves_no_file_of_an_earlier_run(
    tool: ModuleType,
    earlier: Path,
    settings: dict[str, object],
    synthetic_root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    os.environ["FASTREID_DATASETS"] = str(synthetic_root if settings else tmp_path / "nowhere")
    before = content(earlier)
    assert tool.main([*CONFIG, *tiny_options(BASELINE, earlier, **settings)]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert content(earlier) == before and not (earlier / "previous").exists()


def test_unreadable_image__moves_no_file_and_is_logged_when_skipped(
    tool: ModuleType,
    earlier: Path,
    synthetic_root: Path,
    tmp_path: Path,
) -> None:
    root = Path(shutil.copytree(synthetic_root, tmp_path / "copy"))
    broken = sorted((root / "Market-1501-v15.09.15/bounding_box_train").glob("*.jpg"))[0]
    broken.write_bytes(b"")
    os.environ["FASTREID_DATASETS"] = str(root)
    short = tiny_options(BASELINE, earlier, SOLVER__MAX_EPOCH=1, UNSUP__ITERS_PER_EPOCH=1)
    before = content(earlier)
    assert tool.main([*CONFIG, *short]) == 2
    assert content(earlier) == before
    assert tool.main([*CONFIG, *short, "UNSUP.BAD_IMAGE", "skip"]) == 0
    assert (earlier / "previous/001/log.txt").read_text() == "log.txt"
    log = (earlier / "log.txt").read_text()
    assert f"UNSUP.BAD_IMAGE skip: {broken} is skipped" in log
    assert "Training on 71 images of 3 cameras" in log and "it was moved to" in log
