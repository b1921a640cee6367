"""A gallery embedded once: a file with a faiss index, what was embedded, and by which model.

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
from unreid.data.folder import FolderItem
from unreid.data.images import UnreadableImageError
from unreid.engine.atomic import replace_file
from unreid.inference.pixels import ADVICE
from unreid.inference.predictor import Predictor
from unreid.reading.arrays import read_arrays

_FORMAT = 1
#: What faiss writes before the numbers of an IndexFlat: kind, D, N, two words that nobody reads,
#: whether it is trained, metric, numbers.
_HEADER = struct.Struct("<4siqqqBiQ")


@dataclass(frozen=True)
class Entry:
    """One embedded picture.

    Attributes:
        path: Relative to the gallery's root, forward slashes.
        camera, pid: As the folder says today; pid None where it does not.
        size, mtime: Bytes, and nanoseconds of the last change, by which a file is known.
        digest: Of its content, looked at where those two have changed.
    """

    path: str
    camera: str
    pid: str | None
    size: int
    mtime: int
    digest: str


@dataclass(frozen=True)
class Changes:
    """What :meth:`Gallery.update` did, as numbers of pictures; ``bad``: file -> why unreadable."""

    added: int = 0
    changed: int = 0
    removed: int = 0
    kept: int = 0
    embedded: int = 0
    bad: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Gallery:
    """Pictures of a folder and their features, in the order of the paths.

    Attributes:
        root: The folder, absolute.
        entries: N of them.
        features: (N, D) float32 unit rows.
        fingerprint: Of the model that made them (:mod:`unreid.inference.fingerprint`).
        model: What that model was called.
        reading: Where camera and id are written, as arguments of
            :func:`unreid.data.folder.read_folder`; None of an index that does not say.
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
        """Return a gallery without an image yet."""
        features = np.zeros((0, predictor.num_features), dtype=np.float32)
        return cls(os.path.abspath(root), (), features, predictor.fingerprint, predictor.title,
                   reading)

    @property
    def paths(self) -> list[str]:
        """Where the pictures are."""
        return [os.path.join(self.root, entry.path) for entry in self.entries]

    def check_model(self, predictor: Predictor, name: str) -> None:
        """Refuse a model whose features are not comparable with these.

        Raises:
            ValueError: names both models; ``name`` is the index.
        """
        if predictor.fingerprint != self.fingerprint:
            raise ValueError(
                f"{name} holds features of {self.model} ({self.fingerprint}), which cannot be"
                f" compared with those of {predictor.title} ({predictor.fingerprint}); take that"
                " model, or name another index file for this one"
            )

    def update(
        self, items: Sequence[FolderItem], root: str, predictor: Predictor, *,
        skip_bad: bool = False,
    ) -> tuple[Gallery, Changes]:
        """The gallery of today's pictures; only those not seen before are embedded.

        A file with another size or time is read, and embedded again if its content has changed.
        Files that were renamed, and copies, are known by their content. Files that are gone are
        dropped.

        Args:
            items: Of :func:`unreid.data.folder.read_folder`.
            root: The folder they are of.
            predictor: The model that made the features.
            skip_bad: Leave out unreadable pictures and tell of them, rather than stop.

        Raises:
            ValueError: another model; UnreadableImageError: names a picture.
        """
        self.check_model(predictor, "the gallery")
        known = {entry.path: entry for entry in self.entries}
        rows = {entry.digest: row for row, entry in enumerate(self.entries)}
        today, bad = _look_at_all(items, root, known, skip_bad=skip_bad)
        # One file of each content that was never seen.
        new: dict[str, str] = {}
        for entry in today:
            if entry.digest not in rows:
                new.setdefault(entry.digest, os.path.join(root, entry.path))
        embedded = predictor.embed_files(list(new.values()), skip_bad=skip_bad)
        digests = list(new)
        rows.update({digests[i]: len(self) + n for n, i in enumerate(embedded.kept.tolist())})
        readable = [entry for entry in today if entry.digest in rows]
        bad.update({os.path.join(root, entry.path): embedded.bad[new[entry.digest]]
                    for entry in today if entry.digest not in rows})
        features = np.concatenate([self.features, embedded.features])
        gallery = replace(
            self, root=os.path.abspath(root), entries=tuple(readable),
            features=np.ascontiguousarray(features[[rows[entry.digest] for entry in readable]]),
        )
        before = {path: entry.digest for path, entry in known.items()}
        added = sum(entry.path not in before for entry in readable)
        same = sum(before.get(entry.path) == entry.digest for entry in readable)
        return gallery, Changes(
            added=added, changed=len(readable) - added - same,
            removed=len(before.keys() - {entry.path for entry in readable}), kept=same,
            embedded=len(embedded.kept), bad=bad,
        )

    def save(self, path: str) -> None:
        """One file, written whole or not at all: numpy arrays, of which ``faiss`` is what
        ``faiss.deserialize_index`` reads (an IndexFlatIP) and ``table`` is JSON."""
        index = faiss.IndexFlatIP(self.features.shape[1])
        index.add(self.features)
        table = {"format": _FORMAT, "root": self.root, "fingerprint": self.fingerprint,
                 "model": self.model, "reading": self.reading,
                 "entries": [asdict(entry) for entry in self.entries]}
        with replace_file(path) as file:
            np.savez(file, allow_pickle=False, faiss=faiss.serialize_index(index),
                     table=np.frombuffer(json.dumps(table).encode(), dtype=np.uint8))

    @classmethod
    def load(cls, path: str) -> Gallery:
        """What :meth:`save` wrote.

        Raises:
            FileNotFoundError: no such file.
            ValueError: it is damaged, or no index of this program.
        """
        if not os.path.isfile(path):
            raise FileNotFoundError(f"index {path}: no such file; name a gallery to make it")
        try:
            # It is saved as it is, not packed: more than the file has is in no index.
            arrays = read_arrays(path, "table", "faiss", limit=os.path.getsize(path))
            table = json.loads(arrays["table"].tobytes())
            if table["format"] != _FORMAT:
                raise ValueError(f"format {table['format']!r:.20}, known: {_FORMAT}")
            features = _features_of(arrays["faiss"])
            entries = tuple(_entry_of(entry) for entry in table["entries"])
            if len(features) != len(entries):
                raise ValueError(f"{len(features)} features of {len(entries)} pictures")
            names = [table[key] for key in ("root", "fingerprint", "model")]
            if not all(isinstance(name, str) and "\0" not in name for name in names):
                raise ValueError("root, fingerprint and model must be texts")
            return cls(names[0], entries, features, names[1], names[2],
                       _reading_of(table.get("reading")))
        except Exception as error:  # JSON, and whatever the values of another kind trip over
            reason = (str(error) or type(error).__name__).splitlines()[0][:200]
            raise ValueError(f"index {path} is damaged, or no index of search.py ({reason});"
                             " delete it to embed the gallery again") from error


def _features_of(data: np.ndarray) -> np.ndarray:
    """(N, D) float32 of a serialised IndexFlatIP: read here, since faiss believes every length that
    a file gives and takes the memory for it.

    Raises:
        ValueError: another index, cut off, or rows that are not of unit length.
    """
    raw = data.tobytes()
    if data.ndim != 1 or data.dtype != np.uint8 or len(raw) < _HEADER.size:
        raise ValueError("no index of faiss")
    kind, width, number, _, _, _, metric, entries = _HEADER.unpack_from(raw)
    if kind != b"IxFI" or metric != faiss.METRIC_INNER_PRODUCT:
        raise ValueError("no IndexFlatIP of faiss")
    if width < 1 or number < 0 or entries != width * number \
            or len(raw) != _HEADER.size + 4 * entries:
        raise ValueError(f"{number} x {width} features in {len(raw)} bytes")
    features = np.frombuffer(raw, "<f4", offset=_HEADER.size).reshape(number, width)
    if number:
        check_features("its features", features)
    return np.ascontiguousarray(features, dtype=np.float32)


def _reading_of(written: Any) -> dict[str, Any] | None:
    """Where camera and id are written, of the table.

    Raises:
        ValueError: another key, or a value that is no text or list of texts.
    """
    if written is None:
        return None
    known = {"pattern": str, "id_pattern": str, "csv": str, "camera": str, "levels": list}
    if not isinstance(written, dict) or any(
            type(value) is not known.get(key) for key, value in written.items()) or not all(
            isinstance(level, str) for level in written.get("levels", ())):
        raise ValueError(f"a reading of other kinds: {str(written)[:80]}")
    return dict(written)


def _entry_of(written: Any) -> Entry:
    """One row of the table.

    Raises:
        ValueError: a value of another kind, or a path that leaves the root.
    """
    entry = Entry(**written)
    path, rest = entry.path, (entry.camera, entry.digest)
    if not all(isinstance(text, str) for text in (path, *rest)) \
            or not isinstance(entry.pid, (str, type(None))) \
            or type(entry.size) is not int or type(entry.mtime) is not int:
        raise ValueError(f"an entry of other kinds: {str(written)[:80]}")
    if not path or "\0" in path or os.path.isabs(path) or ".." in path.split("/"):
        raise ValueError(f"a path that leaves the gallery: {path[:80]!r}")
    return entry


def _look_at_all(
    items: Sequence[FolderItem], root: str, known: Mapping[str, Entry], *, skip_bad: bool
) -> tuple[list[Entry], dict[str, str]]:
    """The entries of today's files, and those that cannot be opened with the reason."""
    today, bad = [], {}
    for item in items:
        try:
            today.append(_look(item, root, known))
        except OSError as error:  # no permission, or a link that leads nowhere
            if not skip_bad:
                raise UnreadableImageError(f"{item.path} cannot be read ({error.strerror});"
                                           f" {ADVICE}") from error
            bad[item.path] = str(error.strerror)
    return today, bad


def _look(item: FolderItem, root: str, known: Mapping[str, Entry]) -> Entry:
    """The entry of a file of today: its digest is taken over where nothing tells of a change."""
    path = os.path.relpath(item.path, root).replace(os.sep, "/")
    status = os.stat(item.path)
    if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for without end
        raise OSError(errno.EINVAL, "no regular file")
    entry = known.get(path)
    if entry and (entry.size, entry.mtime) == (status.st_size, status.st_mtime_ns):
        return replace(entry, camera=item.camera, pid=item.pid)
    return Entry(path, item.camera, item.pid, status.st_size, status.st_mtime_ns,
                 _digest(item.path))


def _digest(path: str) -> str:
    digest = hashlib.blake2b()
    with open(path, "rb") as file:
        while block := file.read(2**20):  # a file of any size
            digest.update(block)
    return digest.hexdigest()[:32]


def summary(changes: Changes) -> str:
    """One line for a terminal."""
    numbers: list[tuple[int, Any]] = [
        (changes.added, "added"), (changes.changed, "changed"), (changes.removed, "gone"),
        (len(changes.bad), "unreadable, left out"),
    ]
    parts = ", ".join(f"{number} {word}" for number, word in numbers if number)
    return f"{parts or 'nothing new'}; {changes.embedded} embedded"
