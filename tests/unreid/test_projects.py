"""Projects are found by convention and loaded by name."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from unreid.projects import discover_projects, list_configs, load_project, resolve_config


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
    assert load_project("CALR").name == "CALR"


#: What a package needs beside its parts; a class of another name for each test.
PROJECT = """from unreid.contracts import Project

class {name}(Project):
    def add_config(self, cfg):
        cfg["seen"] = True
"""


def test_fourth_method__needs_a_folder_and_add_config_alone(folder: Path) -> None:
    project(folder, "FourthMethod", PROJECT.format(name="FourthMethod"))
    (folder / "README.md").write_text("no project")
    (folder / "NoPackage").mkdir()
    assert list(discover_projects()) == ["FourthMethod"]
    loaded = load_project("FourthMethod")
    cfg: dict[str, bool] = {}
    loaded.add_config(cfg)
    loaded.check_config(cfg)
    loaded.before_training(cfg, None, None)  # type: ignore[arg-type]
    assert cfg == {"seen": True}
    with pytest.raises(ValueError, match="PROJECT FourthMethod has nothing to draw"):
        loaded.draw_pictures(cfg, "weights", "output")
    assert loaded.folder == folder / "FourthMethod"


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("HalfMethod", "", "found none"),
        ("TwinMethod", PROJECT.format(name="A") + PROJECT.format(name="B"), "found A, B"),
    ],
)
def test_package_without_one_project__is_named(
    folder: Path, name: str, text: str, found: str
) -> None:
    project(folder, name, text)
    with pytest.raises(TypeError, match=rf"{name.lower()} must define one subclass of.*{found}"):
        load_project(name)


def test_project_without_add_config__cannot_be_loaded(folder: Path) -> None:
    project(
        folder,
        "BareMethod",
        "from unreid.contracts import Project\nclass BareMethod(Project):\n    pass\n",
    )
    with pytest.raises(TypeError, match="add_config"):
        load_project("BareMethod")


def test_unknown_project__lists_what_exists(folder: Path) -> None:
    with pytest.raises(KeyError, match="PROJECT must be one of none in "):
        load_project("CALR")
    project(folder, "OnlyMethod", PROJECT.format(name="OnlyMethod"))
    with pytest.raises(KeyError, match=r"one of OnlyMethod, got 'OnlyMethd'; did you mean"):
        load_project("OnlyMethd")


def test_short_form__is_the_file_of_a_project() -> None:
    folder = discover_projects()["CALR"]
    assert resolve_config("CALR/market") == folder / "configs" / "market.yml"
    assert resolve_config("CALR/market.yml") == folder / "configs" / "market.yml"
    assert resolve_config("CALR/small/plus") == folder / "configs" / "small" / "plus.yml"


def test_file_of_the_same_name__comes_before_the_short_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "CALR").mkdir()
    Path("CALR/market").write_text("PROJECT: CALR\n")
    assert resolve_config("CALR/market") == Path("CALR/market")
    Path("CALR/market").unlink()
    Path("CALR/market").mkdir()
    assert resolve_config("CALR/market").is_file()


@pytest.mark.parametrize(
    ("name", "listed"),
    [
        ("CALR/marke", r"there are .*CALR/market, .*did you mean 'CALR/market'\?"),
        ("calr/market", r"there are CALR/\.\.\., .*did you mean 'CALR/market'\?"),
        ("CALR/../CALR/market", r"there are .*CALR/market, "),
        ("nowhere.yml", r"there are CALR/\.\.\., "),
        ("CALR", r"there are .*CALR/market, "),
        ("x" * 5000, "there are CALR"),
        ("a\0b", "there are CALR"),
    ],
)
def test_config_that_does_not_exist__lists_what_does(name: str, listed: str) -> None:
    with pytest.raises(FileNotFoundError, match="no such file, and no config of") as error:
        resolve_config(name)
    assert str(error.value).startswith(f"--config-file {name}")
    assert re.search(listed, str(error.value))


def test_every_config__has_a_short_form_but_bases() -> None:
    for name, folder in discover_projects().items():
        configs = list_configs(name, folder)
        files = {f for f in folder.rglob("*.yml") if not f.name.startswith("Base-")}
        assert set(configs.values()) == files and files
        assert all(resolve_config(short) == file for short, file in configs.items())
