"""What makes any config of any project small enough for a test: one list for all, one for each."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

#: A tiny network from scratch, 64x32 pixels, 2 epochs x 2 iterations of 8 = 4 x 2, on a CPU.
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

#: What a network that knows nothing needs to see two clusters or more.
OF_PROJECT: dict[str, dict[str, str]] = {
    "CALR": {
        "CALR.INTRA.EPOCHS": "1",
        "CALR.INTRA.ITERS_PER_EPOCH": "1",
        "CALR.INTRA.IMS_PER_BATCH": "4",
        "CALR.INTRA.NUM_INSTANCE": "2",
        "CALR.INTRA.WITH_IBN": "False",  # MobileNetV2 has no IBN layers
        "UNSUP.KNN.K": "2",  # nearest neighbours alone never hang together as one
        "UNSUP.CLUSTER.MIN_SIZE": "2",
    },
    "PseudoPair": {
        "PSEUDOPAIR.EXPECTED_POSITIVES": "3.0",
        "PSEUDOPAIR.SURROGATE.EPOCHS": "1",
        "PSEUDOPAIR.SURROGATE.NEGATIVES": "32",
        "PSEUDOPAIR.PAIR.NEGATIVES": "32",
        "PSEUDOPAIR.INTER.WIDTH": "16",
        # The features of a network from scratch are all similar, even after four steps.
        "PSEUDOPAIR.SEPARATION.MAX_SIMILARITY": "1.0",
    },
}


#: What makes every parameter take part in the first step of training.
FOR_ONE_STEP: dict[str, dict[str, object]] = {
    # Stage 1 is the same trainer on another model; the adversary waits for no epoch here.
    "CALR": {"CALR__REFINE__ENABLED": False, "CALR__ADVERSARY__START_EPOCH": 0},
    # Pairs from the first step on.
    "PseudoPair": {"PSEUDOPAIR__SURROGATE__EPOCHS": 0},
    # An empty table repels nothing: the first step of BUC's line has no gradient.
    "SphereCluster": {
        "SPHERECLUSTER__REPELLED__START": "centroids",
        "MODEL__HEADS__NECK_FEAT": "after",
    },
}


def config_files() -> list[Path]:
    """Every yml of every project, relative to the checkout; a ``Base*`` is no config."""
    found = (ROOT / "projects").glob("*/configs/**/*.yml")
    return sorted(p.relative_to(ROOT) for p in found if not p.name.startswith("Base"))


def project_of(config: Path) -> str:
    """Return the project whose folder contains a config."""
    return config.parts[1]


def is_adaptation(config: Path) -> bool:
    """Whether a config starts from source-trained weights (``small/uda_<row>.yml``)."""
    return config.name.startswith("uda_")


def tiny_options(config: Path, output: Path | str, **settings: object) -> list[str]:
    """Return ``KEY VALUE`` pairs; keywords (``SOLVER__MAX_EPOCH=3``) override the tables above.

    A ``uda_`` config keeps its backbone, which is small: its network is all that it adds.
    """
    pairs = {**TINY, **OF_PROJECT.get(project_of(config), {}), "OUTPUT_DIR": str(output)}
    if is_adaptation(config):
        for key in ("NAME", "DEPTH", "FEAT_DIM"):
            del pairs[f"MODEL.BACKBONE.{key}"]
    pairs.update({key.replace("__", "."): str(value) for key, value in settings.items()})
    return [word for pair in pairs.items() for word in pair]
