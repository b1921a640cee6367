"""``unreid check``: table, problems found, exit code, and the suggested next command."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.projects.overrides import ROOT, tiny_options
from tests.projects.tiny_run import BASELINE
from unreid.commands import train
from unreid.config import load_config
from unreid.data.unlabelled import load_training_images

CONFIG = ["--config-file", str(ROOT / BASELINE)]
NAMES = "('Folder',)"
PATTERN = r"_c(?P<camera>\d)s"
WITH_IDS = r"(?P<id>\d{4})_c(?P<camera>\d)s"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    path = list(sys.path)
    spec = importlib.util.spec_from_file_location("check_data", ROOT / "tools" / "check_data.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path[:] = path
    return module


@pytest.fixture
def folder(synthetic_root: Path, tmp_path: Path) -> Path:
    """Copy 72 synthetic images of 8 identities and 3 cameras, for a test to break."""
    return Path(
        shutil.copytree(
            synthetic_root / "Market-1501-v15.09.15/bounding_box_train", tmp_path / "my images"
        )
    )


def first(folder: Path) -> Path:
    return sorted(folder.glob("*.jpg"))[0]


def test_valid_folder__prints_a_table_and_a_next_command_with_exit_code_0(
    tool: ModuleType, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool.main(["--root", str(folder), "--pattern", WITH_IDS]) == 0
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines()]
    assert ["all", "all", "72", "8", "-", "64", "128", "0"] in rows
    assert {"1", "2", "3"} == {r[1] for r in rows if r[:1] == ["all"]} - {"all"}
    assert "72 files read in" in out and "\nno error\n" in out
    suggested = shlex.split(out.split("to train on it: ")[1])
    assert suggested[:2] == ["unreid", "train"]
    args = train.parse(
        [
            *suggested[2:],
            *CONFIG,
            *tiny_options(BASELINE, "unused", DATASETS__NAMES=NAMES, DATASETS__TESTS=NAMES),
        ]
    )
    train.resolve(args)
    cfg, _ = load_config(args.config_file, args.opts)
    assert cfg.DATASETS.NAMES == cfg.DATASETS.TESTS == ("Folder",)
    assert len(load_training_images(cfg.DATASETS.NAMES, cfg=cfg)[0]) == 54


def test_folder_without_ids__suggests_training_without_evaluation(
    tool: ModuleType, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool.main(["--root", str(folder), "--pattern", PATTERN]) == 0
    suggested = capsys.readouterr().out.split("to train on it: ")[1]
    assert "without evaluation: no identity is seen by two cameras" in suggested
    command = shlex.split(suggested.partition("  (")[0])
    args = train.parse(command[2:])
    train.resolve(args)
    assert args.opts[args.opts.index("DATASETS.TESTS") + 1] == "()"


def test_truncated_image__is_named_with_exit_code_1(
    tool: ModuleType, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = first(folder)
    broken.write_bytes(broken.read_bytes()[:300])
    assert tool.main(["--root", str(folder), "--pattern", PATTERN]) == 1
    out = capsys.readouterr().out
    assert f"error: 1 unreadable: {broken} (" in out and "1 error found" in out
    assert "to train on it" not in out


def test_copies_and_cameras_with_few_images__are_warnings_with_exit_code_0(
    tool: ModuleType, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(first(folder), folder / "copy_c1s.JPG")
    assert tool.main(["--root", str(folder), "--pattern", PATTERN, "--min-images", "1000"]) == 0
    out = capsys.readouterr().out
    assert "warning: 1 exact copies of 1 images" in out
    assert "warning: 3 cameras have fewer than 1000 training images" in out


def test_folder_without_a_camera_option__gives_a_warning_and_suggests_a_pattern(
    tool: ModuleType, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool.main(["--root", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "all training images are of one camera" in out and "hint: --camera-pattern '" in out
    suggested = out.split("hint: --camera-pattern '")[1].split("'")[0]
    assert tool.main(["--root", str(folder), "--pattern", suggested]) == 0
    assert "one camera" not in capsys.readouterr().out


@pytest.mark.parametrize(("with_val", "number"), [(False, 6), (True, 8)])
def test_train_with_val__counts_the_validation_images_of_msmt17_as_training_images(
    tool: ModuleType, msmt17: Path, with_val: bool, number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    options = tiny_options(
        BASELINE,
        "unused",
        UNSUP__TRAIN_WITH_VAL=with_val,
        DATASETS__NAMES="('MSMT17',)",
        DATASETS__TESTS="('MSMT17',)",
    )
    tool.main([*CONFIG, *options])
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines()]
    assert sum(int(row[2]) for row in rows if row[:1] == ["train"]) == number
    total = str(number + 4)
    assert [row[2] for row in rows if row[:2] == ["all", "all"]] == [total]
    assert f"{total} files read in" in out


def test_train_with_val__is_an_error_without_validation_images(
    tool: ModuleType, synthetic_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.environ["FASTREID_DATASETS"] = str(synthetic_root)
    assert tool.main([*CONFIG, *tiny_options(BASELINE, "unused", UNSUP__TRAIN_WITH_VAL=True)]) == 1
    assert "TRAIN_WITH_VAL must be False for Market1501" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--camera-pattern", "c(?P<camera>x)"], "does not match the pattern"),
        (["--camera-pattern", "c1"], "pattern must have a group (?P<camera>...)"),
        (["--camera", "subfolder"], "is in 0 sub-folders"),
        (["--csv", "nope.csv"], "nope.csv: no such CSV"),
        (["--camera", "subfoldr"], "did you mean 'subfolder'"),
    ],
)
def test_folder_that_cannot_be_listed__is_a_one_line_error_with_exit_code_1(
    tool: ModuleType,
    folder: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert tool.main([str(folder), *arguments]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ") and message in err and "Traceback" not in err


def test_missing_and_empty_folders__are_errors(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool.main(["--root", str(tmp_path / "nowhere")]) == 1
    assert "nowhere: no such folder" in capsys.readouterr().err
    assert tool.main(["--root", str(tmp_path)]) == 1
    assert "error: no image found (jpg" in capsys.readouterr().out


def test_csv__reports_images_that_it_does_not_list_and_paths_outside_the_folder(
    tool: ModuleType, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = sorted(p.name for p in folder.glob("*.jpg"))
    (folder / "list.csv").write_text(
        "path,camera\n" + "".join(f"{name},{name[6]}\n" for name in names[:40])
    )
    assert tool.main(["--root", str(folder), "--csv", "list.csv"]) == 0
    out = capsys.readouterr().out
    assert "40 files read" in out and "note: 32 images below" in out
    (folder / "list.csv").write_text(f"path,camera\n../{folder.name}/{names[0]},1\n")
    assert tool.main(["--root", str(folder), "--csv", "list.csv"]) == 1
    assert "list.csv line 2: " in capsys.readouterr().err


def test_config__checks_training_and_test_images(
    tool: ModuleType, synthetic_root: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.environ["FASTREID_DATASETS"] = str(synthetic_root)
    assert tool.main([*CONFIG, *tiny_options(BASELINE, "unused")]) == 0
    rows = [line.split()[:3] for line in capsys.readouterr().out.splitlines()]
    assert {"train", "query", "gallery"} <= {row[0] for row in rows if row}
    own = tiny_options(
        BASELINE,
        "unused",
        DATASETS__NAMES="('Folder',)",
        DATASETS__TESTS="()",
        UNSUP__FOLDER__ROOT=folder,
        UNSUP__BAD_IMAGE="skip",
        UNSUP__FOLDER__PATTERN=PATTERN,
    )
    first(folder).write_bytes(b"")
    assert tool.main([*CONFIG, *own]) == 0
    assert "skipped by UNSUP.BAD_IMAGE skip" in capsys.readouterr().out


def test_invalid_setting_of_a_config__has_exit_code_2(
    tool: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool.main([*CONFIG, "UNSUP.FOLDER.ROT", "x"]) == 2
    assert "did you mean 'UNSUP.FOLDER.ROOT'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "one of the arguments --images --config-file/--config is required"),
        (
            ["--images", "a", "--id-patern", "b"],
            "unknown option --id-patern; did you mean '--id-pattern'?",
        ),
        (["--root", "a", "A.B", "1"], "KEY VALUE pairs (A.B ...) go with --config"),
        ([*CONFIG, "--csv", "a.csv"], "with --config, name the folder by UNSUP.FOLDER.ROOT"),
    ],
)
def test_usage_error__is_named_with_exit_code_2(
    tool: ModuleType, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        tool.main(arguments)
    assert stop.value.code == 2 and message in capsys.readouterr().err
