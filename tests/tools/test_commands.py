"""The command ``unreid``: sub-commands, imports, deprecated options, outputs, own images."""

from __future__ import annotations

import importlib
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.projects.overrides import ROOT, tiny_options
from tests.projects.tiny_run import BASELINE
from unreid import commands
from unreid.cli import Parser
from unreid.commands import COMMANDS, label, train
from unreid.commands.options import check_output_file, check_output_folder
from unreid.config import load_config

HEAVY = ("torch", "fastreid", "faiss", "sklearn", "matplotlib", "scipy")
#: Sub-command -> (invalid arguments, part of the error message).
MISTAKES = {
    "train": (["--images", "no/such"], "no/such: no such folder"),
    "eval": (["--run", "no/such"], "no/such is no folder of a run"),
    "label": (["--run", "no/such", "--images", "x"], "no/such is no folder of a run"),
    "search": (["--run", "no/such", "--gallery", "x", "--query", "y"], "is no folder of a run"),
    "report": (["no/such"], "no/such: no such folder; name the OUTPUT_DIR of a training"),
    "check": (["no/such", "--min-images", "-1"], "--min-images must be an integer >= 0"),
    "export": (["--run", "no/such", "--output", "m.pt"], "no/such is no folder of a run"),
    "demo": (["--sede", "1"], "unknown option --sede; did you mean '--seed'?"),
    "env": (["--all"], "unknown option --all"),
    "show-pairs": (["--weights", "w"], "required"),
    "synthesize": ([], "nothing to do"),
    "sweep": (["--config", "CALR/market", "--output", "o", "--jobs", "0"], "--jobs must be"),
}


def module_of(name: str) -> str:
    return f"unreid.commands.{name.replace('-', '_')}"


def run_and_list(arguments: list[str]) -> tuple[int, str, list[str], float]:
    """Return exit code, output, the imported libraries of :data:`HEAVY`, and CPU seconds."""
    code = (
        "import sys\nfrom unreid.commands import main\n"
        "try:\n    code = main(sys.argv[1:])\nexcept SystemExit as end:\n    code = end.code\n"
        f"sys.stderr.write('\\nLOADED ' + ' '.join(m for m in {HEAVY!r} if m in sys.modules))\n"
        "sys.exit(code)\n"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=300,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    errors, _, loaded = done.stderr.partition("\nLOADED ")
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.returncode, done.stdout + errors, loaded.split(), seconds


def test_every_module__is_a_command_with_a_parser_and_an_example() -> None:
    shared = {"options", "images", "own_images", "gallery_index", "__init__"}
    found = {p.stem for p in (ROOT / "unreid" / "commands").glob("*.py")} - shared
    assert found == {name.replace("-", "_") for name in COMMANDS}
    for name in COMMANDS:
        parser = importlib.import_module(module_of(name)).build_parser()
        assert isinstance(parser, Parser) and parser.prog == f"unreid {name}"
        assert f"unreid {name}" in parser.format_help().partition("example:\n")[2]
        assert name in commands.usage()


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_and_errors__import_no_heavy_library_and_take_half_a_second(name: str) -> None:
    code, text, loaded, seconds = run_and_list([name, "--help"])
    assert (code, loaded) == (0, []) and "example:" in text and seconds < 0.5
    arguments, words = MISTAKES[name]
    code, text, loaded, seconds = run_and_list([name, *arguments])
    assert (code, loaded) == (2, []) and words in text and seconds < 0.5
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--help"], 0, "unreid COMMAND --help has options and an example"),
        (["--version"], 0, "unreid 0."),
        ([], 2, "unreid: error: name a command"),
        (["lable"], 2, "unreid: error: unknown command 'lable'; did you mean 'label'?"),
    ],
)
def test_command_name__is_required_and_misspellings_get_a_suggestion(
    arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commands.main(arguments) == code
    printed = capsys.readouterr()
    assert words in printed.out + printed.err


def test_python_m_unreid__is_the_same_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "unreid", "--help"],
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 0 and done.stdout == commands.usage()
    project = (ROOT / "pyproject.toml").read_text()
    assert re.search(r'^unreid = "unreid.commands:main"$', project, re.MULTILINE)


def test_import_unreid__imports_no_heavy_library_and_fastreid_can_be_imported_after() -> None:
    code = (
        "import sys, unreid\n"
        f"assert not [m for m in {HEAVY!r} if m in sys.modules]\n"
        "import fastreid.config\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, check=True, timeout=300)


@pytest.mark.parametrize(
    ("command", "earlier", "option", "others"),
    [
        ("label", "--pattern", "--camera-pattern", ["--run", "r", "--images", "i"]),
        (
            "search",
            "--pattern",
            "--camera-pattern",
            ["--run", "r", "--gallery", "g", "--query", "q"],
        ),
        ("check", "--root", "--images", []),
        ("check", "--pattern", "--camera-pattern", ["--images", "i"]),
        ("report", "--out", "--output", ["r"]),
        ("demo", "--out", "--output", []),
        ("synthesize", "--out", "--output", []),
        (
            "show-pairs",
            "--images",
            "--max-images",
            ["--config-file", "c", "--weights", "w", "--output", "o"],
        ),
    ],
)
def test_deprecated_option__has_the_same_effect_and_warns(
    command: str, earlier: str, option: str, others: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    parse = importlib.import_module(module_of(command)).parse
    value = {"--pattern": "c([0-9])", "--images": "7"}.get(earlier, "x")
    for spelt in ([earlier, value], [f"{earlier}={value}"]):
        assert vars(parse([*others, *spelt])) == vars(parse([*others, option, value]))
        err = capsys.readouterr().err
        assert f"warning: {earlier} is deprecated, use {option};" in err and err.count("\n") == 1
    help_text = importlib.import_module(module_of(command)).build_parser().format_help()
    assert not re.search(rf"{earlier}\b(?!-)", help_text) or command == "show-pairs"


def test_options_of_one_name__have_one_type_in_all_commands() -> None:
    """Action and type are equal in all commands that have the option."""
    kinds: dict[str, set[tuple[str, object]]] = {}
    for name in COMMANDS:
        parser = importlib.import_module(module_of(name)).build_parser()
        for action in parser._actions:
            for option in action.option_strings:
                if option.startswith("--") and option not in ("--help", "--output"):
                    kind = (type(action).__name__, action.type)
                    kinds.setdefault(option, set()).add(kind)
    assert {option: kind for option, kind in kinds.items() if len(kind) > 1} == {}
    assert not {"--out", "--root", "--pattern"} & kinds.keys()


def test_label_methods__equal_those_of_the_library() -> None:
    from unreid.inference.labelling import AUTO, DEFAULT
    from unreid.labels.clusterers import CLUSTERER_REGISTRY, parameters

    assert (label.DEFAULT, label.AUTO) == (DEFAULT, AUTO)
    found = {
        name: (CLUSTERER_REGISTRY.get(name).summary, dict(parameters(name)))
        for name in CLUSTERER_REGISTRY
    }
    assert found == label.METHODS


def test_export_formats__equal_those_of_the_library() -> None:
    from unreid.commands import export
    from unreid.inference.export import KINDS

    assert export.KINDS == KINDS and set(export.SUFFIXES.values()) == set(KINDS)


def test_sweep_settings__equal_those_of_the_library() -> None:
    from unreid.commands import sweep
    from unreid.sweep.rows import TEST_SETTINGS

    assert sorted(TEST_SETTINGS) == list(sweep.TEST_SETTINGS)


@pytest.mark.parametrize(
    ("check", "path", "words"),
    [
        (check_output_file, "folder", "must be a file, and this is a folder"),
        (check_output_file, "new/", "must be a file, and this is a folder"),
        (check_output_file, "file/labels.csv", "is a file, no folder"),
        (check_output_file, "locked/a/labels.csv", "cannot be written to"),
        (check_output_folder, "file", "must be a folder, and this is a file"),
        (check_output_folder, "file/out", "is a file, no folder"),
        (check_output_folder, "locked/out", "cannot be written to"),
    ],
)
def test_output_path__that_cannot_be_written_is_a_usage_error(
    check: object,
    path: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "locked").mkdir()
    (tmp_path / "file").touch()
    real = label.os.access
    monkeypatch.setattr("os.access", lambda p, mode: "locked" not in str(p) and real(p, mode))
    with pytest.raises(SystemExit) as stop:
        check(Parser(prog="x"), "--output", f"{tmp_path}/{path}")  # type: ignore[operator]
    err = capsys.readouterr().err
    assert stop.value.code == 2 and words in err and "--output" in err


@pytest.mark.parametrize("path", ["", "new/labels.csv", "folder/labels.csv"])
def test_output_path__that_can_be_written_is_accepted_and_not_created(
    path: str, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    check_output_file(Parser(prog="x"), "--output", path and f"{tmp_path}/{path}")
    check_output_folder(Parser(prog="x"), "--output", path and f"{tmp_path}/folder")
    assert [p.name for p in tmp_path.rglob("*")] == ["folder"]


@pytest.mark.parametrize("name", ["label", "search", "export", "report"])
def test_output_of_the_wrong_kind__is_refused_by_every_command(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    output = tmp_path / "file" if name == "search" else tmp_path
    export = ["--run", "r", "--format", "onnx"]
    others = {
        "label": ["--run", "r", "--images", "i"],
        "export": export,
        "search": ["--run", "r", "--gallery", "g", "--query", "q"],
        "report": ["r"],
    }[name]
    with pytest.raises(SystemExit) as stop:
        importlib.import_module(module_of(name)).parse([*others, "--output", str(output)])
    assert stop.value.code == 2 and "--output" in capsys.readouterr().err


# --- own images ---


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    from unreid.commands import synthesize

    folder = tmp_path / "my shop"
    assert (
        synthesize.main(
            [
                "--as-folder",
                str(folder),
                "--identities",
                "6",
                "4",
                "--cameras",
                "3",
                "--images-per-identity",
                "6",
            ]
        )
        == 0
    )
    return folder


@pytest.mark.parametrize(
    ("options", "tests"),
    [
        (["--camera-pattern", "cam([0-9]+)"], ()),
        (["--camera-pattern", "cam{camera}/person{id}_*"], ("Folder",)),
        (["--camera-pattern", "cam([0-9]+)", "--id-pattern", "person([0-9]+)"], ("Folder",)),
        (["--camera", "subfolder", "--id-pattern", "person{id}_*"], ("Folder",)),
    ],
)
def test_own_images__set_the_config_keys_of_the_folder_dataset(
    shop: Path, options: list[str], tests: tuple[str, ...]
) -> None:
    args = train.parse(["--images", str(shop), *options, "--config", "CALR/synthetic"])
    train.resolve(args)
    cfg, project = load_config(args.config_file, args.opts)
    assert project.name == "CALR" and cfg.OUTPUT_DIR == "runs/my shop"
    assert cfg.DATASETS.NAMES == ("Folder",) and tests == cfg.DATASETS.TESTS
    assert str(shop) == cfg.UNSUP.FOLDER.ROOT
    from unreid.data.unlabelled import load_training_images

    images, _ = load_training_images(cfg.DATASETS.NAMES, cfg=cfg)
    assert len(images.cameras) == 3


def test_own_images__use_the_recommended_config_by_default(shop: Path) -> None:
    args = train.parse(["--images", str(shop), "--output", "o", "--device", "cpu", "A.B", "1"])
    train.resolve(args)
    assert args.config_file.endswith("projects/CALR/configs/market_plus.yml")
    assert args.opts[-6:] == ["OUTPUT_DIR", "o", "MODEL.DEVICE", "cpu", "A.B", "1"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--config", "CALR/market", "--id-pattern", "p([0-9])"],
            "--id-pattern goes with --images",
        ),
        (["--images", "x", "--camera-pattern", "("], "must be a regular expression, or a plain"),
        (["--images", "x", "--camera-pattern", "cam"], "must have a group (?P<camera>...)"),
    ],
)
def test_own_images__invalid_options_are_usage_errors(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        train.parse(arguments)
    assert words in capsys.readouterr().err


def test_slow_pattern_of_a_config__is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ("a" * 40 + ".jpg")).touch()
    opts = tiny_options(
        BASELINE,
        tmp_path / "run",
        DATASETS__NAMES="('Folder',)",
        DATASETS__TESTS="()",
        UNSUP__FOLDER__ROOT=tmp_path,
        UNSUP__FOLDER__PATTERN="(a+)+(?P<camera>b)$",
    )
    assert train.main(["--config-file", str(ROOT / BASELINE), *opts]) == 2
    err = capsys.readouterr().err
    assert "takes too long to search" in err and "(a+)+(?P<camera>b)$" in err
    assert not (tmp_path / "run").exists()


def test_training__prints_one_line_per_epoch_and_a_table_without_duplicates(
    shop: Path, tmp_path: Path
) -> None:
    """In a separate process, because log handlers of other trainings would print, too."""
    output = tmp_path / "run"
    tiny = tiny_options(BASELINE, output, SOLVER__MAX_EPOCH=2, UNSUP__EVAL_BEFORE=True)
    opts = [
        w
        for k, v in zip(tiny[::2], tiny[1::2])
        if not k.startswith("DATASETS.") and k != "OUTPUT_DIR"
        for w in (k, v)
    ]
    command = [
        sys.executable,
        "-m",
        "unreid",
        "train",
        "--images",
        str(shop),
        "--camera-pattern",
        "cam{camera}/person{id}_*",
        "--config",
        str(ROOT / BASELINE),
        "--output",
        str(output),
        *opts,
    ]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=500)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line]
    assert len(lines) == len(set(lines)), "no line twice"
    epochs = [line for line in lines if line.startswith("epoch ")]
    assert [line.split(":")[0] for line in epochs] == ["epoch 1/2", "epoch 2/2"]
    for line in epochs:
        assert re.search(r"\d+ clusters, noise [\d.]+ %, F [\d.]+, ARI -?[\d.]+, loss [\d.]+", line)
        assert re.search(r"\d+ s\b", line)
    assert re.search(r" s left$", epochs[0]) and "left" not in epochs[1]
    assert re.search(r"^mAP +[\d.]+ +[\d.]+ +-?[\d.]+$", done.stdout, re.MULTILINE)
    assert lines[0].startswith("CALR on ") and str(output / "results.json") in done.stdout
    assert len(lines) < 20, "everything else is in log.txt"
    log = (output / "log.txt").read_text()
    assert "Labels of epoch 1" in log and "Full config" in log
    assert "scratch" not in log and "scratch" not in done.stdout
