"""Files are the old or the new one, never half of it."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from unreid.engine.atomic import replace_file, save_arrays, save_json


def test_crash_while_writing__leaves_the_earlier_file_whole_and_nothing_beside(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("earlier")
    with pytest.raises(KeyboardInterrupt), replace_file(str(path), "w") as file:
        file.write("half of ")
        raise KeyboardInterrupt
    assert path.read_text() == "earlier"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_full_disk__names_the_file_and_says_that_the_earlier_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    save_json(str(path), {"a": 1})

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError) as error:
        save_json(str(path), {"a": 2})
    assert error.value.errno == errno.ENOSPC
    assert f"could not write {path}" in str(error.value)
    assert "No space left on device" in str(error.value)
    assert "what stood there before is untouched" in str(error.value)
    assert json.loads(path.read_text()) == {"a": 1} and os.listdir(tmp_path) == ["a.json"]


def test_folder_that_cannot_be_written__names_the_file(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(OSError, match=r"could not write .*file/a.json"):
        save_json(str(blocked / "a.json"), {})


def test_arrays__come_back_without_pickles(tmp_path: Path) -> None:
    save_arrays(str(tmp_path / "deep" / "a.npz"), paths=np.array(["a", "b"]), labels=np.arange(2))
    with np.load(tmp_path / "deep" / "a.npz", allow_pickle=False) as file:
        assert file["paths"].tolist() == ["a", "b"] and file["labels"].dtype == np.int64
    with pytest.raises(ValueError, match=r"pickle|Object"):
        save_arrays(str(tmp_path / "b.npz"), objects=np.array([{}, None], dtype=object))
    assert not (tmp_path / "b.npz").exists()
