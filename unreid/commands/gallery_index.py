"""Gallery index of a search: creation, update, and checks of model, folder and options."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from unreid.cli import warn
from unreid.commands.images import read_images
from unreid.commands.options import given_reading, reading_of
from unreid.data.folder import SINGLE_CAMERA, check_path_settings

if TYPE_CHECKING:
    from unreid.inference.gallery import Gallery
    from unreid.inference.predictor import Predictor


def open_gallery(args: Any, predictor: Predictor) -> Gallery:
    """Return the gallery of the index and today's folder; write the index if anything changed.

    Raises:
        FileNotFoundError: no index, and no gallery to make it of.
        ValueError: an index of another model, of another folder (without ``--gallery-moved``), or
            whose cameras are read in another way than the options say.
    """
    from dataclasses import replace

    from unreid.inference.gallery import Gallery, summary

    there = bool(args.index) and os.path.isfile(args.index)
    if there or not args.gallery:
        gallery = Gallery.load(args.index)
        gallery.check_model(predictor, f"index {args.index}")
        reading = agreed_reading(args, gallery)
        gallery = replace(gallery, reading=reading)
        if not args.gallery:
            return gallery
        check_root(args, gallery)
    else:
        reading = normalised(reading_of(args))
        gallery = Gallery.empty(args.gallery, predictor, reading)
    before = gallery
    items = read_images(args.gallery, reading)
    gallery, changes = gallery.update(items, args.gallery, predictor, skip_bad=args.skip_bad)
    for path, reason in changes.bad.items():
        sys.stderr.write(f"left out: {path} ({reason})\n")
    print(f"gallery: {len(gallery)} images; {summary(changes)}")
    if args.index:
        if gallery.entries != before.entries or gallery.root != before.root or not there:
            gallery.save(args.index)
        size = os.path.getsize(args.index) / 2**20
        print(f"index: {os.path.abspath(args.index)} ({size:.1f} MiB)")
    return gallery


def normalised(reading: Mapping[str, Any]) -> dict[str, Any]:
    """Return a reading in the one form that two are compared in; as JSON keeps it."""
    source, _, _ = check_path_settings(**reading)
    return {
        **reading,
        "camera": source,
        "levels": list(reading["levels"]) if source == "subfolder" else ["camera"],
    }


def agreed_reading(args: Any, gallery: Gallery) -> dict[str, Any]:
    """Return the source of cameras and ids: that of the index, or of the options.

    Raises:
        ValueError: the options contradict the index, or neither of them says it.
    """
    given, asked = given_reading(args), normalised(reading_of(args))
    if gallery.reading is None:  # made by an earlier version
        if not given and args.gallery and any(e.camera != SINGLE_CAMERA for e in gallery.entries):
            raise ValueError(
                f"index {args.index} has cameras and does not say where they are"
                " written: give the --camera-pattern (or --csv, --camera) that it was"
                " made with"
            )
        return asked
    kept = dict(gallery.reading)
    if not given or asked == kept:
        return kept
    if kept == normalised(
        {**reading_of(args), "pattern": "", "id_pattern": "", "csv": "", "camera": ""}
    ):
        if args.gallery:
            warn(
                f"index {args.index} was made without {', '.join(given)}; cameras and ids are read"
                " anew"
            )
        return asked
    said = ", ".join(
        f"{name} {kept[name]!r}"
        for name in ("pattern", "id_pattern", "csv", "camera")
        if kept[name]
    )
    raise ValueError(
        f"index {args.index} was made with {said}, and {', '.join(given)} of this"
        " command contradict it: leave them out, or name another index file"
    )


def check_root(args: Any, gallery: Gallery) -> None:
    """Refuse another folder, whose update would drop every image of the index.

    Raises:
        ValueError: names both folders.
    """
    if args.gallery_moved or os.path.realpath(args.gallery) == os.path.realpath(gallery.root):
        return
    raise ValueError(
        f"index {args.index} is of the folder {gallery.root}, and --gallery is"
        f" {os.path.abspath(args.gallery)}: name another index file for it; if the folder was moved"
        " there, add --gallery-moved"
    )
