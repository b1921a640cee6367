"""The synthetic dataset as a folder that follows no dataset layout."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from unreid.data.folder import read_folder
from unreid.data.folder_dataset import split_by_id

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--identities", "4", "4", "--cameras", "2", "--images-per-identity", "4"]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    path = list(sys.path)
    spec = importlib.util.spec_from_file_location("make", ROOT / "tools" / "make_demo_data.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path[:] = path
    return module


def test_as_folder__has_all_images_under_names_that_a_pattern_matches(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "shop"
    assert tool.main(["--as-folder", str(target), *SMALL]) == 0
    items = read_folder(target, pattern=r"cam(?P<camera>\d+)/person(?P<id>\d+)_shot")
    assert f"{len(items)} images of 8 people, 2 cameras" in capsys.readouterr().out
    assert len(items) == 32 and {item.camera for item in items} == {"1", "2"}
    assert len({item.pid for item in items}) == 8
    train, query, gallery = split_by_id(items, 0.3)
    assert train and query and gallery


def test_folder_in_use__is_refused(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.jpg").touch()
    assert tool.main(["--as-folder", str(tmp_path), *SMALL]) == 2
    assert "is not empty; name a new folder" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["own.jpg"]
