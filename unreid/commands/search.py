r"""Find the images of a gallery that show the person of a query image.

The top-k results are written to OUTPUT/ranks.csv (query, rank, path, camera, similarity, correct),
with --json to OUTPUT/ranks.json, and with --pictures to OUTPUT/pictures, one image per query. With
--index the gallery is embedded once. Later calls embed new and changed images only, read cameras as
the first call did, and refuse another model or folder.

example:
  unreid search --run runs/demo --gallery crops --index crops.index --query person.jpg

  unreid search --run runs/demo --gallery gallery --query queries --other-cameras \
      --camera-pattern '{id}_c{camera}s*' --json --pictures --output runs/search
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from unreid.cli import Parser, guarded, warn
from unreid.commands.gallery_index import open_gallery
from unreid.commands.images import check_images, read_queries
from unreid.commands.options import (
    add_folder_options,
    add_model_options,
    add_skip_bad,
    build_predictor,
    check_folder_options,
    check_model_files,
    check_model_options,
    check_output_file,
    check_output_folder,
    check_positive,
    reading_of,
)


def build_parser() -> Parser:
    """Return the parser of the command."""
    parser = Parser(__doc__, prog="unreid search")
    parser.add_argument(
        "--query",
        nargs="+",
        default=[],
        metavar="PATH",
        help="images, or folders of them; without any only the index is made",
    )
    parser.add_argument("--gallery", metavar="FOLDER", help="where to search")
    parser.add_argument(
        "--index",
        metavar="FILE",
        help="keeps the gallery's features; without --gallery it is searched as it is",
    )
    parser.add_argument(
        "--gallery-moved",
        action="store_true",
        help="the folder of the index is --gallery now; images that are not in it are dropped",
    )
    parser.add_argument("--output", default="runs/search", metavar="FOLDER", help="(runs/search)")
    parser.add_argument("--top", type=int, default=10, metavar="N", help="results per query (10)")
    parser.add_argument("--json", action="store_true", help="write ranks.json too")
    parser.add_argument(
        "--pictures",
        action="store_true",
        help="draw each query and its top-k results: green correct, red wrong,"
        " grey if an id is unknown or the result does not count",
    )
    parser.add_argument(
        "--other-cameras", action="store_true", help="exclude images of the query's own camera"
    )
    parser.add_argument(
        "--center-cameras",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="subtract the gallery's mean feature of each camera (TEST.CENTER_CAMERAS)",
    )
    parser.add_argument(
        "--query-csv",
        default="",
        metavar="FILE",
        help="columns path, camera (and id) of a query folder",
    )
    add_skip_bad(parser)
    add_model_options(parser, flip="TEST.FLIP.ENABLED")
    add_folder_options(parser)
    return parser


def parse(arguments: list[str] | None = None) -> Any:
    """Return the parsed and checked command line; no model is loaded."""
    parser = build_parser()
    args = parser.parse_args(arguments)
    check_model_options(parser, args)
    check_folder_options(parser, args)
    if not args.gallery and not args.index:
        parser.error("name --gallery FOLDER, or an --index FILE made of one")
    if not args.query and not (args.gallery and args.index):
        parser.error("nothing to do: name --query PATH, or --gallery and --index to make the index")
    if args.gallery_moved and not (args.gallery and args.index):
        parser.error("--gallery-moved goes with --gallery and --index")
    check_positive(parser, args, ["top"])
    check_output_folder(parser, "--output", args.output)
    check_output_file(parser, "--index", args.index)
    return args


def main(arguments: list[str] | None = None) -> int:
    """Return 0 on success, 2 for bad input."""
    args = parse(arguments)
    return guarded(lambda: run(args))


def run(args: Any) -> int:
    """Extract features of new images, search, and write the results."""
    check_model_files(args)
    for path in args.query:
        if not os.path.exists(path):
            raise FileNotFoundError(f"--query {path}: no such file or folder")
    if args.gallery:
        check_images(args.gallery)

    from unreid.inference.ranking import check_cameras

    predictor = build_predictor(args)
    if args.flip is None:  # as in the evaluation of the run, not as in its label step
        predictor = predictor.with_flip(bool(predictor.cfg.TEST.FLIP.ENABLED))
    gallery, predictor = open_gallery(args, predictor)
    if not args.query:
        return 0
    queries = read_queries(args.query, gallery.reading or reading_of(args), args.query_csv)
    if not len(gallery):
        raise ValueError("the gallery has no readable image to search in")
    check_cameras(queries, gallery, other_cameras=args.other_cameras)
    embedded = predictor.embed_files([q.path for q in queries], skip_bad=args.skip_bad)
    for path, reason in embedded.bad.items():
        sys.stderr.write(f"left out: {path} ({reason})\n")
    queries = tuple(queries[i] for i in embedded.kept)
    if not queries:
        raise ValueError("no query is left: none could be read")
    answer(args, predictor.cfg, queries, embedded.features, gallery)
    return 0


def answer(args: Any, cfg: Any, queries: Sequence[Any], features: Any, gallery: Any) -> None:
    """Rank the gallery, write the results, and print their paths and the scores."""
    from unreid.inference.ranking import rank, scores
    from unreid.inference.retrieval_results import draw_results, write_results

    centre = cfg.TEST.CENTER_CAMERAS if args.center_cameras is None else args.center_cameras
    if centre and len({entry.camera for entry in gallery.entries}) < 2:
        centre = False
        warn(
            "the gallery counts as one camera, so cameras are not centred; say where cameras are"
            " written: --camera-pattern, --csv or --camera subfolder"
        )
    rules = {
        "other_cameras": args.other_cameras,
        "shrinkage": cfg.UNSUP.CENTER_SHRINKAGE if centre else None,
    }
    started = time.perf_counter()
    answers = rank(queries, features, gallery, args.top, **rules)
    seconds = time.perf_counter() - started
    for file in write_results(args.output, queries, gallery, answers, with_json=args.json):
        print(f"answers: {file}")
    if args.pictures:
        folder = os.path.join(args.output, "pictures")
        number = draw_results(folder, queries, gallery, answers)
        print(f"pictures: {number} in {os.path.abspath(folder)}")
    sys.stdout.write(
        f"{len(queries)} queries searched in {1000 * seconds:.1f} ms"
        + ("; cameras centred" if centre else "")
        + "\n"
    )
    found = scores(queries, features, gallery, **rules)
    if found is not None:
        rule = "are left out" if args.other_cameras else "of the same person do not count"
        sys.stdout.write(
            f"by the known ids of {found.pop('queries'):.0f} queries: "
            + ", ".join(f"{k} {v:.1f}" for k, v in found.items())
            + f"; answers of the query's own camera {rule}\n"
        )
