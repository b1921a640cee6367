"""Rows: when a row is current or stale, independent of the machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.projects.tiny_run import BASELINE, ROOT
from unreid.config import load_config
from unreid.sweep.code_version import EquivalentCode
from unreid.sweep.folds import Fold
from unreid.sweep.grid import Run, expand
from unreid.sweep.rows import (
    Provenance,
    active_settings,
    append_row,
    find_row,
    make_row,
    read_rows,
)

CONFIG = str(ROOT / BASELINE)
CODE, OTHER = "a" * 12, "b" * 12
HERE = Provenance(CODE, "images", "commit")
RESULTS = {"after": {"mAP": 20.0, "Rank-1": 40.0}, "labels": {"ari": 0.3}, "before": {"mAP": 9.0},
           "seconds": {"train": 90.0}, "versions": {"torch": "2", "python": "3"}}  # fmt: skip


def run_of(output: Path, *settings: tuple[str, str], seed: int = 0, root: str = "r") -> Run:
    given = [("MODEL.BACKBONE.PRETRAIN", "False"), *settings]
    (run,) = expand([CONFIG], [], given, [seed], str(output), [Fold("fold0", root)])
    return run


def row_of(run: Run, provenance: Provenance = HERE, **scores: Any) -> dict[str, Any]:
    cfg, _ = load_config(run.config_file, run.opts)
    return make_row(run, provenance, cfg, RESULTS, scores)


def test_row__is_current_in_another_folder_under_another_root(tmp_path: Path) -> None:
    append_row(tmp_path / "rows.jsonl", row_of(run_of(tmp_path / "a", root="here")))
    other = run_of(tmp_path / "b", root="there")
    row, stale = find_row(read_rows(tmp_path / "rows.jsonl"), other, HERE, EquivalentCode())
    assert row is not None and stale == ""
    assert row["scores"]["configured"] == RESULTS["after"] and row["minutes"] == 1.5
    assert row["row"] == "CALR/baseline" and row["seed"] == 0 and row["commit"] == "commit"
    assert str(tmp_path) not in json.dumps(row)


@pytest.mark.parametrize(
    ("settings", "provenance", "reason"),
    [
        ([("SOLVER.BASE_LR", "0.1")], HERE, "its settings have changed"),
        ([("TEST.CENTER_CAMERAS", "True")], HERE, "its settings have changed"),
        ([], Provenance(OTHER, "images"), f"the code has changed ({CODE}, now {OTHER})"),
        ([], Provenance(CODE, "other images"), ""),  # another fold: no row of this run
    ],
)
def test_changed_run__has_no_current_row(
    tmp_path: Path, settings: Any, provenance: Provenance, reason: str
) -> None:
    row = row_of(run_of(tmp_path))
    found, stale = find_row([row], run_of(tmp_path, *settings), provenance, EquivalentCode())
    assert found is None and reason in stale and bool(stale) == bool(reason)
    found, stale = find_row([row], run_of(tmp_path, seed=1), HERE, EquivalentCode())
    assert found is None and stale == ""


def test_equivalent_code__keeps_a_row_current(tmp_path: Path) -> None:
    row, now = row_of(run_of(tmp_path)), Provenance(OTHER, "images")
    found, _ = find_row([row], run_of(tmp_path), now, EquivalentCode([(CODE, OTHER)]))
    assert found == row


def test_newest_current_row__is_used_even_if_a_newer_row_is_stale(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    rows = [row_of(run), {**row_of(run), "minutes": 2.0}, row_of(run, Provenance(OTHER, "images"))]
    assert find_row(rows, run, HERE, EquivalentCode()) == (rows[1], "")


def test_row_without_a_requested_test_setting__is_not_current(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    rows = [row_of(run, plain={"mAP": 1.0})]
    assert find_row(rows, run, HERE, EquivalentCode(), ["plain"])[0] == rows[0]
    found, stale = find_row(rows, run, HERE, EquivalentCode(), ["plain", "flip"])
    assert found is None and stale == "it has no scores under flip"


def test_settings_hash__depends_on_the_content_of_weights_not_on_their_path(tmp_path: Path) -> None:
    hashes = []
    for folder, value in (("a", 1.0), ("b", 1.0), ("c", 2.0)):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "weights.pth"
        torch.save({"w": torch.tensor(value)}, path)
        key = "MODEL.BACKBONE.PRETRAIN_PATH"
        run = run_of(tmp_path, ("MODEL.BACKBONE.PRETRAIN_PATH", str(path)))
        command = row_of(run)["command"]
        assert f"{key} path/to/weights.pth" in command and str(tmp_path) not in command
        hashes.append(run.settings_hash)
    assert hashes[0] == hashes[1] != hashes[2]


def test_settings_hash__does_not_depend_on_seed_output_and_device(tmp_path: Path) -> None:
    same = {
        run_of(tmp_path / "a").settings_hash,
        run_of(tmp_path / "b", seed=4).settings_hash,
        run_of(tmp_path / "c", ("MODEL.DEVICE", "cpu")).settings_hash,
        run_of(tmp_path / "d", ("UNSUP.REPORT", "False")).settings_hash,
    }
    assert len(same) == 1


def test_settings_hash__does_not_change_when_a_key_is_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = run_of(tmp_path).settings_hash
    import unreid.config as config
    import unreid.sweep.grid as grid

    declare = config.add_unreid_config

    def with_a_new_key(cfg: Any) -> None:
        declare(cfg)
        cfg.UNSUP.SOMETHING_NEW = 3

    monkeypatch.setattr(config, "add_unreid_config", with_a_new_key)
    monkeypatch.setattr(grid, "add_unreid_config", with_a_new_key)
    assert run_of(tmp_path).settings_hash == before
    assert run_of(tmp_path, ("UNSUP.SOMETHING_NEW", "4")).settings_hash != before


def test_active_settings__are_returned_for_every_score(tmp_path: Path) -> None:
    row = row_of(run_of(tmp_path, ("TEST.CENTER_CAMERAS", "True"), ("TEST.AQE.ENABLED", "True")))
    assert active_settings(row, "configured") == ["TEST.CENTER_CAMERAS", "TEST.AQE"]
    assert active_settings(row, "plain") == ["TEST.AQE"]
    assert active_settings(row, "centred_flip") == ["TEST.CENTER_CAMERAS", "TEST.FLIP", "TEST.AQE"]


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"row": 3}'])
def test_broken_line__is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "rows.jsonl"
    append_row(file, row_of(run_of(tmp_path)))
    with open(file, "a") as opened:
        opened.write(f"{line}\n")
    with pytest.raises(ValueError, match=r"rows.jsonl line 2: "):
        read_rows(file)
    assert read_rows(tmp_path / "none.jsonl") == []
