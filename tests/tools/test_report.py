"""``unreid report``: one run, several runs, usage errors."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.projects.overrides import ROOT
from tests.projects.tiny_run import BASELINE, load_tiny, train_tiny
from tests.unreid.visualization.reading import Reading


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    path = list(sys.path)
    spec = importlib.util.spec_from_file_location("report", ROOT / "tools" / "report.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path[:] = path
    return module


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, synthetic_root: Path) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "a run"
    cfg, _ = load_tiny(BASELINE, folder, SOLVER__MAX_EPOCH=1)
    folder.mkdir()
    (folder / "config.yaml").write_text(cfg.dump())
    before = os.environ.get("FASTREID_DATASETS")
    train_tiny(BASELINE, synthetic_root, folder, SOLVER__MAX_EPOCH=1)
    os.environ.pop("FASTREID_DATASETS", None)
    if before is not None:
        os.environ["FASTREID_DATASETS"] = before
    assert not (folder / "report.html").exists()
    return folder


def test_one_run__writes_a_page_into_its_folder_and_changes_no_other_file(
    tool: ModuleType,
    trained: Path,
    synthetic_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FASTREID_DATASETS", str(synthetic_root))
    before = {p: p.stat().st_mtime_ns for p in trained.rglob("*")}
    assert tool.main([str(trained), "--map", "pca", "--max-images", "30"]) == 0
    page = trained / "report.html"
    printed = capsys.readouterr().out
    assert str(page) in printed and " MB in " in printed
    text = Reading(page).text
    assert "a run" in text and "principal components" in text and "A sample: 30 of" in text
    after = {p: p.stat().st_mtime_ns for p in trained.rglob("*") if p != page}
    assert after == before, "a report changes no file of the run"
    page.unlink()


def test_missing_dataset__gives_a_page_without_images(
    tool: ModuleType,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path / "nowhere"))
    assert tool.main([str(trained), "--out", str(tmp_path / "page.html")]) == 0
    reading = Reading(tmp_path / "page.html")
    assert "the training images could not be read" in reading.text
    assert "nowhere" in capsys.readouterr().err
    assert "img" not in reading.tags and "Clusters" in reading.charts


def test_no_model__gives_a_page_of_curves_and_clusters(
    tool: ModuleType,
    trained: Path,
    synthetic_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FASTREID_DATASETS", str(synthetic_root))
    assert tool.main([str(trained), "--no-model", "--out", str(tmp_path / "page.html")]) == 0
    text = Reading(tmp_path / "page.html").text
    assert "Largest" in text and "Best queries" not in text and "Camera bias" not in text


def test_two_runs__are_compared(
    tool: ModuleType, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "compare.html"
    assert tool.main([str(trained), str(trained), "--out", str(page)]) == 0
    text = Reading(page).text
    after = json.loads((trained / "results.json").read_text())["after"]
    assert "2 runs compared" in text and "a run (2)" in text
    assert text.count(f"{after['mAP']:.2f}") >= 2
    assert str(page) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: RUN"),
        (["a", "--no-modle"], "unknown option --no-modle; did you mean '--no-model'?"),
        (["a", "--map", "umap"], "invalid choice: 'umap'"),
        (["a", "--max-images", "1"], "--max-images must be an integer >= 2, got 1"),
    ],
)
def test_usage_error__is_named_with_exit_code_2(
    tool: ModuleType, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        tool.parse(arguments)
    assert stop.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize("runs", [["no/such"], ["no/such", "no/other"]])
def test_folder_without_a_run__is_a_one_line_error_with_a_suggestion(
    tool: ModuleType, runs: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool.main(runs) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: no/such: no such folder; name the OUTPUT_DIR of a training")
    assert "Traceback" not in err


def test_help__has_an_example(tool: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        tool.parse(["--help"])
    out = capsys.readouterr().out
    assert "example:" in out and "unreid report runs/market" in out and "--no-model" in out
