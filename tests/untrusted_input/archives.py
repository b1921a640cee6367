"""Malicious arrays: label files, local labels and gallery indexes."""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from tests.untrusted_input.case import Builder, Case, copy_run
from tests.untrusted_input.damage import damage
from tests.untrusted_input.valid_files import ValidFiles


class Malicious:
    """Object whose pickle runs a command."""

    def __reduce__(self) -> Any:
        return os.system, ("touch pwned",)


def _npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=True, **arrays)
    return stream.getvalue()


def _header_says(shape: tuple[int, ...]) -> bytes:
    """Return a label file with arrays of four bytes whose headers claim ``shape``."""
    array = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        array, {"descr": "<i8", "fortran_order": False, "shape": shape}
    )
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in ("labels", "camids", "paths"):
            archive.writestr(f"{name}.npy", array.getvalue() + b"\1\2\3\4")
    return stream.getvalue()


def _zeros(gigabytes: int) -> bytes:
    """Return a label file of compressed zeros, ``gigabytes`` GB when uncompressed."""
    count = gigabytes * 2**27
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<i8", "fortran_order": False, "shape": (count,)}
    )
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("labels.npy", "w", force_zip64=True) as member:
            member.write(header.getvalue())
            for _ in range(gigabytes * 64):
                member.write(bytes(2**24))
        archive.writestr("camids.npy", header.getvalue())
        archive.writestr("paths.npy", header.getvalue())
    return stream.getvalue()


_PATHS = np.array(["a.jpg", "b.jpg", "c.jpg", "d.jpg"])
_CAMIDS, _LABELS = np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1])


def _labels(**changed: Any) -> bytes:
    return _npz(**{"paths": _PATHS, "camids": _CAMIDS, "labels": _LABELS, **changed})


def _nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


#: Name -> content of a label file.
LABELS: dict[str, bytes] = {
    "pickle": _labels(labels=np.array([Malicious(), 1, 2, 3], dtype=object)),
    "pickled_paths": _labels(paths=np.array([Malicious()] * 4, dtype=object)),
    "empty": b"",
    "text": b"no archive",
    "no_arrays": _npz(other=np.zeros(3)),
    "promises": _header_says((2**40,)),
    "promises_negative": _header_says((-5,)),
    "promises_product": _header_says((2**31, 2**31, 2**31)),
    "fractions": _labels(labels=np.array([0.5, np.nan, np.inf, 1])),
    "table": _labels(labels=np.zeros((4, 4), dtype=int)),
    "scalar": _labels(labels=np.array(3)),
    "shorter": _labels(camids=np.array([0, 1])),
    "far_cameras": _labels(camids=np.array([0, 1, 2, 2**62])),
    "minus_cameras": _labels(camids=np.array([0, -1, 2, -(2**62)])),
    "far_labels": _labels(labels=np.array([0, 2**62, 1, 5])),
    "minus_labels": _labels(labels=np.array([-2, -7, 0, 0])),
    "unsigned": _labels(labels=np.array([0, 2**64 - 1, 1, 1], dtype=np.uint64)),
    "records": _labels(labels=np.zeros(4, dtype=[("a", "<i8"), ("b", "<f4")])),
    "numbers_for_paths": _labels(paths=np.arange(4)),
    "bytes_for_paths": _labels(paths=np.array([b"a", b"b", b"c", b"d"])),
    "nobody": _labels(
        paths=np.array([], dtype="<U1"), camids=np.zeros(0, int), labels=np.zeros(0, int)
    ),
    "strange_paths": _labels(paths=np.array(["../../etc/passwd", "\0", "<script>", "\ud800"])),
    "all_noise": _labels(labels=np.full(4, -1)),
    "gaps": _labels(labels=np.array([0, 3, 3, -1])),
    "big_endian": _labels(labels=_LABELS.astype(">i4")),
}
_GOOD = ("strange_paths", "all_noise", "gaps", "big_endian")


def _labels_of_run(name: str) -> Builder:
    def build(folder: Path, valid: ValidFiles, rng: np.random.Generator) -> Case:
        return _report(folder, valid, LABELS[name], refuse=name not in _GOOD)

    return build


def _report(folder: Path, valid: ValidFiles, data: bytes, *, refuse: bool = False) -> Case:
    """Return the command ``report``, which lists label files that cannot be read."""
    run = copy_run(valid, folder)
    (run / "labels" / "epoch_001.npz").write_bytes(data)
    output = (run / "report.html", "labels/epoch_001.npz cannot be read") if refuse else None
    return Case("report", (str(run), "--no-model"), ("epoch_001",), output=output)


def _bomb(folder: Path, valid: ValidFiles, rng: np.random.Generator) -> Case:
    return _report(folder, valid, _zeros(6), refuse=True)


def _names_of_files(folder: Path, valid: ValidFiles, rng: np.random.Generator) -> Case:
    run = copy_run(valid, folder)
    data = (run / "labels" / "epoch_001.npz").read_bytes()
    for name in (
        "epoch_.npz",
        "epoch_x.npz",
        "epoch_-1.npz",
        f"epoch_{'9' * 200}.npz",
        "epoch_1e3.npz",
    ):
        (run / "labels" / name).write_bytes(data)
    return Case("report", (str(run), "--no-model"), ("epoch_",))


def mutated_labels(folder: Path, valid: ValidFiles, rng: np.random.Generator) -> Case:
    """Return a valid label file with damaged bytes."""
    good = (valid.run / "labels" / "epoch_001.npz").read_bytes()
    return _report(folder, valid, damage(good, rng))


def _local(name: str) -> Builder:
    """Return the builder of a file of local labels, which stage 2 of CALR reads."""

    def build(folder: Path, valid: ValidFiles, rng: np.random.Generator) -> Case:
        path = folder / f"{name}.npz"
        path.write_bytes(LABELS[name])
        return Case(
            "train_net",
            (
                "--config-file",
                str(valid.run / "config.yaml"),
                "CALR.LOCAL_LABELS",
                str(path),
                "CALR.REFINE.ENABLED",
                "True",
                "OUTPUT_DIR",
                str(folder / "out"),
            ),
            (path.name, "CALR."),
            True,
        )

    return build


def _parts(valid: ValidFiles) -> tuple[dict[str, Any], bytes]:
    with np.load(valid.index) as file:
        return json.loads(file["table"].tobytes()), file["faiss"].tobytes()


def _index_of(folder: Path, table: bytes, raw: bytes) -> Path:
    path = folder / "made.index"
    with open(path, "wb") as file:
        np.savez(file, table=np.frombuffer(table, np.uint8), faiss=np.frombuffer(raw, np.uint8))
    return path


def _searched(path: Path, valid: ValidFiles, *, refuse: bool = False, with_folder: bool) -> Case:
    gallery = ("--gallery", str(valid.crops)) if with_folder else ()
    return Case(
        "search",
        (
            "--run",
            str(valid.run),
            "--index",
            str(path),
            *gallery,
            "--query",
            str(valid.crops / "c0_0.jpg"),
            "--pictures",
            "--output",
            str(path.parent / "out"),
        ),
        (path.name, "cannot be read"),
        refuse,
    )


def _changed_table(**changed: Any) -> Builder:
    def build(folder: Path, valid: ValidFiles, rng: np.random.Generator) -> Case:
        table, raw = _parts(valid)
        for entry in table["entries"]:
            entry.update({k: v for k, v in changed.items() if k in entry})
        table.update({k: v for k, v in changed.items() if k in table})
        path = _index_of(folder, json.dumps(table).encode(), raw)
        return _searched(path, valid, refuse=True, with_folder=rng.random() < 0.5)

    return build


def _changed_faiss(name: str) -> Builder:
    def build(folder: Path, valid: ValidFiles, rng: np.random.Generator) -> Case:
        table, raw = _parts(valid)
        words = {
            "many": raw[:8] + struct.pack("<q", 2**40) + raw[16:],
            "wide": raw[:4] + struct.pack("<i", 2**30) + raw[8:],
            "length": raw[:37] + struct.pack("<Q", 2**39) + raw[45:],
            "cut": raw[: len(raw) // 2],
            "empty": b"",
            "kind": b"IwPQ" + raw[4:],
            "nested": b"IxMp" + raw[4:],
            "nan": raw[:45] + struct.pack("<f", float("nan")) + raw[49:],
            "long": raw[:45] + struct.pack("<f", 1e30) + raw[49:],
            "more": raw + b"more",
        }
        return _searched(
            _index_of(folder, json.dumps(table).encode(), words[name]),
            valid,
            refuse=True,
            with_folder=False,
        )

    return build


def _nested_table(folder: Path, valid: ValidFiles, rng: np.random.Generator) -> Case:
    return _searched(
        _index_of(folder, _nested(100_000), _parts(valid)[1]), valid, refuse=True, with_folder=False
    )


def _pickled_index(folder: Path, valid: ValidFiles, rng: np.random.Generator) -> Case:
    path = folder / "made.index"
    with open(path, "wb") as file:
        np.savez(
            file,
            allow_pickle=True,
            table=np.array([Malicious()], dtype=object),
            faiss=np.array([Malicious()], dtype=object),
        )
    return _searched(path, valid, refuse=True, with_folder=False)


def mutated_index(folder: Path, valid: ValidFiles, rng: np.random.Generator) -> Case:
    """Return a valid index with damaged bytes."""
    path = folder / "damaged.index"
    path.write_bytes(damage(valid.index.read_bytes(), rng))
    return _searched(path, valid, with_folder=rng.random() < 0.5)


def _valid(folder: Path, valid: ValidFiles, rng: np.random.Generator) -> Case:
    return _searched(valid.index, valid, with_folder=False)


SPECIALS: dict[str, Builder] = {
    "valid": _valid,
    **{f"labels {name}": _labels_of_run(name) for name in LABELS},
    "labels bomb of 6 GB": _bomb,
    "labels under odd names": _names_of_files,
    **{f"local labels {name}": _local(name) for name in ("pickle", "promises", "shorter", "text")},
    **{
        f"index {name}": _changed_faiss(name)
        for name in (
            "many",
            "wide",
            "length",
            "cut",
            "empty",
            "kind",
            "nested",
            "nan",
            "long",
            "more",
        )
    },
    "index that leaves its root": _changed_table(path="../../../etc/passwd.jpg"),
    "index of absolute paths": _changed_table(path="/etc/passwd.jpg"),
    "index with numbers for paths": _changed_table(path=7),
    "index with texts for sizes": _changed_table(size="many"),
    "index without entries": _changed_table(entries=[]),
    "index with a list for a root": _changed_table(root=["a"]),
    "index of another format": _changed_table(format=[1]),
    "index nested deep": _nested_table,
    "index of pickles": _pickled_index,
}
