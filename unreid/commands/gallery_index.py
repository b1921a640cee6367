"""Create, update and validate the gallery index of a search."""

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


def open_gallery(
    args: Any, predictor: Predictor, option: str = "gallery"
) -> tuple[Gallery, Predictor]:
    """Return the gallery of the index, updated from the folder; write the index if it changed.

    Args:
        args: The command line; ``--index``, ``--skip-bad`` and the folder options are read.
        predictor: The model given by the options.
        option: Destination of the folder option, ``"gallery"`` or ``"images"``. With
            ``--gallery-moved`` or ``--images-moved`` the index may have another folder.

    Returns:
        The gallery, and the model that computes its features. This is ``predictor``, with the flip
        augmentation of the index unless ``--flip`` or ``--no-flip`` is given.

    Raises:
        FileNotFoundError: The index does not exist, and no folder is given to create it from.
        ValueError: The index has another model or folder, or its folder options contradict those
            of the command line.
    """
    from dataclasses import replace

    from unreid.inference.gallery import Gallery, summary

    folder = getattr(args, option)
    there = bool(args.index) and os.path.isfile(args.index)
    if there or not folder:
        gallery = Gallery.load(args.index)
        predictor = agreed_flip(args, predictor, gallery)
        gallery.check_model(predictor, f"index {args.index}")
        reading = agreed_reading(args, gallery, folder)
        gallery = replace(gallery, reading=reading)
        if not folder:
            return gallery, predictor
        check_root(args, gallery, option)
    else:
        reading = normalised(reading_of(args))
        gallery = Gallery.empty(folder, predictor, reading)
    before = gallery
    items = read_images(folder, reading)
    gallery, changes = gallery.update(items, folder, predictor, skip_bad=args.skip_bad)
    for path, reason in changes.bad.items():
        sys.stderr.write(f"left out: {path} ({reason})\n")
    if args.index or option == "gallery":
        print(f"{option}: {len(gallery)} images; {summary(changes)}")
    if args.index:
        if gallery.entries != before.entries or gallery.root != before.root or not there:
            gallery.save(args.index)
        size = os.path.getsize(args.index) / 2**20
        print(f"index: {os.path.abspath(args.index)} ({size:.1f} MiB)")
    return gallery, predictor


def agreed_flip(args: Any, predictor: Predictor, gallery: Gallery) -> Predictor:
    """Return the model with the flip augmentation of the index, unless the options set it.

    ``label`` uses ``UNSUP.EXTRACT_FLIP`` of the run and ``search`` uses ``TEST.FLIP.ENABLED``.
    Because of this function both commands can use one index even if these settings differ.
    """
    if args.flip is not None or predictor.fingerprint == gallery.fingerprint:
        return predictor
    other = predictor.with_flip(not predictor.flip)
    if other.fingerprint != gallery.fingerprint:
        return predictor
    warn(
        f"index {args.index} has features {'with' if other.flip else 'without'} flip augmentation,"
        f" which are used as they are; {'--no-flip' if other.flip else '--flip'} with another index"
        " file gives the run's own setting"
    )
    return other


def normalised(reading: Mapping[str, Any]) -> dict[str, Any]:
    """Return folder options in a canonical form, with JSON types, so that two can be compared."""
    source, _, _ = check_path_settings(**reading)
    return {
        **reading,
        "camera": source,
        "levels": list(reading["levels"]) if source == "subfolder" else ["camera"],
    }


def agreed_reading(args: Any, gallery: Gallery, folder: str | None) -> dict[str, Any]:
    """Return the folder options, which define camera and id: of the index, or of the command line.

    Raises:
        ValueError: The command line contradicts the index, or both lack the folder options of an
            index with several cameras.
    """
    given, asked = given_reading(args), normalised(reading_of(args))
    if gallery.reading is None:  # an index of an earlier version
        if not given and folder and any(e.camera != SINGLE_CAMERA for e in gallery.entries):
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
        if folder:
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


def check_root(args: Any, gallery: Gallery, option: str) -> None:
    """Raise an error for another folder, from which an update would remove all images.

    Raises:
        ValueError: The folder is not that of the index; the message names both.
    """
    folder = getattr(args, option)
    if getattr(args, f"{option}_moved") or os.path.realpath(folder) == os.path.realpath(
        gallery.root
    ):
        return
    raise ValueError(
        f"index {args.index} is of the folder {gallery.root}, and --{option} is"
        f" {os.path.abspath(folder)}: name another index file for it; if the folder was moved"
        f" there, add --{option}-moved"
    )
