"""Compatibility workarounds for fast-reid 1.4.0."""

from __future__ import annotations

import importlib
import importlib.metadata
import subprocess
import sys
import types
import warnings
from pathlib import Path

import pytest

from tests.projects.overrides import ROOT
from unreid import compat


def fresh(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_fastreid__imports_in_a_fresh_interpreter_after_unreid() -> None:
    done = fresh(
        "import unreid, sys; assert 'torch' not in sys.modules and 'fastreid' not in"
        " sys.modules; import fastreid.engine, fastreid.data, fastreid.evaluation"
    )
    assert done.returncode == 0, done.stderr


def reapply(monkeypatch: pytest.MonkeyPatch, version: str) -> list[warnings.WarningMessage]:
    monkeypatch.setattr(compat, "_applied", False)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        compat.apply()
        compat.apply()
    return caught


def test_unknown_version__warns_once_and_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caught = reapply(monkeypatch, "1.5.0")
    assert len(caught) == 1
    message = str(caught[0].message)
    assert "fastreid 1.5.0 is not a version that unreid knows (1.4.0)" in message
    assert "pip install --no-deps fastreid==1.4.0" in message


def test_known_version__does_not_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    assert reapply(monkeypatch, "1.4.0") == []


def test_affine__of_fastreid_works_on_torchvision_of_today() -> None:
    from fastreid.data.transforms import build_transforms
    from PIL import Image

    from tests.projects.tiny_run import BASELINE, load_tiny

    compat.rebind()
    cfg, _ = load_tiny(BASELINE, INPUT__AFFINE__ENABLED=True)
    out = build_transforms(cfg, is_train=True)(Image.new("RGB", (32, 64)))
    assert out.shape == (3, 64, 32)


def stub_download(monkeypatch: pytest.MonkeyPatch, fail: Exception | None) -> None:
    def download(url: str, path: str, progress: bool = True) -> None:
        Path(path).write_bytes(b"half")
        if fail:
            raise fail

    monkeypatch.setattr("torch.hub.download_url_to_file", download)


def test_failed_download__says_which_file_to_put_where(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    target = str(tmp_path / "resnet50.pth")
    stub_download(monkeypatch, OSError("no route to host"))
    with pytest.raises(RuntimeError) as error:
        compat._download("https://example.org/resnet50.pth", target)
    message = str(error.value)
    assert "https://example.org/resnet50.pth (no route to host)" in message
    assert f"put that file at {target}" in message
    assert "MODEL.BACKBONE.PRETRAIN_PATH" in message
    assert not Path(target).exists(), "half a file would be taken for the whole one next time"


def test_download__that_works_gives_the_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stub_download(monkeypatch, None)
    target = str(tmp_path / "w.pth")
    assert compat._download("https://example.org/w.pth", target) == target


def test_google_drive__names_gdown_and_the_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"pip install gdown, or put that file at .*w.pth"):
        compat._download("https://drive.google.com/uc?id=1", str(tmp_path / "w.pth"))


def test_gdown__of_the_user_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    own = types.ModuleType("gdown")
    monkeypatch.setitem(sys.modules, "gdown", own)
    reapply(monkeypatch, "1.4.0")
    assert sys.modules["gdown"] is own


#: Hides fastreid as if it were not installed.
HIDE = """
import importlib.machinery, importlib.metadata, sys
class Hide(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, *given):
        return None if name.split(".")[0] == "fastreid" else super().find_spec(name, *given)
sys.meta_path[sys.meta_path.index(importlib.machinery.PathFinder)] = Hide
version = importlib.metadata.version
def hidden(name):
    if name == "fastreid":
        raise importlib.metadata.PackageNotFoundError(name)
    return version(name)
importlib.metadata.version = hidden
"""


def without_fastreid(code: str) -> subprocess.CompletedProcess[str]:
    return fresh(f"{HIDE}\n{code}")


def test_missing_fastreid__is_named_with_the_line_that_installs_it() -> None:
    done = without_fastreid("import unreid.graph, unreid.clustering\nimport unreid.config")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last == (
        "ModuleNotFoundError: unreid needs fastreid, which is not installed:"
        " pip install --no-deps fastreid==1.4.0"
    )


def test_missing_fastreid__ends_a_command_with_one_sentence() -> None:
    done = without_fastreid(
        "import runpy, sys; sys.argv = ['train', '--config-file', 'CALR/market']\n"
        "runpy.run_path('tools/train_net.py', run_name='__main__')"
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.startswith("error: unreid needs fastreid, which is not installed: pip")


def test_missing_fastreid__leaves_the_environment_report() -> None:
    done = without_fastreid("import unreid.env; unreid.env.main([])")
    assert done.returncode == 0, done.stderr
    assert "not installed: pip install --no-deps fastreid==1.4.0" in done.stdout


def test_other_modules_that_are_missing__keep_the_error_of_python() -> None:
    with pytest.raises(ModuleNotFoundError, match="No module named 'fastreid_of_nobody'"):
        importlib.import_module("fastreid_of_nobody")
