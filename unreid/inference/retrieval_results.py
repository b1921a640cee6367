"""Top-k retrieval results as files: CSV, JSON, and one image grid per query."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

from unreid.data.folder import FolderItem
from unreid.engine.atomic import save_json
from unreid.inference.gallery import Gallery
from unreid.inference.image_grid import BLACK, Cell, draw_grid, frame_of, save_image
from unreid.inference.ranking import Hit
from unreid.inference.tables import write_csv

_WORDS = {True: "yes", False: "no", None: ""}
#: Instead of "yes" for a match that does not count, see :class:`unreid.inference.ranking.Hit`.
_OWN_CAMERA = "own camera"
_DRAWN = re.compile(r"query_\d{4,}_.*\.jpg")


def write_results(
    folder: str,
    queries: Sequence[FolderItem],
    gallery: Gallery,
    answers: Sequence[Sequence[Hit]],
    *,
    with_json: bool,
) -> list[str]:
    """Write ``ranks.csv`` and optionally ``ranks.json`` to ``folder``; return their paths.

    Gallery paths are relative to the gallery root, which ranks.json contains. Query paths are
    written as given.
    """
    entries = gallery.entries
    files = [os.path.abspath(os.path.join(folder, "ranks.csv"))]
    write_csv(
        files[0],
        ("query", "rank", "path", "camera", "similarity", "correct"),
        (
            (
                query.path,
                hit.rank,
                entries[hit.index].path,
                entries[hit.index].camera,
                f"{hit.similarity:.6f}",
                _OWN_CAMERA if hit.own_camera else _WORDS[hit.correct],
            )
            for query, hits in zip(queries, answers)
            for hit in hits
        ),
    )
    if with_json:
        files.append(os.path.abspath(os.path.join(folder, "ranks.json")))
        save_json(
            files[1],
            {
                "gallery": gallery.root,
                "model": gallery.model,
                "fingerprint": gallery.fingerprint,
                "queries": [
                    _as_json(query, hits, gallery) for query, hits in zip(queries, answers)
                ],
            },
        )
    return files


def _as_json(query: FolderItem, hits: Sequence[Hit], gallery: Gallery) -> dict[str, Any]:
    return {
        "query": query.path,
        "camera": query.camera or None,
        "id": query.pid,
        "answers": [
            {
                "rank": hit.rank,
                "path": gallery.entries[hit.index].path,
                "camera": gallery.entries[hit.index].camera,
                "id": gallery.entries[hit.index].pid,
                "similarity": round(hit.similarity, 6),
                "correct": hit.correct,
                "own_camera": hit.own_camera,
            }
            for hit in hits
        ],
    }


def draw_results(
    folder: str,
    queries: Sequence[FolderItem],
    gallery: Gallery,
    answers: Sequence[Sequence[Hit]],
) -> int:
    """Draw ``query_0000_name.jpg`` for each query; return the number of images.

    Each image shows the query in a black frame, then the top-k gallery images by rank. Images of an
    earlier call are deleted; other files in ``folder`` stay.
    """
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        if _DRAWN.fullmatch(name):
            os.remove(os.path.join(folder, name))
    for number, (query, hits) in enumerate(zip(queries, answers)):
        camera = f"cam {query.camera}" if query.camera else ""
        cells = [Cell(query.path, ("query", camera), BLACK)]
        for hit in hits:
            entry = gallery.entries[hit.index]
            cells.append(
                Cell(
                    os.path.join(gallery.root, entry.path),
                    (f"{hit.rank}: {hit.similarity:.2f}", f"cam {entry.camera}"),
                    frame_of(hit.correct),
                )
            )
        stem = os.path.splitext(os.path.basename(query.path))[0][:80]
        known = [hit.correct for hit in hits if hit.correct is not None]
        title = query.path + (f": {sum(known)} of {len(known)} correct" if known else "")
        save_image(
            draw_grid(title, cells, columns=11),
            os.path.join(folder, f"query_{number:04d}_{stem}.jpg"),
        )
    return len(queries)
