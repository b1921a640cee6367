"""Projects are found by convention and loaded by name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from unreid.projects import discover_projects, load_project


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNREID_PROJECTS", str(tmp_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def project(folder: Path, name: str, text: str) -> None:
    package = folder / name / name.lower()
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(text)


def test_calr__is_found_beside_the_package() -> None:
    assert "CALR" in discover_projects()
    assert load_project("CALR").before_training is not None


def test_fourth_method__needs_a_folder_and_add_config_alone(folder: Path) -> None:
    project(folder, "FourthMethod", "def add_config(cfg):\n    cfg['seen'] = True\n")
    (folder / "README.md").write_text("no project")
    (folder / "NoPackage").mkdir()
    assert list(discover_projects()) == ["FourthMethod"]
    loaded = load_project("FourthMethod")
    cfg: dict[str, bool] = {}
    loaded.add_config(cfg)
    loaded.check_config(cfg)
    assert cfg == {"seen": True} and loaded.before_training is None
    assert loaded.folder == folder / "FourthMethod"


def test_package_without_add_config__is_named(folder: Path) -> None:
    project(folder, "HalfMethod", "")
    with pytest.raises(TypeError, match=r"halfmethod must offer add_config\(cfg\)"):
        load_project("HalfMethod")


def test_unknown_project__lists_what_exists(folder: Path) -> None:
    with pytest.raises(KeyError, match="PROJECT must be one of none in "):
        load_project("CALR")
    project(folder, "OnlyMethod", "def add_config(cfg): pass\n")
    with pytest.raises(KeyError, match=r"one of OnlyMethod, got 'OnlyMethd'; did you mean"):
        load_project("OnlyMethd")
