"""``unreid search``: output files, index, usage errors."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from types import ModuleType

import pytest

from tests.tools.using import load_tool
from tests.unreid.inference.making import fill, make_run, truncate
from unreid.config import load_config
from unreid.engine.run import evaluate_only

PATTERN = r"(?P<id>[0-9]+)_c(?P<camera>[0-9])"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return load_tool("search")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("search") / "run")


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_scores__equal_those_of_the_evaluation(
    tool: ModuleType, tmp_path: Path, synthetic_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run", TEST__FLIP__ENABLED=True)
    os.environ["FASTREID_DATASETS"] = str(synthetic_root)
    cfg, _ = load_config(str(run / "config.yaml"), ["MODEL.WEIGHTS", str(run / "model_final.pth")])
    scores = evaluate_only(cfg)
    (market,) = (p for p in synthetic_root.iterdir() if p.is_dir())
    capsys.readouterr()
    assert (
        tool.main(
            [
                "--run",
                str(run),
                "--gallery",
                str(market / "bounding_box_test"),
                "--query",
                str(market / "query"),
                "--pattern",
                PATTERN,
                "--output",
                str(tmp_path / "out"),
            ]
        )
        == 0
    )
    wanted = ", ".join(f"{k} {scores[k]:.1f}" for k in ("mAP", "Rank-1", "Rank-5", "Rank-10"))
    assert wanted in capsys.readouterr().out


def test_output_files__have_every_query_and_the_index_replaces_the_gallery(
    tool: ModuleType, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"{person}_c{camera}_ü.png" for person in range(3) for camera in range(2)]
    fill(tmp_path / "gallery", names)
    fill(tmp_path / "queries", ["0_c0_q.png", "2_c1_q.png"], seed=3)
    common = [
        "--run",
        str(run_folder),
        "--index",
        str(tmp_path / "kept.index"),
        "--output",
        str(tmp_path / "out"),
        "--pattern",
        PATTERN,
        "--device",
        "cpu",
    ]
    gallery = ["--gallery", str(tmp_path / "gallery")]
    assert tool.main([*common, *gallery]) == 0
    assert "6 added; 6 embedded" in capsys.readouterr().out
    query = ["--query", str(tmp_path / "queries")]
    assert (
        tool.main(
            [*common, *gallery, *query, "--top", "4", "--json", "--pictures", "--other-cameras"]
        )
        == 0
    )
    assert "no change; 0 embedded" in capsys.readouterr().out
    rows = rows_of(tmp_path / "out" / "ranks.csv")
    assert len(rows) == 2 * 3, "three images are of another camera"
    assert {row["camera"] for row in rows[:3]} == {"1"}
    assert [row["rank"] for row in rows[:3]] == ["1", "2", "3"]
    assert all((row["correct"] == "yes") == (row["path"][0] == "0") for row in rows[:3])
    content = json.loads((tmp_path / "out" / "ranks.json").read_text())
    assert content["gallery"] == str(tmp_path / "gallery")
    assert [a["path"] for a in content["queries"][0]["answers"]] == [r["path"] for r in rows[:3]]
    assert sorted(p.name for p in (tmp_path / "out" / "pictures").iterdir()) == [
        "query_0000_0_c0_q.jpg",
        "query_0001_2_c1_q.jpg",
    ]
    # Without the gallery folder; the pattern does not match the name of the query image.
    fill(tmp_path, ["somebody.png"], seed=3)
    assert tool.main([*common, "--query", str(tmp_path / "somebody.png"), "--top", "2"]) == 0
    rows = rows_of(tmp_path / "out" / "ranks.csv")
    assert len(rows) == 2 and {row["correct"] for row in rows} == {""}


def test_index_of_another_model__is_refused_and_both_models_are_named(
    tool: ModuleType, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path / "gallery", ["a.png", "b.png"])
    arguments = ["--gallery", str(tmp_path / "gallery"), "--index", str(tmp_path / "kept.index")]
    assert tool.main(["--run", str(run_folder), *arguments]) == 0
    before = (tmp_path / "kept.index").read_bytes()
    other = make_run(tmp_path / "other", seed=4)
    assert tool.main(["--run", str(other), *arguments]) == 2
    error = capsys.readouterr().err
    assert str(run_folder / "model_final.pth") in error and str(other / "model_final.pth") in error
    assert "Traceback" not in error and (tmp_path / "kept.index").read_bytes() == before


def test_unreadable_images__are_an_error_or_are_skipped_and_named(
    tool: ModuleType, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = fill(tmp_path / "gallery", ["a.jpg", "b.jpg"])
    truncate(paths[1])
    arguments = [
        "--run",
        str(run_folder),
        "--gallery",
        str(tmp_path / "gallery"),
        "--query",
        str(paths[0]),
        "--output",
        str(tmp_path / "out"),
    ]
    assert tool.main(arguments) == 2
    assert "b.jpg cannot be read" in capsys.readouterr().err
    assert tool.main([*arguments, "--skip-bad"]) == 0
    assert f"left out: {paths[1]}" in capsys.readouterr().err
    assert rows_of(tmp_path / "out" / "ranks.csv") == [], "the gallery has only the query itself"
    assert (
        tool.main(
            [
                *arguments[:4],
                "--query",
                str(paths[1]),
                "--skip-bad",
                "--output",
                str(tmp_path / "out"),
            ]
        )
        == 2
    )
    assert "no query is left" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--gallery", "g", "--query", "q"], "name a model: --run FOLDER, or --config FILE"),
        (["--run", "r", "--config-file", "c", "--gallery", "g", "--query", "q"], "not both"),
        (["--run", "r", "--query", "q"], "name --gallery FOLDER, or an --index FILE"),
        (["--run", "r", "--gallery", "g"], "nothing to do: name --query PATH"),
        (["--run", "r", "--gallery", "g", "--query", "q", "--top", "0"], "--top must be"),
        (["--run", "r", "--galery", "g"], "unknown option --galery; did you mean '--gallery'?"),
    ],
)
def test_usage_error__is_named_with_exit_code_2(
    tool: ModuleType, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        tool.parse(arguments)
    assert stop.value.code == 2 and words in capsys.readouterr().err


def test_missing_files__are_one_line_errors(
    tool: ModuleType, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    fill(tmp_path, ["q.png"])
    run, query = ["--run", str(run_folder)], ["--query", str(tmp_path / "q.png")]
    for arguments, words in (
        ([*run, *query, "--gallery", str(tmp_path / "empty")], "empty: no image found"),
        ([*run, *query, "--gallery", str(tmp_path / "none")], "none: no such folder"),
        ([*run, *query, "--index", str(tmp_path / "none")], "give a gallery to create it"),
        ([*run, "--gallery", str(tmp_path), "--query", "gone.png"], "--query gone.png: no such"),
        (["--run", str(tmp_path), *query, "--gallery", str(tmp_path)], "is no folder of a run"),
    ):
        assert tool.main(arguments) == 2
        error = capsys.readouterr().err
        assert words in error and error.startswith("error: ")
