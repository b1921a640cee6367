"""``unreid train``: usage errors, one-line errors, and evaluation of a trained model."""

from __future__ import annotations

import errno
import importlib.util
import os
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name what to train: --config CONFIG, or --images FOLDER"),
        ([*CONFIG, "--resmue"], "unknown option --resmue; did you mean '--resume'?"),
        (
            [*CONFIG, "--eval-onyl", "A", "1"],
            "unknown option --eval-onyl; did you mean '--eval-only'?",
        ),
        (
            [*CONFIG, "SOLVER.MAX_EPOCH", "1", "--resume"],
            "--resume must come before the KEY VALUE pairs",
        ),
        ([*CONFIG, "--num-gpus", "0"], "--num-gpus must be >= 1, got 0"),
        ([*CONFIG, "--num-gpu", "2"], "unknown option --num-gpu; did you mean '--num-gpus'?"),
        (
            [*CONFIG, "--num-machines", "2"],
            "--dist-url tcp://HOST:PORT of machine 0 is required with --num-machines 2",
        ),
        (
            [*CONFIG, "--machine-rank", "1"],
            "--machine-rank must be in 0..0 with --num-machines 1, got 1",
        ),
        ([*CONFIG, "--dist-url", "here"], "--dist-url must be tcp://HOST:PORT or auto, got 'here'"),
        ([*CONFIG, "--num-gpus", "two"], "argument --num-gpus: invalid int value: 'two'"),
    ],
)
def test_usage_error__is_named_with_exit_code_2(
    tool: ModuleType, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        tool.parse(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_negative_value__is_not_parsed_as_an_option(tool: ModuleType) -> None:
    args = tool.parse([*CONFIG, "--resume", "CALR.ADVERSARY.END_EPOCH", "-1"])
    assert args.resume and args.opts == ["CALR.ADVERSARY.END_EPOCH", "-1"]


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (
            ["SOLVER.MAX_EPOCHS", "1"],
            "error: command line: config key 'SOLVER.MAX_EPOCHS' does not exist; did you mean",
        ),
        (["SOLVER.MAX_EPOCH"], "error: options must come as KEY VALUE pairs, got an odd number"),
        (["SOLVER.MAX_EPOCH", "-1"], "error: SOLVER.MAX_EPOCH must be an integer >= 0, got -1"),
        (["PROJECT", "Nope"], "error: PROJECT must be one of "),
    ],
)
def test_invalid_setting__is_a_one_line_error_with_exit_code_2(
    tool: ModuleType, opts: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool.main([*CONFIG, "MODEL.BACKBONE.PRETRAIN", "False", *opts]) == 2
    err = capsys.readouterr().err
    assert err.startswith(message)
    assert "Traceback" not in err and "UNREID_TRACEBACK=1" in err


def test_infomap_without_the_package__is_a_one_line_error_that_names_the_extra(
    tool: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "infomap" else find(name, *a)
    )
    opts = ["MODEL.BACKBONE.PRETRAIN", "False", "UNSUP.CLUSTER.NAME", "infomap"]
    assert tool.main([*CONFIG, *opts]) == 2
    assert 'pip install "unreid[infomap]"' in capsys.readouterr().err


def test_traceback__is_shown_with_the_environment_variable(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNREID_TRACEBACK", "1")
    with pytest.raises(ValueError, match=r"odd number"):
        tool.main([*CONFIG, "SOLVER.MAX_EPOCH"])


def test_missing_data__is_a_one_line_error_with_the_folder(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.environ["FASTREID_DATASETS"] = str(tmp_path / "nowhere")
    assert tool.main([*CONFIG, *tiny_options(BASELINE, tmp_path / "run")]) == 2
    err = capsys.readouterr().err
    assert "\nerror: DATASETS.NAMES Market1501: " in f"\n{err}"
    assert str(tmp_path / "nowhere") in err and "FASTREID_DATASETS" in err


def test_full_disk__is_a_one_line_error(
    tool: ModuleType,
    tmp_path: Path,
    synthetic_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    os.environ["FASTREID_DATASETS"] = str(synthetic_root)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert tool.main([*CONFIG, *tiny_options(BASELINE, tmp_path / "run")]) == 2
    last = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(last) == 1 and "could not write" in last[0] and "No space left" in last[0]


def test_train_then_eval_only__give_the_same_scores(
    tool: ModuleType, tmp_path: Path, synthetic_root: Path
) -> None:
    import json

    from unreid.engine import run

    os.environ["FASTREID_DATASETS"] = str(synthetic_root)
    output = tmp_path / "run"
    short = tiny_options(BASELINE, output, SOLVER__MAX_EPOCH=1, UNSUP__ITERS_PER_EPOCH=1)
    assert tool.main([*CONFIG, *short]) == 0
    after = json.loads((output / "results.json").read_text())["after"]
    scores = []
    evaluate = run.evaluate_only

    def record(cfg: object) -> dict[str, float]:
        scores.append(evaluate(cfg))
        return scores[-1]

    run.evaluate_only = record
    try:
        weights = ["MODEL.WEIGHTS", str(output / "model_final.pth")]
        assert tool.main([*CONFIG, "--eval-only", *short, *weights]) == 0
    finally:
        run.evaluate_only = evaluate
    assert {k: round(v, 4) for k, v in scores[0].items() if k in after} == after
    assert json.loads((output / "results.json").read_text())["after"] == after, (
        "evaluation does not change results.json"
    )
    assert not (output / "previous").exists()
