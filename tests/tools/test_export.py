"""``unreid export``: format by suffix, missing extra, exit codes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from tests.tools.using import load_tool
from tests.unreid.inference.making import make_run


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return load_tool("export")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("export") / "run")


@pytest.mark.filterwarnings("ignore:.*deprecated.*")
def test_torchscript__is_written_and_its_largest_difference_printed(
    tool: ModuleType, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out" / "model.pt"
    assert tool.main(["--run", str(run_folder), "--output", str(output), "--check-batch", "3"]) == 0
    printed = capsys.readouterr().out
    assert f"{output}: torchscript, " in printed and "(B, 3, 64, 32) -> (B, 1280)" in printed
    assert "input: RGB, resized by Pillow to width 32, height 64, bicubic" in printed
    assert "for 3 images" in printed and output.stat().st_size > 100_000


def test_missing_extra__is_an_error_before_the_model_is_read(
    tool: ModuleType,
    run_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "no_model.pth").write_bytes(b"")
    model = ["--run", str(run_folder), "--weights", str(tmp_path / "no_model.pth")]
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *a: None if name == "onnxscript" else find(name, *a),
    )
    assert tool.main([*model, "--output", str(tmp_path / "m.onnx")]) == 2
    error = capsys.readouterr().err
    assert 'needs onnxscript: pip install "unreid[export]"' in error
    assert [path.name for path in tmp_path.iterdir()] == ["no_model.pth"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--run", "r", "--output", "m.bin"], "say --format onnx or torchscript, or end in .onnx"),
        (["--run", "r", "--output", "m.pt", "--check-batch", "0"], "--check-batch must be int"),
        (["--output", "m.pt"], "name a model"),
        (["--run", "r"], "--output"),
    ],
)
def test_usage_error__is_named_with_exit_code_2(
    tool: ModuleType, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        tool.parse(arguments)
    assert stop.value.code == 2 and words in capsys.readouterr().err
