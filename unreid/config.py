"""The shared configuration keys, how a config is read, and the checks before any work.

Order: fast-reid's defaults -> ``add_unreid_config`` -> the project's ``add_config`` -> yml ->
command line -> ``check_unreid_config`` and the project's ``check_config`` -> freeze.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from fastreid.config import CfgNode, get_cfg
from fastreid.modeling.backbones import BACKBONE_REGISTRY
from fastreid.modeling.heads import REID_HEADS_REGISTRY
from fastreid.modeling.meta_arch.build import META_ARCH_REGISTRY

# Imported for what they register.
import unreid.data.samplers
import unreid.labels.labeler
import unreid.modeling.memory_reid
import unreid.modeling.timm_backbone  # noqa: F401
from unreid.checks import check_choice, check_integer, check_number, nearest
from unreid.contracts import Project
from unreid.data.folder_dataset import FOLDER, check_folder_settings
from unreid.data.input_keys import check_input
from unreid.labels.config import add_label_config, check_label_config
from unreid.modeling.backbone_config import (
    KEYS,
    TIMM,
    add_backbone_config,
    check_backbone,
    complete_backbone,
)
from unreid.modeling.neck_head import check_pooling
from unreid.projects import load_project, resolve_config
from unreid.reading.yaml_file import read_with_bases
from unreid.registry import LABELER_REGISTRY, SAMPLER_REGISTRY
from unreid.weights.container import read_weights, unwrap

logger = logging.getLogger("fastreid.unreid.config")

#: Backbones of fast-reid that know no address to download weights from.
_NO_DOWNLOAD = ("build_mobilenetv2_backbone", "build_repvgg_backbone", "build_vit_backbone")

_WHOLE = re.compile(r"[+-]?\d+")


def add_unreid_config(cfg: CfgNode) -> None:
    """Declare the keys that all methods share."""
    # The project (method) whose keys and parts are used; read before all else.
    cfg.PROJECT = ""

    cfg.UNSUP = CfgNode()
    # What assigns the labels: a name of LABELER_REGISTRY; ClusterLabeler clusters by UNSUP.CLUSTER.
    cfg.UNSUP.LABELER = ""
    # Iterations between two label refreshes: unsupervised papers' "iters".
    cfg.UNSUP.ITERS_PER_EPOCH = 200
    # Every random choice follows from it; the same seed gives the same run on a CPU.
    cfg.UNSUP.SEED = 0
    # Subtract each camera's mean feature before labelling (docs: camera centring).
    cfg.UNSUP.CENTER_CAMERAS = False
    # Images whose weight equals one global mean when a camera's mean is estimated.
    cfg.UNSUP.CENTER_SHRINKAGE = 16.0
    # Per-camera whitening beyond the mean: the power, 0 (off) to 0.5 (full whitening).
    cfg.UNSUP.WHITEN_CAMERAS = 0.0
    # Average each feature with its k mutual nearest neighbours before labelling; 0 does not.
    cfg.UNSUP.SMOOTH_NEIGHBOURS = 0
    # Extract with the flipped image too, and average: twice the time, steadier labels.
    cfg.UNSUP.EXTRACT_FLIP = False
    # An unreadable training image: "error" names it and stops, "skip" leaves it out.
    cfg.UNSUP.BAD_IMAGE = "error"
    # Train on the validation images of a data set as well (MSMT17: 32,621 instead of 30,248).
    # Unlike DATASETS.COMBINEALL, which adds fast-reid's query and gallery images.
    cfg.UNSUP.TRAIN_WITH_VAL = False
    # MiB of memory for decoded training images, so that each is decoded once; 0 keeps none.
    cfg.UNSUP.CACHE_IMAGES = 0
    # Score the pseudo labels against the ids when the set has them. Never trains on them.
    cfg.UNSUP.LOG_LABEL_QUALITY = True
    # Number of cameras of the training set; set when it is read, never by the user.
    cfg.UNSUP.NUM_CAMERAS = 0
    # Number of images of the training set; set when it is read, never by the user.
    cfg.UNSUP.NUM_IMAGES = 0
    # Evaluate the start weights before training ("before" in results.json).
    cfg.UNSUP.EVAL_BEFORE = True
    # Write report.html into OUTPUT_DIR at the end; a report that fails never fails a training.
    cfg.UNSUP.REPORT = True
    add_label_config(cfg)
    add_backbone_config(cfg)
    # Cluster memory: tau, m, and "plain" (every sample) or "hard" (the least similar one).
    cfg.UNSUP.MEMORY = CfgNode()
    cfg.UNSUP.MEMORY.TEMPERATURE = 0.05
    cfg.UNSUP.MEMORY.MOMENTUM = 0.1
    cfg.UNSUP.MEMORY.UPDATE = "plain"
    _add_folder_config(cfg)

    # Decoding and transforms: "pil", fast-reid's transforms, or "tensor", the same INPUT keys on
    # whole uint8 batches, several times as fast (differences: docs/measurements.md).
    cfg.INPUT.BACKEND = "pil"
    # Images per batch-norm group, on any number of devices; 0: the whole (per-device) batch.
    cfg.MODEL.GHOST_BN = 0
    # Keep channels together in memory (NHWC): the same numbers, faster on CPUs and tensor cores.
    cfg.MODEL.CHANNELS_LAST = True
    # torch.compile of the backbone in training, and its backend.
    cfg.MODEL.COMPILE = False
    cfg.MODEL.COMPILE_BACKEND = "inductor"
    # SOLVER.AMP.ENABLED: mixed precision by "bfloat16", or "float16" with scaled losses.
    cfg.SOLVER.AMP.DTYPE = "bfloat16"
    # Gradient accumulation: parts of SOLVER.IMS_PER_BATCH per optimiser step.
    cfg.SOLVER.ACCUMULATE = 1
    # Subtract each camera's mean gallery feature at test; uses the gallery's camera ids.
    cfg.TEST.CENTER_CAMERAS = False


def _add_folder_config(cfg: CfgNode) -> None:
    """Declare the keys of own images: DATASETS.NAMES ("Folder",), DATASETS.TESTS the same or ()."""
    folder = cfg.UNSUP.FOLDER = CfgNode()
    # The folder of all images; identities are split into training and test.
    folder.ROOT = ""
    # Separate folders instead, relative to ROOT; without ROOT each path stands alone.
    folder.TRAIN = ""
    folder.QUERY = ""
    folder.GALLERY = ""
    # Searched in the path relative to the root: "cam{camera}/*", or a regular expression with named
    # groups camera, id, tracklet, or with one group, the camera.
    folder.PATTERN = ""
    # A second pattern, of the id alone; images that it does not match have no id.
    folder.ID_PATTERN = ""
    # A CSV file with the columns path, camera, and optionally id, tracklet.
    folder.CSV = ""
    # "regex", "subfolder", "csv" or "one" camera; "": by the pattern or CSV given, else one.
    folder.CAMERA = ""
    # CAMERA subfolder: what the sub-folders are, from the outermost ("id", "tracklet", "").
    folder.LEVELS = ("camera",)
    # Share of test identities among those seen by at least two cameras, and the seed of the split.
    folder.TEST_SHARE = 0.3
    folder.SPLIT_SEED = 0


def flat_keys(node: CfgNode, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every leaf of a config or nested dict."""
    for key, value in node.items():
        if isinstance(value, dict):
            yield from flat_keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _check_keys(keys: Sequence[str], cfg: CfgNode, source: str) -> None:
    known = [key for key, _ in flat_keys(cfg)]
    for key in keys:
        if key not in known:
            hint = nearest(key, known)
            if not hint:
                # The right leaf under the wrong node is the commonest slip.
                leaf = key.rsplit(".", 1)[-1]
                same = [k for k in known if k.rsplit(".", 1)[-1] == leaf]
                hint = f"; did you mean {same[0]!r}?" if same else ""
            raise KeyError(f"{source}: config key {key!r} does not exist{hint}")


def _read_yaml(config_file: str) -> CfgNode:
    """Return the keys of a file, merged into those of its ``_BASE_`` files."""
    content = read_with_bases(config_file)
    try:
        return CfgNode(content)
    except AssertionError as error:  # a value of a kind that no key holds, such as a date
        raise ValueError(f"{config_file} must be a yml of nested keys ({error})") from error


def load_config(
    config_file: str, opts: Sequence[str] = (), *, freeze: bool = True
) -> tuple[CfgNode, Project]:
    """Read a yml and ``KEY VALUE`` pairs into a checked config.

    Args:
        config_file: A yml of a project, or its short form such as ``CALR/market``; ``_BASE_``
            chains are followed.
        opts: ``["SOLVER.MAX_EPOCH", "10", ...]``.
        freeze: Whether the config comes back frozen.

    Returns:
        The config, and the project that it names.

    Raises:
        FileNotFoundError: no such file.
        KeyError: an unknown key, project, labeler, sampler, head, backbone or architecture.
        ValueError: a value out of range, or of the wrong type.
    """
    config_file = str(resolve_config(config_file))
    opts = list(opts)
    if len(opts) % 2:
        raise ValueError(f"options must come as KEY VALUE pairs, got an odd number: {opts}")
    loaded = _read_yaml(config_file)
    given = dict(zip(opts[::2], opts[1::2]))
    project = load_project(given.get("PROJECT", loaded.get("PROJECT", "")))
    loaded, opts = _renamed(loaded, opts, project, config_file)
    cfg = get_cfg()
    add_unreid_config(cfg)
    project.add_config(cfg)
    _check_keys([k for k, _ in flat_keys(loaded)], cfg, config_file)
    _check_keys(opts[::2], cfg, "command line")
    fractions = {key for key, value in flat_keys(cfg) if isinstance(value, float)}
    _whole_to_fraction(loaded, fractions)
    opts = [
        f"{word}.0" if i % 2 and opts[i - 1] in fractions and _WHOLE.fullmatch(str(word)) else word
        for i, word in enumerate(opts)
    ]
    _merge(cfg, loaded, opts, config_file)
    if cfg.MODEL.DEVICE == "cuda" and not torch.cuda.is_available():
        if given.get("MODEL.DEVICE") == "cuda":  # asked for, not only the default
            logger.warning(
                "device cuda was asked for and no GPU was found: the CPU is used; to ask"
                " for it, --device cpu or MODEL.DEVICE cpu"
            )
        cfg.MODEL.DEVICE = "cpu"
    check_unreid_config(cfg)
    complete_backbone(cfg, {*(key for key, _ in flat_keys(loaded)), *opts[::2]})
    project.check_config(cfg)
    if freeze:
        cfg.freeze()
    return cfg, project


def _renamed(
    loaded: CfgNode, opts: list[str], project: Project, config_file: str
) -> tuple[CfgNode, list[str]]:
    """Return the keys of file and options under their present names; warn for old names."""
    renamed = CfgNode()
    for key, value in flat_keys(loaded):
        *nodes, leaf = _present_name(project, key, value, config_file)[0].split(".")
        node = renamed
        for name in nodes:
            node = node.setdefault(name, CfgNode())
            if not isinstance(node, CfgNode):
                raise KeyError(f"{config_file}: config key {name!r} must have keys below it")
        node[leaf] = project.rename_key(key, value)[1]
    pairs = [
        _present_name(project, key, value, "command line")
        for key, value in zip(opts[::2], opts[1::2])
    ]
    return renamed, [word for pair in pairs for word in pair]


def _present_name(project: Project, key: str, value: Any, source: str) -> tuple[str, Any]:
    found = project.rename_key(key, value)
    if found[0] != key:
        warnings.warn(
            f"{source}: config key {key} is called {found[0]} now"
            + (f", and its value {value} {found[1]}" if found[1] != value else "")
            + "; the old name will be removed in the next version",
            FutureWarning,
            stacklevel=4,
        )
    return found


def _whole_to_fraction(loaded: CfgNode, fractions: set[str], prefix: str = "") -> None:
    """``LAMBDA: 0`` means 0.0 where the key holds a fraction; yacs would refuse it."""
    for key, value in loaded.items():
        if isinstance(value, dict):
            _whole_to_fraction(value, fractions, f"{prefix}{key}.")
        elif f"{prefix}{key}" in fractions and type(value) is int:
            loaded[key] = float(value)


def _merge(cfg: CfgNode, loaded: CfgNode, opts: list[str], config_file: str) -> None:
    """Merge file, then command line, and name the source of a value of the wrong type."""
    for source, merge in (
        (config_file, lambda: cfg.merge_from_other_cfg(loaded)),
        ("command line", lambda: cfg.merge_from_list(opts)),
    ):
        try:
            merge()
        except (ValueError, AssertionError) as error:
            raise ValueError(f"{source}: {error}") from error
        except (MemoryError, RecursionError) as error:  # of Python's own parser
            raise ValueError(f"{source}: a value is an expression that nests too deep") from error


def _check_pretrain(cfg: CfgNode) -> None:
    backbone = cfg.MODEL.BACKBONE
    if not backbone.PRETRAIN:
        return
    path = backbone.PRETRAIN_PATH
    if path and not os.path.isfile(path):
        raise FileNotFoundError(
            f"MODEL.BACKBONE.PRETRAIN_PATH: no file {path}; name a file of weights for"
            f" {backbone.NAME} {backbone.DEPTH}, or set MODEL.BACKBONE.PRETRAIN False"
        )
    if path:
        key = "MODEL.BACKBONE.PRETRAIN_PATH"
        unwrap(read_weights(path, key), path, key)
    if not path and backbone.NAME in _NO_DOWNLOAD:
        raise ValueError(
            f"MODEL.BACKBONE.PRETRAIN is on, but nothing to download is known for {backbone.NAME}:"
            " set MODEL.BACKBONE.PRETRAIN_PATH to a file, or MODEL.BACKBONE.PRETRAIN False"
        )


def check_unreid_config(cfg: CfgNode) -> None:
    """Refuse what cannot run, before the first image is read.

    Raises:
        KeyError: a name that is in no registry.
        ValueError: a value out of its range, or two values that contradict each other.
    """
    unsup, memory = cfg.UNSUP, cfg.UNSUP.MEMORY
    for key, value, low in (
        ("UNSUP.ITERS_PER_EPOCH", unsup.ITERS_PER_EPOCH, 1),
        ("UNSUP.SEED", unsup.SEED, 0),
        ("UNSUP.SMOOTH_NEIGHBOURS", unsup.SMOOTH_NEIGHBOURS, 0),
        ("SOLVER.MAX_EPOCH", cfg.SOLVER.MAX_EPOCH, 0),  # 0: a frozen network, labelled once
        ("SOLVER.IMS_PER_BATCH", cfg.SOLVER.IMS_PER_BATCH, 2),
        ("SOLVER.CHECKPOINT_PERIOD", cfg.SOLVER.CHECKPOINT_PERIOD, 1),
        ("SOLVER.ACCUMULATE", cfg.SOLVER.ACCUMULATE, 1),
        ("DATALOADER.NUM_INSTANCE", cfg.DATALOADER.NUM_INSTANCE, 1),
        ("DATALOADER.NUM_WORKERS", cfg.DATALOADER.NUM_WORKERS, 0),
        ("TEST.IMS_PER_BATCH", cfg.TEST.IMS_PER_BATCH, 1),
        ("TEST.EVAL_PERIOD", cfg.TEST.EVAL_PERIOD, 0),
        ("MODEL.GHOST_BN", cfg.MODEL.GHOST_BN, 0),
    ):
        check_integer(key, value, low)
    if cfg.MODEL.GHOST_BN == 1:
        raise ValueError("MODEL.GHOST_BN must be 0 or an integer >= 2, got 1")
    check_label_config(cfg)
    check_number("UNSUP.CENTER_SHRINKAGE", unsup.CENTER_SHRINKAGE, 0)
    check_number("UNSUP.WHITEN_CAMERAS", unsup.WHITEN_CAMERAS, 0, 0.5)
    if unsup.WHITEN_CAMERAS and not unsup.CENTER_CAMERAS:
        raise ValueError(
            "UNSUP.WHITEN_CAMERAS must be 0 without UNSUP.CENTER_CAMERAS, whose means"
            f" it goes beyond, got {unsup.WHITEN_CAMERAS}"
        )
    check_number("UNSUP.MEMORY.TEMPERATURE", memory.TEMPERATURE, 0, open_minimum=True)
    check_number("UNSUP.MEMORY.MOMENTUM", memory.MOMENTUM, 0, 1)
    check_choice("UNSUP.MEMORY.UPDATE", memory.UPDATE, ("plain", "hard"))
    check_choice("UNSUP.BAD_IMAGE", unsup.BAD_IMAGE, ("error", "skip"))
    check_choice("TEST.METRIC", cfg.TEST.METRIC, ("cosine", "euclidean"))
    check_choice("SOLVER.AMP.DTYPE", cfg.SOLVER.AMP.DTYPE, ("bfloat16", "float16"))
    check_choice(
        "MODEL.COMPILE_BACKEND",
        cfg.MODEL.COMPILE_BACKEND,
        ("inductor", "aot_eager", "eager", "cudagraphs"),
    )
    check_batch(cfg.SOLVER.IMS_PER_BATCH, cfg.DATALOADER.NUM_INSTANCE, "SOLVER.IMS_PER_BATCH")
    check_parts(
        cfg.SOLVER.ACCUMULATE,
        cfg.DATALOADER.NUM_INSTANCE,
        cfg.SOLVER.IMS_PER_BATCH,
        "SOLVER.IMS_PER_BATCH",
    )
    check_input(cfg)
    check_folder_settings(cfg)
    _check_names(cfg)
    check_backbone(cfg)
    _check_pretrain(cfg)
    if cfg.TEST.PRECISE_BN.ENABLED:
        raise ValueError(
            "TEST.PRECISE_BN.ENABLED must be False: fast-reid's precise BN trains on the ids of"
            " its own loader, which an unsupervised run must never see"
        )


def check_batch(
    batch: int, instances: int, key: str, instances_key: str = "DATALOADER.NUM_INSTANCE"
) -> None:
    """Refuse a batch that is not P clusters times K images."""
    if batch % instances:
        raise ValueError(f"{key} must be a multiple of {instances_key} ({instances}), got {batch}")


def check_parts(parts: int, instances: int, batch: int, key: str) -> None:
    """Refuse a batch that ``SOLVER.ACCUMULATE`` would cut through a cluster, or to one image."""
    size = parts * max(instances, 2)
    if parts > 1 and batch % size:
        raise ValueError(
            f"{key} must be a multiple of {size}, SOLVER.ACCUMULATE ({parts}) parts of"
            f" whole clusters ({instances} images each), got {batch}"
        )


def _check_names(cfg: CfgNode) -> None:
    if cfg.UNSUP.LABELER:
        LABELER_REGISTRY.get(cfg.UNSUP.LABELER)
    SAMPLER_REGISTRY.get(cfg.DATALOADER.SAMPLER_TRAIN)
    for key, name, registry in (
        ("MODEL.META_ARCHITECTURE", cfg.MODEL.META_ARCHITECTURE, META_ARCH_REGISTRY),
        ("MODEL.BACKBONE.NAME", cfg.MODEL.BACKBONE.NAME, BACKBONE_REGISTRY),
        ("MODEL.HEADS.NAME", cfg.MODEL.HEADS.NAME, REID_HEADS_REGISTRY),
    ):
        known = registry._obj_map
        if name not in known:
            raise KeyError(
                f"{key} must be one of {', '.join(sorted(known))}, got {name!r}"
                f"{nearest(name, known)}"
            )
    check_pooling(cfg.MODEL.HEADS.POOL_LAYER)


def config_hash(cfg: CfgNode) -> str:
    """Twelve hex digits that change when a setting changes.

    The output folder is none, nor are a report, a cache, and a folder of pictures that is not read.
    """
    clone = cfg.clone()
    clone.defrost()
    clone.OUTPUT_DIR = ""
    clone.UNSUP.pop("REPORT", None)
    clone.UNSUP.pop("CACHE_IMAGES", None)
    if clone.MODEL.BACKBONE.NAME != TIMM:
        for key in KEYS:
            clone.MODEL.BACKBONE.pop(key, None)
    if FOLDER not in (*clone.DATASETS.NAMES, *clone.DATASETS.TESTS):
        clone.UNSUP.pop("FOLDER", None)
    return hashlib.sha256(clone.dump().encode()).hexdigest()[:12]
