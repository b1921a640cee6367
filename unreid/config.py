"""Declare the configuration keys of all methods; read and validate a config.

A config is built in this order: fast-reid's defaults, ``add_unreid_config``, the project's
``add_config``, the yml file, the command line, ``check_unreid_config``, the project's
``check_config``, freeze.
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

# Imported for their side effect: they register samplers and backbones.
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

#: Backbones of fast-reid without a download address of pretrained weights.
_NO_DOWNLOAD = ("build_mobilenetv2_backbone", "build_repvgg_backbone", "build_vit_backbone")

_WHOLE = re.compile(r"[+-]?\d+")


def add_unreid_config(cfg: CfgNode) -> None:
    """Declare the keys that all methods share."""
    # The project (method); it is read first, because it declares further keys.
    cfg.PROJECT = ""

    cfg.UNSUP = CfgNode()
    # Labeler: a name in LABELER_REGISTRY; ClusterLabeler uses the clusterer of UNSUP.CLUSTER.
    cfg.UNSUP.LABELER = ""
    # Iterations between two label steps; "iters" in many papers.
    cfg.UNSUP.ITERS_PER_EPOCH = 200
    # Seed of all random choices; on a CPU the same seed gives the same run.
    cfg.UNSUP.SEED = 0
    # Subtract each camera's mean feature before labelling (docs: camera centring).
    cfg.UNSUP.CENTER_CAMERAS = False
    # Weight of the global mean, as a number of images, when a camera's mean is estimated.
    cfg.UNSUP.CENTER_SHRINKAGE = 16.0
    # Exponent of per-camera whitening, from 0 (off) to 0.5 (full whitening).
    cfg.UNSUP.WHITEN_CAMERAS = 0.0
    # Average each feature with its k mutual nearest neighbours before labelling; 0: off.
    cfg.UNSUP.SMOOTH_NEIGHBOURS = 0
    # Average the features of each image and its horizontal flip; extraction takes twice the time.
    cfg.UNSUP.EXTRACT_FLIP = False
    # For an unreadable training image: "error" raises an error, "skip" leaves the image out.
    cfg.UNSUP.BAD_IMAGE = "error"
    # Train on the validation images of a data set as well (MSMT17: 32,621 instead of 30,248).
    # DATASETS.COMBINEALL of fast-reid, in contrast, adds the query and gallery images.
    cfg.UNSUP.TRAIN_WITH_VAL = False
    # Memory in MiB for decoded training images, so that each is decoded once; 0: no cache.
    cfg.UNSUP.CACHE_IMAGES = 0
    # Log metrics of the pseudo labels against the ids, if there are any; no training on ids.
    cfg.UNSUP.LOG_LABEL_QUALITY = True
    # Number of cameras of the training set; set by the program when the set is read.
    cfg.UNSUP.NUM_CAMERAS = 0
    # Number of images of the training set; set by the program when the set is read.
    cfg.UNSUP.NUM_IMAGES = 0
    # Evaluate the start weights before training ("before" in results.json).
    cfg.UNSUP.EVAL_BEFORE = True
    # Write OUTPUT_DIR/report.html at the end; an error of the report does not fail the training.
    cfg.UNSUP.REPORT = True
    add_label_config(cfg)
    add_backbone_config(cfg)
    # Cluster memory: temperature tau, momentum m, and the samples that update a centroid: "plain"
    # (every sample of the cluster) or "hard" (the sample least similar to the centroid).
    cfg.UNSUP.MEMORY = CfgNode()
    cfg.UNSUP.MEMORY.TEMPERATURE = 0.05
    cfg.UNSUP.MEMORY.MOMENTUM = 0.1
    cfg.UNSUP.MEMORY.UPDATE = "plain"
    _add_folder_config(cfg)

    # Decoding and transforms: "pil" uses fast-reid's transforms; "tensor" applies the same INPUT
    # keys to uint8 batches and is several times as fast (differences: docs/measurements.md).
    cfg.INPUT.BACKEND = "pil"
    # Images per batch-norm group, on any number of devices; 0: the whole batch of each device.
    cfg.MODEL.GHOST_BN = 0
    # Use the memory format channels_last (NHWC), which is faster on CPUs and tensor cores.
    cfg.MODEL.CHANNELS_LAST = True
    # Apply torch.compile to the backbone in training, with this backend.
    cfg.MODEL.COMPILE = False
    cfg.MODEL.COMPILE_BACKEND = "inductor"
    # With SOLVER.AMP.ENABLED: dtype of mixed precision, "bfloat16", or "float16" with loss scaling.
    cfg.SOLVER.AMP.DTYPE = "bfloat16"
    # Gradient accumulation: number of equal parts into which SOLVER.IMS_PER_BATCH is split.
    cfg.SOLVER.ACCUMULATE = 1
    # Subtract each camera's mean gallery feature in evaluation; uses the gallery's camera ids.
    cfg.TEST.CENTER_CAMERAS = False


def _add_folder_config(cfg: CfgNode) -> None:
    """Declare the keys of own images, which the data set "Folder" in DATASETS.NAMES reads."""
    folder = cfg.UNSUP.FOLDER = CfgNode()
    # The folder of all images; identities are split into training and test.
    folder.ROOT = ""
    # Separate folders instead; paths are relative to ROOT, if ROOT is given.
    folder.TRAIN = ""
    folder.QUERY = ""
    folder.GALLERY = ""
    # Pattern that is searched in the path relative to the root: "cam{camera}/*", or a regular
    # expression with the named groups camera, id and tracklet, or with one group, the camera.
    folder.PATTERN = ""
    # A second pattern, for the id only; images that it does not match have no id.
    folder.ID_PATTERN = ""
    # A CSV file with the columns path, camera, and optionally id, tracklet.
    folder.CSV = ""
    # Source of the camera: "regex", "subfolder", "csv", or "one" (a single camera). With "" the
    # source is PATTERN or CSV if one is given, else "one".
    folder.CAMERA = ""
    # For CAMERA "subfolder": meaning of each folder level from the outermost, "camera", "id",
    # "tracklet" or "" (none).
    folder.LEVELS = ("camera",)
    # Share of test identities among those seen by at least two cameras, and the seed of the split.
    folder.TEST_SHARE = 0.3
    folder.SPLIT_SEED = 0


def flat_keys(node: CfgNode, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of every leaf of a config or nested dict."""
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
                # The most frequent mistake is an existing leaf under a wrong node.
                leaf = key.rsplit(".", 1)[-1]
                same = [k for k in known if k.rsplit(".", 1)[-1] == leaf]
                hint = f"; did you mean {same[0]!r}?" if same else ""
            raise KeyError(f"{source}: config key {key!r} does not exist{hint}")


def _read_yaml(config_file: str) -> CfgNode:
    """Return the keys of a file, merged into those of its ``_BASE_`` files."""
    content = read_with_bases(config_file)
    try:
        return CfgNode(content)
    except AssertionError as error:  # a value of a type that no key has, such as a date
        raise ValueError(f"{config_file} must be a yml of nested keys ({error})") from error


def load_config(
    config_file: str, opts: Sequence[str] = (), *, freeze: bool = True
) -> tuple[CfgNode, Project]:
    """Read a yml and ``KEY VALUE`` pairs into a checked config.

    Args:
        config_file: A yml of a project, or its short form such as ``CALR/market``; ``_BASE_``
            chains are followed.
        opts: ``["SOLVER.MAX_EPOCH", "10", ...]``.
        freeze: Whether the returned config is frozen.

    Returns:
        The config, and the project of ``cfg.PROJECT``.

    Raises:
        FileNotFoundError: The file does not exist.
        KeyError: Unknown key, project, labeler, sampler, head, backbone or architecture.
        ValueError: A value is out of range or of the wrong type.
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
        if given.get("MODEL.DEVICE") == "cuda":  # set explicitly, not the default
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
    """Return the keys of file and options under their current names; warn about old names."""
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
    """Convert integers in place to float if the key has a float default.

    yacs would reject ``LAMBDA: 0`` for a default of 0.5.
    """
    for key, value in loaded.items():
        if isinstance(value, dict):
            _whole_to_fraction(value, fractions, f"{prefix}{key}.")
        elif f"{prefix}{key}" in fractions and type(value) is int:
            loaded[key] = float(value)


def _merge(cfg: CfgNode, loaded: CfgNode, opts: list[str], config_file: str) -> None:
    """Merge file and command line; an error for a value names which of them it comes from."""
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
    """Raise an error for an invalid config, before the first image is read.

    Raises:
        KeyError: A name is not in its registry.
        ValueError: A value is out of range, or two values contradict each other.
    """
    unsup, memory = cfg.UNSUP, cfg.UNSUP.MEMORY
    for key, value, low in (
        ("UNSUP.ITERS_PER_EPOCH", unsup.ITERS_PER_EPOCH, 1),
        ("UNSUP.SEED", unsup.SEED, 0),
        ("UNSUP.SMOOTH_NEIGHBOURS", unsup.SMOOTH_NEIGHBOURS, 0),
        ("SOLVER.MAX_EPOCH", cfg.SOLVER.MAX_EPOCH, 0),  # 0: label once with a frozen network
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
    """Raise ValueError for a batch that is not P clusters times K images."""
    if batch % instances:
        raise ValueError(f"{key} must be a multiple of {instances_key} ({instances}), got {batch}")


def check_parts(parts: int, instances: int, batch: int, key: str) -> None:
    """Raise ValueError if ``SOLVER.ACCUMULATE`` splits a cluster or gives parts of one image."""
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
    """Return twelve hex digits that change when a setting that affects the result changes.

    Ignored keys: output folder, report and cache; ``UNSUP.FOLDER`` if no data set reads it; keys of
    timm if the backbone is not of timm.
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
