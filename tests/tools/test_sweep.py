"""``unreid sweep``: the grid of runs; which runs are skipped, resumed and reported."""

from __future__ import annotations

import csv
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import unreid.sweep.runs as sweep_runs
from tests.projects.overrides import ROOT, tiny_options
from tests.projects.tiny_run import BASELINE
from unreid.config import load_config
from unreid.sweep import Record, expand, is_finished, run_all, write_report
from unreid.sweep.grid import Run
from unreid.sweep.rows import Provenance, make_row

SYNTHETIC = Path("projects/CALR/configs/synthetic.yml")
CONFIG = str(ROOT / BASELINE)
LIGHT = [("MODEL.BACKBONE.PRETRAIN", "False")]
TAU = "UNSUP.MEMORY.TEMPERATURE"

#: Replaces train_net.py: writes the files of a run with mAP = 100 x tau + seed.
FAKE = """
import json, os, sys, yaml
words = sys.argv[1:]
file, words = words[1], words[2:]
resume = words[0] == "--resume"
given = dict(zip(words[resume::2], words[resume + 1::2]))
nested = {"_BASE_": file}
for key, value in given.items():
    node = nested
    for part in key.split(".")[:-1]:
        node = node.setdefault(part, {})
    node[key.split(".")[-1]] = yaml.safe_load(value)
folder = given["OUTPUT_DIR"]
tau, seed = float(given["UNSUP.MEMORY.TEMPERATURE"]), int(given.get("UNSUP.SEED", 0))
with open(os.path.join(folder, "calls"), "a") as calls:
    calls.write("resume\\n" if resume else "start\\n")
with open(os.path.join(folder, "config.yaml"), "w") as f:
    yaml.safe_dump(nested, f)
print("OMP", os.environ["OMP_NUM_THREADS"])
if tau == 0.5:
    print("error: tau is 0.5\\n(UNREID_TRACEBACK=1 shows where)", file=sys.stderr)
    sys.exit(2)
results = dict(before=None, after={"mAP": 100 * tau + seed, "Rank-1": 50.0}, labels=dict(
    clusters=7, noise=3, ari=0.25, f_score=0.3), seconds=dict(train=60.0, extract=30.0))
with open(os.path.join(folder, "results.json"), "w") as f:
    json.dump(results, f)
"""


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    path = list(sys.path)
    spec = importlib.util.spec_from_file_location("sweep", ROOT / "tools" / "sweep.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path[:] = path
    return module


@pytest.fixture
def fake(tmp_path: Path) -> list[str]:
    program = tmp_path / "fake.py"
    program.write_text(FAKE)
    return [sys.executable, str(program)]


def grid(output: Path, *taus: str, seeds: tuple[int, ...] = ()) -> list[Run]:
    return expand([CONFIG], [(TAU, taus)] if taus else [], LIGHT, seeds, str(output))


def calls(run: Run) -> list[str]:
    return Path(run.folder, "calls").read_text().split()


def test_grid__is_every_combination_in_order(tmp_path: Path) -> None:
    vary = [(TAU, ["0.05", "0.1"]), ("UNSUP.MEMORY.UPDATE", ["plain", "hard"])]
    runs = expand([CONFIG], vary, LIGHT, [3, 4], str(tmp_path))
    assert [(*(v for _, v in r.varied), r.seed) for r in runs] == [
        (tau, update, seed) for tau in ("0.05", "0.1") for update in ("plain", "hard")
        for seed in (3, 4)
    ]  # fmt: skip
    assert len({run.folder for run in runs}) == len({run.hash for run in runs}) == 8
    cfg, _ = load_config(CONFIG, runs[6].opts)
    assert cfg.UNSUP.MEMORY.TEMPERATURE == 0.1 and cfg.UNSUP.MEMORY.UPDATE == "hard"
    assert cfg.UNSUP.SEED == 3 and runs[6].folder == cfg.OUTPUT_DIR
    assert runs[6].name == "CALR/baseline, TEMPERATURE 0.1, UPDATE hard, seed 3"


def test_configs_of_one_name__are_distinguished_by_their_folders(tmp_path: Path) -> None:
    other = ROOT / "projects/CALR/configs/small/baseline.yml"
    assert other.is_file()
    runs = expand([CONFIG, str(other)], [], LIGHT, [], str(tmp_path))
    assert [run.label for run in runs] == ["CALR/baseline", "CALR/small/baseline"]


def test_value_with_slashes__gives_a_folder_inside_the_output(tmp_path: Path) -> None:
    vary = [("MODEL.WEIGHTS", ["../../up/model.pth", "/model.pth"])]
    runs = expand([CONFIG], vary, LIGHT, [], str(tmp_path / "out"))
    assert {Path(run.folder).resolve().parent for run in runs} == {(tmp_path / "out").resolve()}


def test_integers__are_accepted_for_float_keys(tmp_path: Path) -> None:
    runs = expand([CONFIG], [(TAU, ["1", "0.5"])], [*LIGHT, ("SOLVER.WEIGHT_DECAY", "0")], [],
                  str(tmp_path))  # fmt: skip
    cfg, _ = load_config(CONFIG, runs[0].opts)
    assert cfg.UNSUP.MEMORY.TEMPERATURE == 1.0 and cfg.SOLVER.WEIGHT_DECAY == 0.0
    assert runs[0].varied == ((TAU, "1"),)


@pytest.mark.parametrize(
    ("vary", "settings", "seeds", "message"),
    [
        ([(TAU, ["0.1", "-1"])], LIGHT, [], "CALR/baseline, UNSUP.MEMORY.TEMPERATURE -1: "
         "UNSUP.MEMORY.TEMPERATURE must be"),
        ([("UNSUP.MEMORY.TEMPERATUR", ["1"])], LIGHT, [], "did you mean"),
        ([(TAU, ["0.1", "0.10"])], LIGHT, [], "are the same run"),
        ([(TAU, ["0.1"])], [*LIGHT, (TAU, "0.2")], [], f"{TAU} is given twice"),
        ([("UNSUP.SEED", ["1"])], LIGHT, [1], "UNSUP.SEED is given twice"),
        ([("OUTPUT_DIR", ["a"])], LIGHT, [], "OUTPUT_DIR is set by the sweep itself"),
    ],
)  # fmt: skip
def test_invalid_grid__is_refused_before_any_run(
    vary: Any, settings: Any, seeds: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises((ValueError, KeyError)) as error:
        expand([CONFIG], vary, settings, seeds, str(tmp_path))
    assert message in str(error.value.args[0])
    assert not list(tmp_path.iterdir())


def test_runs__are_trained_once_and_then_skipped(tmp_path: Path, fake: list[str]) -> None:
    runs, lines = grid(tmp_path / "out", "0.05", "0.1"), []
    assert not any(is_finished(run) for run in runs)
    first = run_all(runs, fake, jobs=2, say=lines.append)
    assert [o.results["after"]["mAP"] for o in first if o.results] == [5.0, 10.0]
    assert not any(o.skipped for o in first) and all(is_finished(run) for run in runs)
    again = run_all(runs, fake, jobs=2, say=lines.append)
    assert all(o.skipped for o in again)
    assert [o.results for o in again] == [o.results for o in first]
    assert [calls(run) for run in runs] == [["start"], ["start"]]
    assert any("[2/2]" in line and "mAP" in line and "ARI 0.250" in line for line in lines)


def test_changed_settings__are_trained_again_and_equal_settings_are_resumed(
    tmp_path: Path, fake: list[str]
) -> None:
    (run,) = grid(tmp_path, "0.05")
    run_all([run], fake)
    changed = expand([CONFIG], [(TAU, ["0.05"])], [*LIGHT, ("SOLVER.MAX_EPOCH", "3")], [],
                     str(tmp_path))  # fmt: skip
    assert changed[0].folder == run.folder and not is_finished(changed[0])
    run_all(changed, fake)
    Path(run.folder, "results.json").unlink()  # as after a kill
    run_all(changed, fake)
    assert calls(run) == ["start", "start", "resume"]


@pytest.mark.parametrize("text", ["", "{", '{"after": null, "labels": null}'])
def test_incomplete_result__is_not_finished(tmp_path: Path, fake: list[str], text: str) -> None:
    (run,) = grid(tmp_path, "0.05")
    run_all([run], fake)
    Path(run.folder, "results.json").write_text(text)
    assert not is_finished(run)


def test_failed_run__is_named_and_does_not_stop_the_others(tmp_path: Path, fake: list[str]) -> None:
    runs, lines = grid(tmp_path, "0.5", "0.1"), []
    failed, well = run_all(runs, fake, say=lines.append)
    assert failed.results is None and failed.error == "exit code 2: error: tau is 0.5"
    assert well.results is not None
    assert any("FAILED" in line and "output.txt" in line for line in lines)
    records = [Record(runs[0], None, failed.error), record(runs[1], well.results)]
    table, _ = write_report(records, [TAU], str(tmp_path))
    assert "Failed:" in table and f"- {runs[0].folder}: exit code 2" in table
    assert "| CALR/baseline, TEMPERATURE 0.5 | 0 | 0 |  |" in table
    assert "| CALR/baseline, TEMPERATURE 0.1 | 1 | 1 | 10.0 |" in table


def test_program_without_results__has_failed(tmp_path: Path) -> None:
    (run,) = grid(tmp_path, "0.05")
    (outcome,) = run_all([run], [sys.executable, "-c", "pass"])
    assert outcome.results is None and "no complete results.json" in outcome.error


def test_trainings__have_one_thread_each_by_default(
    tmp_path: Path, fake: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads change rounding, so their number must not depend on the machine."""
    monkeypatch.setattr(sweep_runs.os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS")
    one, two, other = grid(tmp_path, "0.05", "0.1", "0.2")
    run_all([one], fake, jobs=4)
    run_all([two], fake, jobs=4, threads=2)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    run_all([other], fake, jobs=4)
    lines = [Path(run.folder, "output.txt").read_text().split() for run in (one, two, other)]
    assert [words[-1] for words in lines] == ["1", "2", "3"]


def test_interruption__ends_the_trainings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run,) = grid(tmp_path, "0.05")
    jobs = []
    start = sweep_runs.Job.__init__

    def record_job(self: Any, *args: Any) -> None:
        start(self, *args)
        jobs.append(self)

    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep_runs.Job, "__init__", record_job)
    with pytest.raises(KeyboardInterrupt):
        run_all([run], [sys.executable, "-c", "import time; time.sleep(600)"], say=interrupt)
    assert jobs[0].process.poll() is not None


def test_remaining_time__is_estimated_from_finished_epochs(tmp_path: Path) -> None:
    runs = grid(tmp_path, "0.05", "0.1")
    clock = sweep_runs.Clock(jobs=1)
    assert clock.left([], runs) == ""
    clock.seconds, clock.epochs = 600.0, float(runs[0].epochs)
    assert clock.left([], runs) == "; about 20 min left"
    assert sweep_runs.Clock.left(clock, [], []) == ""
    clock.jobs = 2
    assert clock.left([], runs) == "; about 10 min left"


def test_progress__is_the_fraction_of_finished_epochs(tmp_path: Path) -> None:
    (run,) = grid(tmp_path, "0.05")
    assert sweep_runs.progress(run) == 0.0
    path = Path(run.folder, "epochs.jsonl")
    path.parent.mkdir(parents=True)
    path.write_text("")
    assert sweep_runs.progress(run) == 0.0
    path.write_text('{"epoch": 0}\n{"epoch": 1}\n{"epoch": 2}\n{"epoch": 3, "iter')
    assert sweep_runs.progress(run) == 3 / run.epochs


def record(run: Run, results: dict[str, Any]) -> Record:
    cfg, _ = load_config(run.config_file, run.opts)
    return Record(run, make_row(run, Provenance("0" * 12), cfg, results, {}))


def scored(run: Run, score: float, **more: Any) -> Record:
    results = {"after": {"mAP": score}, "labels": {"ari": score / 100, "clusters": 4},
               "seconds": {"train": 120.0, "labels": 60.0}, **more}  # fmt: skip
    return record(run, results)


def test_table__has_the_mean_and_spread_of_seeds(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    runs = grid(tmp_path, "0.05", "0.1", seeds=(0, 1))
    scores = [10.0, 12.0, 20.0, 20.0]
    records = [scored(run, score) for run, score in zip(runs, scores)]
    table, no_plot = write_report(records, [TAU], str(tmp_path))
    lines = table.splitlines()
    row = "CALR/baseline, TEMPERATURE"
    assert lines[0] == "| row | folds | seeds | mAP | ARI | clusters | min |"
    assert lines[2] == f"| {row} 0.05 | 1 | 2 | 11.0 ± 1.4 | 0.110 ± 0.014 | 4 ± 0 | 3.0 ± 0.0 |"
    assert lines[3].startswith(f"| {row} 0.1 | 1 | 2 | 20.0 ± 0.0 |")
    assert (tmp_path / "table.md").read_text() == table
    with open(tmp_path / "runs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["after.mAP"]) for row in rows] == scores
    assert [row["seed"] for row in rows] == ["0", "1", "0", "1"]
    with open(tmp_path / "table.csv", newline="") as file:
        assert [float(row["after.mAP mean"]) for row in csv.DictReader(file)] == [11.0, 20.0]
    assert no_plot is None
    plot = (tmp_path / "plot.svg").read_bytes()
    assert b"<svg" in plot
    write_report(records, [TAU], str(tmp_path))
    assert (tmp_path / "plot.svg").read_bytes() == plot


def test_several_test_sets_and_the_selected_round__get_columns(tmp_path: Path) -> None:
    (run,) = grid(tmp_path)
    after = {"Market1501": {"mAP": 1.0}, "DukeMTMC": {"mAP": 2.0}}
    selected = {"epoch": 3, "score": 0.5, "mAP": 4.0}
    table, _ = write_report([scored(run, 0.0, after=after, selected=selected)], [],
                            str(tmp_path))  # fmt: skip
    head, _, cells = table.splitlines()[:3]
    assert head.startswith("| row | folds | seeds | Market1501 mAP | DukeMTMC mAP | mAP selected |")
    assert cells.startswith("| CALR/baseline | 1 | 1 | 1.0 | 2.0 | 4.0 |")


def test_without_matplotlib__the_tables_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    (run,) = grid(tmp_path, "0.1")
    _, why = write_report([scored(run, 3.0)], [TAU], str(tmp_path))
    assert why is not None and "matplotlib" in why
    assert (tmp_path / "table.csv").is_file() and not (tmp_path / "plot.svg").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "x"], "one of the arguments --config-file/--config --configs --prove-equal"),
        (["--config-file", "a", "--configs", "b", "--output", "x"], "not allowed with"),
        (["--config-file", "a"], "the following arguments are required: --output"),
        (["--config-file", "a", "--output", "x", "--vary", "KEY"], "--vary KEY: at least one"),
        (["--config-file", "a", "--output", "x", "--jobs", "0"], "--jobs must be an integer >= 1"),
        (["--config-file", "a", "--output", "x", "--report-folds", "2"], "needs --folds or"),
    ],
)
def test_usage_error__is_named_with_exit_code_2(
    tool: ModuleType, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        tool.parse(arguments)
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_unknown_key__is_a_one_line_error_with_exit_code_2(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--config-file", CONFIG, "--vary", "SOLVER.MAX_EPOCHS", "1", "--output",
                 str(tmp_path)]  # fmt: skip
    assert tool.main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and "did you mean" in err and "Traceback" not in err


def test_dry_run__lists_the_runs_without_training(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--config-file", CONFIG, "--vary", TAU, "0.1", "0.2", "--set", *LIGHT[0],
                 "--output", str(tmp_path), "--dry-run"]  # fmt: skip
    assert tool.main(arguments) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2 and not list(tmp_path.iterdir())


def test_sweep__trains_evaluates_and_reports_a_grid(
    tool: ModuleType, synthetic_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("FASTREID_DATASETS", str(synthetic_root))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    options = tiny_options(SYNTHETIC, "", SOLVER__MAX_EPOCH=1)
    settings = dict(zip(options[::2], options[1::2]))
    settings.pop("OUTPUT_DIR")
    arguments = ["--config-file", str(ROOT / SYNTHETIC), "--vary", TAU, "0.05", "-3",
                 "--output", str(tmp_path)]  # fmt: skip
    for pair in settings.items():
        arguments += ["--set", *pair]
    assert tool.main(arguments) == 2  # one invalid value refuses the whole grid
    arguments[arguments.index("-3")] = "0.2"
    arguments += ["--test-settings", "plain", "centred_flip"]
    arguments += ["--rows", str(tmp_path / "rows.jsonl")]
    assert tool.main(arguments) == 0
    results = [json.loads(p.read_text()) for p in sorted(tmp_path.glob("*/results.json"))]
    assert len(results) == 2
    table = (tmp_path / "table.md").read_text()
    assert f"{results[0]['after']['mAP']:.1f}" in table
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    for row, content in zip(sorted(rows, key=lambda row: row["row"]), results):
        scores = row["scores"]
        assert row["test"] == [] and content["after"] == scores["configured"] == scores["plain"]
        assert scores["centred_flip"].keys() == scores["plain"].keys()
        assert scores["centred_flip"] != scores["plain"]
    assert "Test settings: centred_flip (TEST.CENTER_CAMERAS, TEST.FLIP)." in table

    # With the rows only, in another folder: nothing is trained, and the table is the same.
    capsys.readouterr()
    arguments[arguments.index("--output") + 1] = str(tmp_path / "elsewhere")
    assert tool.main(arguments) == 0
    assert "2 runs, of which 2 have a current row" in capsys.readouterr().out
    assert (tmp_path / "elsewhere" / "table.md").read_text() == table
    assert not list((tmp_path / "elsewhere").glob("*/results.json"))

    # Changed settings: the rows are listed as outdated and excluded from all means.
    assert tool.main([*arguments, "--set", "SOLVER.GAMMA", "0.5", "--no-training"]) == 1
    table = (tmp_path / "elsewhere" / "table.md").read_text()
    assert table.count("its settings have changed") == 2 * 3 and "| 0 | 0 |" in table
