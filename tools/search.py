#!/usr/bin/env python3
"""Find the pictures of a gallery that show the person of a query picture.

Answers go to OUTPUT/ranks.csv (query, rank, path, camera, similarity, correct), on request to
OUTPUT/ranks.json and, one picture per query, to OUTPUT/pictures. With --index the gallery is
embedded once: later calls embed what is new or has changed, and refuse another model.

example:
  python tools/search.py --run runs/demo --gallery crops --index crops.index --query person.jpg

  python tools/search.py --run runs/demo --gallery gallery --query queries --other-cameras \\
      --pattern '^(?P<id>[0-9]+)_c(?P<camera>[0-9]+)' --json --pictures --output runs/search
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

# Run from a checkout that was not installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import unreid  # noqa: F401  (before fastreid: makes it importable)
from unreid.cli import Parser, guarded


def build_parser() -> Parser:
    """The command line."""
    import argparse

    from unreid.inference.arguments import add_folder_options, add_model_options

    parser = Parser(__doc__)
    parser.add_argument("--query", nargs="+", default=[], metavar="PATH",
                        help="pictures, or folders of them; none only makes the index")
    parser.add_argument("--gallery", metavar="FOLDER", help="where to search")
    parser.add_argument("--index", metavar="FILE",
                        help="keeps the gallery's features; without --gallery it is searched as"
                        " it is")
    parser.add_argument("--output", default="runs/search", metavar="FOLDER", help="(runs/search)")
    parser.add_argument("--top", type=int, default=10, metavar="N", help="answers a query (10)")
    parser.add_argument("--json", action="store_true", help="write ranks.json too")
    parser.add_argument("--pictures", action="store_true",
                        help="draw each query beside its answers: green right, red wrong, grey"
                        " where an id is not known")
    parser.add_argument("--other-cameras", action="store_true",
                        help="leave out answers from the query's own camera")
    parser.add_argument("--center-cameras", action=argparse.BooleanOptionalAction, default=None,
                        help="take the gallery's mean feature of each camera out"
                        " (TEST.CENTER_CAMERAS)")
    parser.add_argument("--query-csv", default="", metavar="FILE",
                        help="columns path, camera (and id) of a query folder")
    add_model_options(parser, flip="TEST.FLIP.ENABLED")
    add_folder_options(parser)
    return parser


def parse(arguments: list[str] | None = None) -> Any:
    """The command line, checked as far as it can be without the model."""
    from unreid.inference.arguments import check_model_options

    parser = build_parser()
    args = parser.parse_args(arguments)
    check_model_options(parser, args)
    if not args.gallery and not args.index:
        parser.error("name --gallery FOLDER, or an --index FILE made of one")
    if not args.query and not (args.gallery and args.index):
        parser.error("nothing to do: name --query PATH, or --gallery and --index to make the index")
    if args.top < 1:
        parser.error(f"--top must be an integer >= 1, got {args.top}")
    return args


def main(arguments: list[str] | None = None) -> int:
    """0 when all went well, 2 for bad input."""
    args = parse(arguments)
    return guarded(lambda: run(args))


def open_gallery(args: Any, predictor: Any) -> Any:
    """The gallery of the index and today's folder; the index is written if anything changed."""
    from unreid.inference.arguments import read_pictures
    from unreid.inference.gallery import Gallery, summary

    there = bool(args.index) and os.path.isfile(args.index)
    if there or not args.gallery:
        gallery = Gallery.load(args.index)
        gallery.check_model(predictor, f"index {args.index}")
        if not args.gallery:
            return gallery
    else:
        gallery = Gallery.empty(args.gallery, predictor)
    before = gallery
    items = read_pictures(args.gallery, args)
    gallery, changes = gallery.update(items, args.gallery, predictor, skip_bad=args.skip_bad)
    for path, reason in changes.bad.items():
        print(f"left out: {path} ({reason})", file=sys.stderr)
    print(f"gallery: {len(gallery)} pictures; {summary(changes)}")
    if args.index:
        if gallery.entries != before.entries or gallery.root != before.root or not there:
            gallery.save(args.index)
        size = os.path.getsize(args.index) / 2**20
        print(f"index: {os.path.abspath(args.index)} ({size:.1f} MiB)")
    return gallery


def run(args: Any) -> int:
    """Embed what is new, search, write."""
    from unreid.inference.answers import draw_answers, write_answers
    from unreid.inference.arguments import build_predictor, read_queries
    from unreid.inference.ranking import check_cameras, rank, scores

    queries = read_queries(args.query, args)
    predictor = build_predictor(args)
    if args.flip is None:  # as the run was scored, which its labels need not be
        predictor = predictor.with_flip(bool(predictor.cfg.TEST.FLIP.ENABLED))
    gallery = open_gallery(args, predictor)
    if not queries:
        return 0
    if not len(gallery):
        raise ValueError("the gallery has no readable picture to search in")
    check_cameras(queries, gallery, other_cameras=args.other_cameras)
    embedded = predictor.embed_files([q.path for q in queries], skip_bad=args.skip_bad)
    for path, reason in embedded.bad.items():
        print(f"left out: {path} ({reason})", file=sys.stderr)
    queries = tuple(queries[i] for i in embedded.kept)
    if not queries:
        raise ValueError("no query is left: none could be read")
    centre = predictor.cfg.TEST.CENTER_CAMERAS if args.center_cameras is None \
        else args.center_cameras
    shrinkage = predictor.cfg.UNSUP.CENTER_SHRINKAGE if centre else None
    started = time.perf_counter()
    answers = rank(queries, embedded.features, gallery, args.top,
                   other_cameras=args.other_cameras, shrinkage=shrinkage)
    seconds = time.perf_counter() - started
    for file in write_answers(args.output, queries, gallery, answers, with_json=args.json):
        print(f"answers: {file}")
    if args.pictures:
        number = draw_answers(os.path.join(args.output, "pictures"), queries, gallery, answers)
        print(f"pictures: {number} in {os.path.abspath(os.path.join(args.output, 'pictures'))}")
    print(f"{len(queries)} queries searched in {1000 * seconds:.1f} ms"
          + ("; cameras centred" if centre else ""))
    found = scores(queries, embedded.features, gallery, shrinkage=shrinkage)
    if found is not None:
        print(f"by the known ids of {found.pop('queries'):.0f} queries: "
              + ", ".join(f"{k} {v:.1f}" for k, v in found.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
