r"""Write pseudo identities of a folder of crops: a CSV of path, camera, identity and confidence.

The model embeds every image and a clusterer groups the features. An identity is a number; 0 is the
largest cluster, and -1 are images that are assigned to none. Confidence is 0..1: 1 at the centre of
its cluster and far from others, 0.5 as near to another cluster, less when nearer to another; 0 for
-1.

example:
  unreid label --run runs/demo --images crops --output labels.csv --sheets sheets

  unreid label --run runs/demo --images crops --camera-pattern '_c([0-9]+)' \
      --method bottom_up --images-per-cluster 12
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any

from unreid.cli import Parser, guarded, warn
from unreid.commands.gallery_index import open_gallery
from unreid.commands.images import check_images
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
)

#: Clusterer -> (summary, parameters). This is a copy of :mod:`unreid.labels.clusterers`, which is
#: slow to import; a test compares the two.
_GRAPH = {"k": 15, "min_similarity": 0.5, "seed": 0}
_JACCARD = {"k1": 30, "k2": 6}
_SIZE = {"num_clusters": 0, "images_per_cluster": 12}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "dbscan": (
        "density on the k-reciprocal Jaccard distance; finds the number, leaves noise",
        {"eps": 0.6, "min_samples": 4, **_JACCARD},
    ),
    "map_equation": ("communities of the graph of neighbours; finds the number", _GRAPH),
    "bottom_up": (
        "merging of features by average linkage with SSE, to a given number",
        {
            **_SIZE,
            "linkage": "average",
            "regularizer": "sse",
            "weight": 0.01,
            "update": "exact",
            "pass_rule": "union",
        },
    ),
    "agglomerative": (
        "average linkage on the Jaccard distance, to a given number; to 20,000 images",
        {**_SIZE, "linkage": "average", **_JACCARD},
    ),
    "infomap": ("map_equation by the GPL package infomap (an extra)", _GRAPH),
}
#: Parameter -> deprecated name of its option, which is still accepted.
OLD_NAMES = {"num_clusters": "--clusters", "k": "--neighbours"}
DEFAULT = "dbscan"
#: Value of ``--method`` that selects among :data:`unreid.labels.auto.CANDIDATES`.
AUTO = "auto"


def build_parser() -> Parser:
    """Return the parser of the command."""
    parser = Parser(__doc__, prog="unreid label")
    parser.add_argument("--images", metavar="FOLDER", help="the crops")
    parser.add_argument(
        "--index",
        metavar="FILE",
        help="keeps the features of the crops, as in unreid search; without --images its images are"
        " labelled as they are",
    )
    parser.add_argument(
        "--images-moved",
        action="store_true",
        help="the folder of the index is --images now; images that are not in it are dropped",
    )
    parser.add_argument("--output", default="labels.csv", metavar="FILE", help="(labels.csv)")
    parser.add_argument("--sheets", metavar="FOLDER", help="draw a contact sheet of every cluster")
    parser.add_argument(
        "--sheet-images",
        type=int,
        default=60,
        metavar="N",
        help="images on a sheet, the most confident first (60)",
    )
    add_skip_bad(parser)
    add_model_options(parser)
    add_folder_options(parser)
    group = parser.add_argument_group(
        "clusterer",
        "\n".join(
            f"{name}: {idea}\n    "
            + " ".join(f"--{key.replace('_', '-')} {value}" for key, value in defaults.items())
            for name, (idea, defaults) in METHODS.items()
        ),
    )
    group.add_argument(
        "--method",
        default=DEFAULT,
        choices=(*METHODS, AUTO),
        help=f"({DEFAULT}); {AUTO} tries several with a few settings and selects one without ids",
    )
    for name, value in {k: v for _, d in METHODS.values() for k, v in d.items()}.items():
        names = [f"--{name.replace('_', '-')}", *([OLD_NAMES[name]] if name in OLD_NAMES else [])]
        group.add_argument(*names, dest=name, type=type(value), help=argparse.SUPPRESS)
    group.add_argument(
        "--min-size", type=int, default=2, metavar="N", help="smaller clusters become -1 (2)"
    )
    before = parser.add_argument_group("before clustering, as the training did")
    before.add_argument(
        "--center-cameras",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="subtract each camera's mean feature (UNSUP.CENTER_CAMERAS)",
    )
    before.add_argument(
        "--whiten-cameras",
        type=float,
        metavar="POWER",
        help="per-camera whitening, 0 to 0.5, 0 for none (UNSUP.WHITEN_CAMERAS)",
    )
    before.add_argument(
        "--smooth-neighbours",
        type=int,
        metavar="K",
        help="neighbour smoothing over K neighbours, 0 for none (UNSUP.SMOOTH_NEIGHBOURS)",
    )
    return parser


def parse(arguments: list[str] | None = None) -> Any:
    """Return the parsed and checked command line; no model is loaded."""
    parser = build_parser()
    args = parser.parse_args(arguments)
    check_model_options(parser, args)
    check_folder_options(parser, args)
    if not args.images and not args.index:
        parser.error("name --images FOLDER, or an --index FILE made of one")
    if args.images_moved and not (args.images and args.index):
        parser.error("--images-moved goes with --images and --index")
    check_output_file(parser, "--output", args.output)
    check_output_file(parser, "--index", args.index)
    check_output_folder(parser, "--sheets", args.sheets)
    own = METHODS[args.method][1] if args.method in METHODS else {}
    given = {
        name: getattr(args, name)
        for _, defaults in METHODS.values()
        for name in defaults
        if getattr(args, name) is not None
    }
    for name in given:
        if name not in own:
            having = sorted(m for m, (_, defaults) in METHODS.items() if name in defaults)
            parser.error(
                f"--{name.replace('_', '-')} is a setting of {', '.join(having)},"
                f" not of --method {args.method}"
            )
    if args.whiten_cameras is not None and not 0 <= args.whiten_cameras <= 0.5:
        parser.error(f"--whiten-cameras must be in 0..0.5, got {args.whiten_cameras}")
    if args.smooth_neighbours is not None and args.smooth_neighbours < 0:
        parser.error(f"--smooth-neighbours must be an integer >= 0, got {args.smooth_neighbours}")
    args.settings = given
    return args


def main(arguments: list[str] | None = None) -> int:
    """Return 0 on success, 2 for bad input."""
    args = parse(arguments)
    return guarded(lambda: run(args))


def transforms(args: Any, cfg: Any, search: Any, cameras: int) -> Sequence[Any]:
    """Return the feature transforms before clustering.

    Each is set by its option; without the option, by the run's config.

    Args:
        args: The command line.
        cfg: The config of the model.
        search: Neighbour search of neighbour smoothing.
        cameras: Number of cameras of the images.

    Raises:
        ValueError: Whitening is on and camera centring is off.
    """
    from unreid.labels.transforms import transforms_from_config

    unsup = cfg.UNSUP
    center = unsup.CENTER_CAMERAS if args.center_cameras is None else args.center_cameras
    if args.whiten_cameras and not center:
        raise ValueError("--whiten-cameras needs --center-cameras: give both")
    if center and cameras < 2:
        warn(
            "all images count as one camera, so cameras are not centred as in training; say where"
            " cameras are written: --camera-pattern, --csv or --camera subfolder"
        )
    wanted = cfg.clone()
    wanted.defrost()
    if args.whiten_cameras is not None:
        wanted.UNSUP.WHITEN_CAMERAS = args.whiten_cameras
    if args.smooth_neighbours is not None:
        wanted.UNSUP.SMOOTH_NEIGHBOURS = args.smooth_neighbours
    return transforms_from_config(wanted, search, center=center)


def run(args: Any) -> int:
    """Extract features, cluster them, write the labels, and print a summary."""
    check_model_files(args)
    if args.images:
        check_images(args.images)
    elif not os.path.isfile(args.index):
        raise FileNotFoundError(f"--index {args.index}: no such file; name --images to create it")

    from unreid.inference.advice import advice
    from unreid.inference.labelling import label_images, summary, trials_table
    from unreid.labels.neighbours import Search

    predictor = build_predictor(args)
    gallery, predictor = open_gallery(args, predictor, "images")
    items = gallery.items
    search = Search.from_config(predictor.cfg)
    before = transforms(args, predictor.cfg, search, len({item.camera for item in items}))
    labelled = label_images(
        items,
        gallery.features,
        args.method,
        min_size=args.min_size,
        settings=args.settings,
        transforms=before,
        search=search,
    )
    labelled.write(args.output, gallery.root)
    if labelled.trials:
        print(f"{trials_table(labelled)}\n")
    hint = "" if args.method == AUTO else f"; --method {AUTO} tries several settings"
    for found in advice(labelled.labels, labelled.method, labelled.settings):
        warn(f"{found}{hint}")
    said = summary(labelled)
    print(f"{said}\nlabels: {os.path.abspath(args.output)}")
    if args.sheets:
        number = labelled.draw_sheets(args.sheets, gallery.root, args.sheet_images)
        print(f"sheets: {number} in {os.path.abspath(args.sheets)}")
    return 0
