"""Arrays and labels from untrusted files."""

from __future__ import annotations

import io
import os
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unreid.reading.arrays import read_arrays, read_labels

GOOD = {
    "paths": np.array(["a.jpg", "b.jpg", "c.jpg"]),
    "camids": np.array([0, 1, 1]),
    "labels": np.array([-1, 0, 0]),
}


class Boom:
    def __reduce__(self) -> Any:
        return (os.system, ("touch pwned",))


def write(folder: Path, **changed: Any) -> Path:
    path = folder / "a.npz"
    np.savez_compressed(path, allow_pickle=True, **{**GOOD, **changed})
    return path


def packed_zeros(path: Path, count: int) -> Path:
    """Return ``count`` int64 zeros in numpy's compressed format, written in parts."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<i8", "fortran_order": False, "shape": (count,)}
    )
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("labels.npy", "w", force_zip64=True) as member,
    ):
        member.write(header.getvalue())
        for _ in range(8 * count // 2**24):
            member.write(bytes(2**24))
    return path


def test_arrays__come_by_name(tmp_path: Path) -> None:
    found = read_arrays(write(tmp_path), "labels", "camids")
    assert set(found) == {"labels", "camids"}
    np.testing.assert_array_equal(found["labels"], GOOD["labels"])


def test_pickle__is_refused_by_name_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, labels=np.array([Boom(), 1, 2], dtype=object))
    with pytest.raises(
        ValueError,
        match=r"a\.npz is not a file of arrays, or damaged \(labels holds"
        r" objects, a pickle",
    ):
        read_arrays(path, "labels")
    assert not (tmp_path / "pwned").exists()


def test_bomb__is_refused_by_its_header_before_memory_is_taken(tmp_path: Path) -> None:
    path = packed_zeros(tmp_path / "bomb.npz", 2**21)
    assert path.stat().st_size < 2**16
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"bomb\.npz .*take 16777216 bytes, and at most 8388608"):
        read_arrays(path, "labels", limit=2**23)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**21


def test_header_that_promises_more_than_there_is__is_refused(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<i8", "fortran_order": False, "shape": (1000,)}
    )
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("labels.npy", header.getvalue() + bytes(8))
    with pytest.raises(ValueError, match=r"a\.npz is not a file of arrays, or damaged"):
        read_arrays(tmp_path / "a.npz", "labels")


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04" + bytes(50)])
def test_what_is_no_archive__is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npz is not a file of arrays, or damaged"):
        read_arrays(tmp_path / "a.npz", "labels")
    with pytest.raises(FileNotFoundError, match=r"b\.npz: no such file"):
        read_arrays(tmp_path / "b.npz", "labels")


def test_missing_array__says_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must hold pairs once; found paths\.npy, camids\.npy"):
        read_arrays(write(tmp_path), "pairs")


def test_labels__come_checked(tmp_path: Path) -> None:
    found = read_labels(write(tmp_path, labels=np.array([-1, 0, 0], dtype=">i4")))
    assert found.paths == ["a.jpg", "b.jpg", "c.jpg"]
    assert found.labels.dtype == found.camids.dtype == np.int64
    assert found.labels.tolist() == [-1, 0, 0] and found.camids.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"labels": np.array([0, 1])}, r"labels must be \(3,\) integers, got int64 \(2,\)"),
        ({"labels": np.array([0.5, 1, 2])}, r"labels must be \(3,\) integers, got float64"),
        ({"labels": np.zeros((3, 3), int)}, r"labels must be \(3,\) integers"),
        ({"labels": np.array([-2, 0, 0])}, r"labels must be in -1\.\.2, got -2\.\.0"),
        ({"labels": np.array([0, 2**62, 0])}, r"labels must be in -1\.\.2"),
        ({"camids": np.array([0, 2**31, 0])}, r"camids must be in 0\.\.2"),
        ({"camids": np.array([-1, 0, 0])}, r"camids must be in 0\.\.2"),
        ({"paths": np.arange(3)}, r"paths must be \(N,\) texts, got int64"),
        ({"paths": np.array([], dtype="U1")}, r"paths must be \(N,\) texts"),
    ],
)
def test_labels__that_do_not_fit_are_refused(
    changed: dict[str, Any], why: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=rf"a\.npz is no file of labels: {why}"):
        read_labels(write(tmp_path, **changed))
