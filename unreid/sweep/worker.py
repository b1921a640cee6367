"""One run of a sweep in a separate process: train, then evaluate under further test settings.

python -m unreid.sweep.worker --config-file FILE [--resume] [--score NAME ...] KEY VALUE ...
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

import unreid  # noqa: F401  (before fastreid: makes it importable)
from unreid.cli import Parser, guarded
from unreid.config import load_config
from unreid.engine import distributed, run
from unreid.engine.atomic import save_json
from unreid.engine.results import scores_of
from unreid.sweep.rows import SCORES, TEST_SETTINGS


def build_parser() -> Parser:
    """Return the command line."""
    parser = Parser(
        "Train one run of a sweep.\n\nexample:\n  python -m unreid.sweep.worker"
        " --config-file CALR/small/baseline OUTPUT_DIR runs/one"
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help="yml of a project")
    parser.add_argument("--resume", action="store_true", help="continue the run in OUTPUT_DIR")
    parser.add_argument(
        "--score",
        action="append",
        default=[],
        choices=sorted(TEST_SETTINGS),
        help="further test settings for the final model; may be repeated",
    )
    parser.add_key_values()
    return parser


def work(args: argparse.Namespace) -> None:
    """Train the remaining epochs, and evaluate the final model."""
    args.eval_only = False
    cfg, project = load_config(args.config_file, args.opts)
    with distributed.launched_process_group(cfg.MODEL.DEVICE):
        data = run.prepare(cfg, args)
        results = run.train(cfg, project, resume=args.resume, data=data)
        if args.score:
            scores = {name: scores_at(cfg, results["after"], name) for name in args.score}
            save_json(os.path.join(cfg.OUTPUT_DIR, SCORES), scores)


def scores_at(cfg: Any, configured: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the scores of the final model under one of ``TEST_SETTINGS``.

    Args:
        cfg: Config of the finished run in ``OUTPUT_DIR``.
        configured: Scores under the settings of the config; returned if these equal ``name``.
        name: A key of ``TEST_SETTINGS``.
    """
    centred, flip = TEST_SETTINGS[name]
    if (centred, flip) == (cfg.TEST.CENTER_CAMERAS, cfg.TEST.FLIP.ENABLED):
        return configured
    changed = cfg.clone()
    changed.defrost()
    changed.TEST.CENTER_CAMERAS, changed.TEST.FLIP.ENABLED = centred, flip
    changed.MODEL.WEIGHTS = os.path.join(cfg.OUTPUT_DIR, "model_final.pth")
    changed.freeze()
    return scores_of(run.evaluate_only(changed))


def main(arguments: list[str] | None = None) -> int:
    """Return the exit code: 0 for success, 2 for bad input, 130 after Ctrl-C, 143 after SIGTERM."""
    args = build_parser().parse_args(arguments)
    return guarded(lambda: work(args))


if __name__ == "__main__":
    sys.exit(main())
