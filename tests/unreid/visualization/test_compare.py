"""Tests of the comparison page: values, best values, differing settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unreid.visualization.conftest import WriteRun
from tests.unreid.visualization.reading import Reading
from tests.unreid.visualization.test_page import HOSTILE, assert_self_contained
from unreid.visualization.compare import differences, names_of, write_comparison
from unreid.visualization.history import read_run


def results(mean: float, ari: float, **more: object) -> dict:
    return {
        "before": {"mAP": 1.0, "Rank-1": 2.0},
        "after": {"mAP": mean, "Rank-1": mean + 1},
        "labels": {"clusters": 4, "noise": 1, "ari": ari},
        "seconds": {"train": 30.0},
        "datasets": {"test": ["Market1501"]},
        "project": "CALR",
        **more,
    }


def rows(page: Path) -> dict[str, list[str]]:
    """Return the parsed table of scores: name -> cells."""
    source = page.read_text()
    table = source[source.index('id="scores"') :]
    found = {}
    for line in table[: table.index("</table>")].split("<tr>")[1:]:
        cells = line.split("<td")
        if len(cells) > 2:
            texts = [c.partition(">")[2].partition("<")[0] for c in cells[1:]]
            best = ['class="best"' in c for c in cells[1:]]
            found[texts[0]] = [f"*{t}" if b else t for t, b in zip(texts[1:], best[1:])]
    return found


def test_two_runs__have_their_numbers_side_by_side(write_run: WriteRun, tmp_path: Path) -> None:
    one = write_run("one", labels=[[0, 1, 1, 2, 3]], results=results(30, 0.5),
                    metrics='{"iteration": 4, "total_loss": 2.5}\n')  # fmt: skip
    two = write_run("two", labels=[[0, 1, 1], [0, 1, -1]], results=results(40, 0.25))
    page = write_comparison([one, two], tmp_path / "c.html")
    found = rows(page)
    assert found["mAP, Market1501"] == ["30.00", "*40.00"]
    assert found["ARI"] == ["*0.500", "0.250"]
    assert found["Epochs"] == ["1", "2"] and found["Seconds"] == ["30", "30"]
    assert found["State"] == ["finished", "finished"]
    reading = Reading(page)
    assert_self_contained(reading)
    charts = reading.charts
    assert charts["mAP"].column("one") == [(0, 1), (1, 30)]
    assert charts["mAP"].column("two") == [(0, 1), (2, 40)]
    assert charts["Clusters"].column("one") == [(0, 4)]
    assert charts["Clusters"].column("two") == [(0, 2), (1, 2)]
    assert charts["Total loss"].column("one") == [(4, 2.5)]
    assert "two" not in charts["Total loss"].lines


def test_run_that_was_killed__has_gaps_and_is_never_the_best(
    write_run: WriteRun, tmp_path: Path
) -> None:
    killed = results(0, 0)
    killed.update(after=None, labels=None, seconds={})
    folders = [
        write_run("done", labels=[[0, 1]], results=results(5, 0.1)),
        write_run("killed", labels=[[0, 1]], results=killed),
        write_run("empty"),
    ]
    found = rows(write_comparison(folders, tmp_path / "c.html"))
    assert found["mAP, Market1501"] == ["5.00", "-", "-"]
    assert found["State"] == ["finished", "stopped", "stopped"]


def test_differences__are_those_of_the_settings_alone(write_run: WriteRun) -> None:
    runs = [
        read_run(write_run(name, config=f"A: {{B: {value}, C: 1}}\nOUTPUT_DIR: {name}\n"))
        for name, value in (("x", 1), ("y", 2), ("z", 1))
    ]
    found = dict(differences(runs))
    assert found["A.B"] == ["1", "2", "1"] and "A.C" not in found and "OUTPUT_DIR" not in found
    assert differences([runs[0], runs[2]]) == []


def test_same_folder_names__are_told_apart_by_their_parents(write_run: WriteRun) -> None:
    runs = [read_run(write_run(name)) for name in ("a/run", "b/run", "c/other")]
    assert names_of(runs) == ["a/run", "b/run", "c/other"]
    assert names_of([runs[0], runs[0]]) == ["run", "run (2)"]


def test_names_that_are_markup__come_out_as_words(write_run: WriteRun, tmp_path: Path) -> None:
    folders = [
        write_run(
            "<b>one",
            labels=[[0, 1]],
            results=results(1, 0, project=HOSTILE),
            config=f"A: {HOSTILE!r}\n".replace("\\'", "''"),
        ),
        write_run('"two" & <i>', labels=[[0, 1]], results=results(2, 0)),
    ]
    reading = Reading(write_comparison(folders, tmp_path / "c.html"))
    assert_self_contained(reading)
    assert reading.unclosed == [] and "<b>one" in reading.text and '"two" & <i>' in reading.text
    assert {"<b>one", '"two" & <i>'} == set(reading.charts["mAP"].lines)


def test_ten_runs__are_ten_lines(write_run: WriteRun, tmp_path: Path) -> None:
    folders = [write_run(f"r{i}", labels=[[0, 1]], results=results(i, 0)) for i in range(10)]
    page = write_comparison(folders, tmp_path / "c.html")
    assert len(Reading(page).charts["mAP"].lines) == 10


def test_one_run__is_no_comparison(write_run: WriteRun, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"at least 2 runs, got 1"):
        write_comparison([write_run()], tmp_path / "c.html")
