"""Write the synthetic multi-camera data set in Market-1501's layout, or a contact sheet of it.

example:
  unreid synthesize --output datasets/synthetic
  FASTREID_DATASETS=datasets/synthetic unreid train --config CALR/synthetic
  unreid synthesize --as-folder shop   # shop/cam3/person0007_shot04.jpg
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from unreid.cli import Parser, guarded
from unreid.commands.options import check_output_file, check_output_folder
from unreid.data.synthetic import FOLDER, generate_dataset, render_contact_sheet


def build_parser() -> Parser:
    """Return the parser of the command."""
    parser = Parser(__doc__, prog="unreid synthesize")
    parser.add_argument(
        "--output", metavar="FOLDER", help=f"write the data set into FOLDER/{FOLDER}"
    )
    parser.add_earlier_name("--out", "--output")
    parser.add_argument("--identities", type=int, nargs=2, default=(110, 60),
                        metavar=("TRAIN", "TEST"), help="people to train and to test on"
                        " (110 60)")  # fmt: skip
    parser.add_argument("--cameras", type=int, default=6, help="2 to 6 (6)")
    parser.add_argument("--images-per-identity", type=int, default=12, help="4 to 99 (12)")
    parser.add_argument("--size", type=int, nargs=2, default=(64, 128),
                        metavar=("WIDTH", "HEIGHT"), help="of an image in pixels"
                        " (64 128)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="same seed, same images (0)")
    parser.add_argument(
        "--as-folder",
        metavar="FOLDER",
        help="write FOLDER/camN/personNNNN_shotNN.jpg instead, as a user's folder"
        " might be, in no data set's layout",
    )
    parser.add_argument(
        "--contact-sheet", metavar="PATH", help="also write one image of people x cameras"
    )
    return parser


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the parsed and checked command line."""
    parser = build_parser()
    options: argparse.Namespace = parser.parse_args(arguments)
    if options.output is None and options.contact_sheet is None and options.as_folder is None:
        parser.error("nothing to do: name --output, --as-folder or --contact-sheet")
    check_output_folder(parser, "--output", options.output)
    check_output_folder(parser, "--as-folder", options.as_folder)
    check_output_file(parser, "--contact-sheet", options.contact_sheet)
    return options


def as_folder(root: str, target: Path) -> int:
    """Copy the data set to ``camN/personNNNN_shotNN.jpg``; return the number of images."""
    if target.exists() and any(target.iterdir()):
        raise FileExistsError(f"{target} is not empty; name a new folder")
    shots: Counter[tuple[str, str]] = Counter()
    for source in sorted(Path(root, FOLDER).rglob("*.jpg"), key=lambda path: path.name):
        person, camera = source.name.split("_c")[0], source.name.split("_c")[1].split("s")[0]
        shots[person, camera] += 1
        name = f"cam{camera}/person{person}_shot{shots[person, camera]:02d}.jpg"
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target / name)
    return shots.total()


def work(options: argparse.Namespace) -> None:
    """Write the requested outputs and print a summary."""
    start = time.perf_counter()
    settings: dict[str, Any] = dict(
        num_train_ids=options.identities[0],
        num_test_ids=options.identities[1],
        num_cameras=options.cameras,
        images_per_id=options.images_per_identity,
        size=tuple(options.size),
        seed=options.seed,
    )
    if options.output is not None:
        summary = generate_dataset(options.output, **settings)
        what = "generated" if summary.generated else "already existed; checked"
        print(
            f"{Path(summary.root) / FOLDER}: {summary.num_train_images} images of"
            f" {summary.num_train_ids} people to train on, {summary.num_query_images} queries"
            f" and {summary.num_gallery_images} gallery images of {summary.num_test_ids}"
            f" others, {summary.num_cameras} cameras; {what} in"
            f" {time.perf_counter() - start:.1f} s"
        )
    if options.as_folder is not None:
        with tempfile.TemporaryDirectory() as folder:
            generate_dataset(folder, **settings)
            number = as_folder(folder, Path(options.as_folder))
        print(
            f"{options.as_folder}: {number} images of {sum(options.identities)} people,"
            f" {options.cameras} cameras; generated in {time.perf_counter() - start:.1f} s"
        )
    if options.contact_sheet is not None:
        sheet = render_contact_sheet(num_cameras=options.cameras, seed=options.seed)
        sheet.save(options.contact_sheet, quality=78)
        print(f"{options.contact_sheet}: {sheet.width} x {sheet.height} pixels")


def main(arguments: list[str] | None = None) -> int:
    """Return 0 on success, 2 for bad input."""
    options = parse(arguments)
    return guarded(lambda: work(options))
