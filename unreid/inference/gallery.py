"""Gallery index: features of a folder's images, file metadata and the model fingerprint.

[0] Johnson et al., Billion-scale similarity search with GPUs, 2017, arXiv:1702.08734 (faiss).

Notation: N images, D channels, Q queries.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import faiss
import numpy as np

from unreid.checks import check_features
from unreid.cli import Progress
from unreid.data.folder import FolderItem
from unreid.data.images import UnreadableImageError
from unreid.engine.atomic import replace_file
from unreid.inference.image_input import ADVICE
from unreid.inference.predictor import Predictor
from unreid.reading.arrays import read_arrays

_FORMAT = 1
#: Header of a serialised IndexFlat: kind, D, N, two unused words, trained flag, metric, number of
#: values.
_HEADER = struct.Struct("<4siqqqBiQ")


@dataclass(frozen=True)
class Entry:
    """One embedded image.

    Attributes:
        path: Relative to the gallery's root, with forward slashes.
        camera: Camera name.
        pid: Identity, or None if unknown.
        size: File size in bytes.
        mtime: Time of the last change in nanoseconds.
        digest: Hash of the content, computed again if size or mtime have changed.
    """

    path: str
    camera: str
    pid: str | None
    size: int
    mtime: int
    digest: str


@dataclass(frozen=True)
class Changes:
    """Numbers of images changed by :meth:`Gallery.update`; ``bad``: file -> reason."""

    added: int = 0
    changed: int = 0
    removed: int = 0
    kept: int = 0
    embedded: int = 0
    bad: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Gallery:
    """Images of a folder and their features, sorted by path.

    Attributes:
        root: Absolute path of the folder.
        entries: N entries.
        features: (N, D) float32 unit rows.
        fingerprint: Fingerprint of the model (:mod:`unreid.inference.fingerprint`).
        model: Title of the model.
        reading: Source of camera and id, as arguments of
            :func:`unreid.data.folder.read_folder`; None for an index of an earlier version.
    """

    root: str
    entries: tuple[Entry, ...]
    features: np.ndarray
    fingerprint: str
    model: str
    reading: Mapping[str, Any] | None = None

    def __len__(self) -> int:
        return len(self.entries)

    @classmethod
    def empty(
        cls, root: str, predictor: Predictor, reading: Mapping[str, Any] | None = None
    ) -> Gallery:
        """Return an empty gallery."""
        features = np.zeros((0, predictor.num_features), dtype=np.float32)
        return cls(
            os.path.abspath(root), (), features, predictor.fingerprint, predictor.title, reading
        )

    @property
    def paths(self) -> list[str]:
        """Paths of the images."""
        return [os.path.join(self.root, entry.path) for entry in self.entries]

    def check_model(self, predictor: Predictor, name: str) -> None:
        """Check that the model's features are comparable with those of the gallery.

        Args:
            predictor: The model.
            name: Name of the index in the error message.

        Raises:
            ValueError: The fingerprints differ; names both models.
        """
        if predictor.fingerprint != self.fingerprint:
            raise ValueError(
                f"{name} has features of {self.model} ({self.fingerprint}), which cannot be"
                f" compared with those of {predictor.title} ({predictor.fingerprint}); use that"
                " model, or give another index file for this one"
            )

    @property
    def items(self) -> tuple[FolderItem, ...]:
        """Images as :func:`unreid.data.folder.read_folder` returns them, without tracklets."""
        return tuple(
            FolderItem(path, entry.camera, entry.pid)
            for path, entry in zip(self.paths, self.entries)
        )

    def update(
        self,
        items: Sequence[FolderItem],
        root: str,
        predictor: Predictor,
        *,
        skip_bad: bool = False,
    ) -> tuple[Gallery, Changes]:
        """Return the gallery of the current images; only new content is embedded.

        A file with a new size or time is read, and embedded again if its content has changed.
        Renamed files and copies are recognised by their content. Removed files are dropped.

        Args:
            items: Images of :func:`unreid.data.folder.read_folder`.
            root: Their folder.
            predictor: The model of the features.
            skip_bad: Exclude unreadable images and list them instead of raising an error.

        Raises:
            ValueError: The model differs.
            UnreadableImageError: An image cannot be read; names it.
        """
        self.check_model(predictor, "the gallery")
        known = {entry.path: entry for entry in self.entries}
        rows = {entry.digest: row for row, entry in enumerate(self.entries)}
        today, bad = _current_entries(items, root, known, skip_bad=skip_bad)
        # One file per new content.
        new: dict[str, str] = {}
        for entry in today:
            if entry.digest not in rows:
                new.setdefault(entry.digest, os.path.join(root, entry.path))
        embedded = predictor.embed_files(list(new.values()), skip_bad=skip_bad)
        digests = list(new)
        rows.update({digests[i]: len(self) + n for n, i in enumerate(embedded.kept.tolist())})
        readable = [entry for entry in today if entry.digest in rows]
        bad.update(
            {
                os.path.join(root, entry.path): embedded.bad[new[entry.digest]]
                for entry in today
                if entry.digest not in rows
            }
        )
        features = np.concatenate([self.features, embedded.features])
        gallery = replace(
            self,
            root=os.path.abspath(root),
            entries=tuple(readable),
            features=np.ascontiguousarray(features[[rows[entry.digest] for entry in readable]]),
        )
        before = {path: entry.digest for path, entry in known.items()}
        added = sum(entry.path not in before for entry in readable)
        same = sum(before.get(entry.path) == entry.digest for entry in readable)
        return gallery, Changes(
            added=added,
            changed=len(readable) - added - same,
            removed=len(before.keys() - {entry.path for entry in readable}),
            kept=same,
            embedded=len(embedded.kept),
            bad=bad,
        )

    def save(self, path: str) -> None:
        """Write the gallery to one npz file, atomically.

        Array ``faiss`` is a serialised IndexFlatIP for ``faiss.deserialize_index``; array ``table``
        is JSON.
        """
        index = faiss.IndexFlatIP(self.features.shape[1])
        index.add(self.features)
        table = {
            "format": _FORMAT,
            "root": self.root,
            "fingerprint": self.fingerprint,
            "model": self.model,
            "reading": self.reading,
            "entries": [asdict(entry) for entry in self.entries],
        }
        with replace_file(path) as file:
            np.savez(
                file,
                allow_pickle=False,
                faiss=faiss.serialize_index(index),
                table=np.frombuffer(json.dumps(table).encode(), dtype=np.uint8),
            )

    @classmethod
    def load(cls, path: str) -> Gallery:
        """Read a file of :meth:`save`.

        Raises:
            FileNotFoundError: The file does not exist.
            ValueError: The file is damaged, or not an index of this program.
        """
        if not os.path.isfile(path):
            raise FileNotFoundError(f"index {path}: no such file; give a gallery to create it")
        try:
            # The file is not compressed, so arrays cannot be larger than the file.
            arrays = read_arrays(path, "table", "faiss", limit=os.path.getsize(path))
            table = json.loads(arrays["table"].tobytes())
            if table["format"] != _FORMAT:
                raise ValueError(f"format {table['format']!r:.20}, known: {_FORMAT}")
            features = _features_of(arrays["faiss"])
            entries = tuple(_entry_of(entry) for entry in table["entries"])
            if len(features) != len(entries):
                raise ValueError(f"{len(features)} features of {len(entries)} images")
            names = [table[key] for key in ("root", "fingerprint", "model")]
            if not all(isinstance(name, str) and "\0" not in name for name in names):
                raise ValueError("root, fingerprint and model must be strings")
            return cls(
                names[0], entries, features, names[1], names[2], _reading_of(table.get("reading"))
            )
        except Exception as error:  # invalid JSON, or values of unexpected types
            reason = (str(error) or type(error).__name__).splitlines()[0][:200]
            raise ValueError(
                f"index {path} is damaged, or not an index of unreid search"
                f" or label ({reason}); delete it to embed the images again"
            ) from error


def _features_of(data: np.ndarray) -> np.ndarray:
    """Return the (N, D) float32 features of a serialised IndexFlatIP.

    faiss does not validate lengths of untrusted input before it allocates memory, so the bytes are
    parsed here.

    Raises:
        ValueError: The index has another type, is truncated, or has rows not of unit length.
    """
    raw = data.tobytes()
    if data.ndim != 1 or data.dtype != np.uint8 or len(raw) < _HEADER.size:
        raise ValueError("not a faiss index")
    kind, width, number, _, _, _, metric, entries = _HEADER.unpack_from(raw)
    if kind != b"IxFI" or metric != faiss.METRIC_INNER_PRODUCT:
        raise ValueError("not an IndexFlatIP of faiss")
    if (
        width < 1
        or number < 0
        or entries != width * number
        or len(raw) != _HEADER.size + 4 * entries
    ):
        raise ValueError(f"{number} x {width} features in {len(raw)} bytes")
    features = np.frombuffer(raw, "<f4", offset=_HEADER.size).reshape(number, width)
    if number:
        check_features("its features", features)
    return np.ascontiguousarray(features, dtype=np.float32)


def _reading_of(written: Any) -> dict[str, Any] | None:
    """Return the validated source of camera and id of the table.

    Raises:
        ValueError: A key is unknown, or a value is not a string or a list of strings.
    """
    if written is None:
        return None
    known = {"pattern": str, "id_pattern": str, "csv": str, "camera": str, "levels": list}
    if (
        not isinstance(written, dict)
        or any(type(value) is not known.get(key) for key, value in written.items())
        or not all(isinstance(level, str) for level in written.get("levels", ()))
    ):
        raise ValueError(f"the reading has unexpected types: {str(written)[:80]}")
    return dict(written)


def _entry_of(written: Any) -> Entry:
    """Return one validated row of the table.

    Raises:
        ValueError: A value has an unexpected type, or the path leaves the root.
    """
    entry = Entry(**written)
    path, rest = entry.path, (entry.camera, entry.digest)
    if (
        not all(isinstance(text, str) for text in (path, *rest))
        or not isinstance(entry.pid, (str, type(None)))
        or type(entry.size) is not int
        or type(entry.mtime) is not int
    ):
        raise ValueError(f"an entry has unexpected types: {str(written)[:80]}")
    if not path or "\0" in path or os.path.isabs(path) or ".." in path.split("/"):
        raise ValueError(f"a path leaves the gallery: {path[:80]!r}")
    return entry


def _current_entries(
    items: Sequence[FolderItem], root: str, known: Mapping[str, Entry], *, skip_bad: bool
) -> tuple[list[Entry], dict[str, str]]:
    """Return the entries of the current files, and path -> reason of unreadable files."""
    today, bad = [], {}
    with Progress(len(items), "content: file", terminal_only=True) as bar:
        for item in items:
            try:
                today.append(_current_entry(item, root, known))
            except OSError as error:  # no permission, or a broken link
                if not skip_bad:
                    raise UnreadableImageError(
                        f"{item.path} cannot be read ({error.strerror}); {ADVICE}"
                    ) from error
                bad[item.path] = str(error.strerror)
            bar.step()
    return today, bad


def _current_entry(item: FolderItem, root: str, known: Mapping[str, Entry]) -> Entry:
    """Return the entry of a current file; keeps the digest if size and time are unchanged."""
    path = os.path.relpath(item.path, root).replace(os.sep, "/")
    status = os.stat(item.path)
    if not stat.S_ISREG(status.st_mode):  # reading a pipe would block
        raise OSError(errno.EINVAL, "not a regular file")
    entry = known.get(path)
    if entry and (entry.size, entry.mtime) == (status.st_size, status.st_mtime_ns):
        return replace(entry, camera=item.camera, pid=item.pid)
    return Entry(
        path, item.camera, item.pid, status.st_size, status.st_mtime_ns, _digest(item.path)
    )


def _digest(path: str) -> str:
    digest = hashlib.blake2b()
    with open(path, "rb") as file:
        while block := file.read(2**20):  # constant memory
            digest.update(block)
    return digest.hexdigest()[:32]


def summary(changes: Changes) -> str:
    """Return the changes as one line."""
    numbers: list[tuple[int, Any]] = [
        (changes.added, "added"),
        (changes.changed, "changed"),
        (changes.removed, "removed"),
        (len(changes.bad), "unreadable, left out"),
    ]
    parts = ", ".join(f"{number} {word}" for number, word in numbers if number)
    return f"{parts or 'no change'}; {changes.embedded} embedded"
