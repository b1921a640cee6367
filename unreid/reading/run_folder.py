"""Find the config and the weights of a run in its folder."""

from __future__ import annotations

import os

#: File name of the weights at the end of training.
FINAL_WEIGHTS = "model_final.pth"


def run_files(folder: str | os.PathLike[str], weights: str = "") -> tuple[str, str]:
    """Return the paths of a run's config and weights, without opening them.

    Args:
        folder: ``OUTPUT_DIR`` of the run.
        weights: File to use instead of the run's final weights, or "".

    Raises:
        FileNotFoundError: Folder, config or weights are missing; the message lists what exists.
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
