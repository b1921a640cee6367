"""The files of a run that a later command needs: its config and its weights."""

from __future__ import annotations

import os

#: The weights that a training ends with.
FINAL_WEIGHTS = "model_final.pth"


def run_files(folder: str | os.PathLike[str], weights: str = "") -> tuple[str, str]:
    """Return the paths of a run's config and weights; opens neither.

    Args:
        folder: An ``OUTPUT_DIR``.
        weights: Another file than the run's final weights, or "".

    Raises:
        FileNotFoundError: no such folder, config or weights; the message lists what exists.
    """
    folder = os.path.expanduser(os.fspath(folder))
    config = os.path.join(folder, "config.yaml")
    if not os.path.isfile(config):
        raise FileNotFoundError(
            f"{folder} is no folder of a run: it must have a config.yaml"
            " (it is the --output, or OUTPUT_DIR, of a training)"
        )
    weights = weights or os.path.join(folder, FINAL_WEIGHTS)
    if not os.path.isfile(os.path.expanduser(weights)):
        there = sorted(f for f in os.listdir(folder) if f.endswith(".pth"))
        raise FileNotFoundError(
            f"no weights {weights}; "
            + (
                f"the run has {', '.join(there)}: name one by --weights"
                if there
                else "the run has not saved a model yet"
            )
        )
    return config, weights
