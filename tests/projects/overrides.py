"""Settings that make every config small enough for a test: one table for all, one per project."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

#: A tiny randomly initialised network, 64x32 pixels, 2 epochs x 2 iterations of 8 = 4 x 2, CPU.
TINY = {
    "MODEL.DEVICE": "cpu",
    "MODEL.BACKBONE.NAME": "build_mobilenetv2_backbone",
    "MODEL.BACKBONE.DEPTH": "0.1x",
    "MODEL.BACKBONE.FEAT_DIM": "1280",
    "MODEL.BACKBONE.PRETRAIN": "False",
    "INPUT.SIZE_TRAIN": "[64, 32]",
    "INPUT.SIZE_TEST": "[64, 32]",
    "DATASETS.NAMES": "('Market1501',)",
    "DATASETS.TESTS": "('Market1501',)",
    "DATALOADER.NUM_WORKERS": "0",
    "DATALOADER.NUM_INSTANCE": "2",
    "SOLVER.IMS_PER_BATCH": "8",
    "SOLVER.MAX_EPOCH": "2",
    "SOLVER.CHECKPOINT_PERIOD": "1",
    "TEST.EVAL_PERIOD": "0",
    "TEST.IMS_PER_BATCH": "64",
    "UNSUP.ITERS_PER_EPOCH": "2",
    "UNSUP.TRAIN_WITH_VAL": "False",  # Market1501 has no validation images
    "UNSUP.EVAL_BEFORE": "False",
    "UNSUP.REPORT": "False",
}

#: Settings for at least two clusters from the features of a randomly initialised network.
OF_PROJECT: dict[str, dict[str, str]] = {
    "CALR": {
        "CALR.INTRA.EPOCHS": "1",
        "CALR.INTRA.ITERS_PER_EPOCH": "1",
        "CALR.INTRA.IMS_PER_BATCH": "4",
        "CALR.INTRA.NUM_INSTANCE": "2",
        "CALR.INTRA.WITH_IBN": "False",  # MobileNetV2 has no IBN layers
        "UNSUP.KNN.K": "2",  # the nearest neighbours alone never form a single component
        "UNSUP.CLUSTER.MIN_SIZE": "2",
    },
    "PseudoPair": {
        "PSEUDOPAIR.EXPECTED_POSITIVES": "3.0",
        "PSEUDOPAIR.SURROGATE.EPOCHS": "1",
        "PSEUDOPAIR.SURROGATE.NEGATIVES": "32",
        "PSEUDOPAIR.PAIR.NEGATIVES": "32",
        "PSEUDOPAIR.INTER.WIDTH": "16",
        # Features of a randomly initialised network are all similar, even after four steps.
        "PSEUDOPAIR.SEPARATION.MAX_SIMILARITY": "1.0",
    },
}


#: Settings for which every parameter has a gradient in the first step of training.
FOR_ONE_STEP: dict[str, dict[str, object]] = {
    # Stage 1 uses the same trainer with another model. The adversary starts in epoch 0.
    "CALR": {"CALR__REFINE__ENABLED": False, "CALR__ADVERSARY__START_EPOCH": 0},
    # Pairs are used from the first step.
    "PseudoPair": {"PSEUDOPAIR__SURROGATE__EPOCHS": 0},
    # The loss of an empty table has no gradient, so BUC's loss starts from centroids.
    "SphereCluster": {
        "SPHERECLUSTER__REPELLED__START": "centroids",
        "MODEL__HEADS__NECK_FEAT": "after",
    },
}


def config_files() -> list[Path]:
    """Return every config of every project relative to the checkout, except ``Base*`` files."""
    found = (ROOT / "projects").glob("*/configs/**/*.yml")
    return sorted(p.relative_to(ROOT) for p in found if not p.name.startswith("Base"))


def project_of(config: Path) -> str:
    """Return the project whose folder contains a config."""
    return config.parts[1]


def is_adaptation(config: Path) -> bool:
    """Return whether a config starts from source-trained weights (``small/uda_<row>.yml``)."""
    return config.name.startswith("uda_")


def tiny_options(config: Path, output: Path | str, **settings: object) -> list[str]:
    """Return ``KEY VALUE`` pairs; keywords (``SOLVER__MAX_EPOCH=3``) override the tables above.

    A ``uda_`` config keeps its backbone, because the backbone is its only change and is small.
    """
    pairs = {**TINY, **OF_PROJECT.get(project_of(config), {}), "OUTPUT_DIR": str(output)}
    if is_adaptation(config):
        for key in ("NAME", "DEPTH", "FEAT_DIM"):
            del pairs[f"MODEL.BACKBONE.{key}"]
    pairs.update({key.replace("__", "."): str(value) for key, value in settings.items()})
    return [word for pair in pairs.items() for word in pair]
