"""Atomic writes: a file has its old or its new content, never a part of it."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from unreid.engine.atomic import replace_file, save_arrays, save_json


def test_crash_while_writing__keeps_the_earlier_file_and_no_temporary_file(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("earlier")
    with pytest.raises(KeyboardInterrupt), replace_file(str(path), "w") as file:
        file.write("half of ")
        raise KeyboardInterrupt
    assert path.read_text() == "earlier"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_full_disk__names_the_file_and_states_that_it_is_unchanged(
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
    assert "its previous content is unchanged" in str(error.value)
    assert json.loads(path.read_text()) == {"a": 1} and os.listdir(tmp_path) == ["a.json"]


def test_folder_that_cannot_be_written__names_the_file(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(OSError, match=r"could not write .*file/a.json"):
        save_json(str(blocked / "a.json"), {})


def test_save_arrays__writes_arrays_that_load_without_pickle_and_refuses_objects(
    tmp_path: Path,
) -> None:
    save_arrays(str(tmp_path / "deep" / "a.npz"), paths=np.array(["a", "b"]), labels=np.arange(2))
    with np.load(tmp_path / "deep" / "a.npz", allow_pickle=False) as file:
        assert file["paths"].tolist() == ["a", "b"] and file["labels"].dtype == np.int64
    with pytest.raises(ValueError, match=r"pickle|Object"):
        save_arrays(str(tmp_path / "b.npz"), objects=np.array([{}, None], dtype=object))
    assert not (tmp_path / "b.npz").exists()
