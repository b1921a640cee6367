"""Every config of every project loads, labels, trains, and resumes bit-identically after a stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastreid.solver import build_optimizer
from fastreid.utils.events import EventStorage

from tests.projects.overrides import (
    FOR_ONE_STEP,
    ROOT,
    config_files,
    is_adaptation,
    project_of,
)
from tests.projects.tiny_run import (
    Interrupted,
    assert_same_labels,
    assert_same_weights,
    final_checkpoint,
    interrupted_at_step,
    label_files,
    load_tiny,
    train_tiny,
)
from unreid.config import CfgNode, flat_keys, load_config
from unreid.engine.checkpoint import unwrap
from unreid.engine.trainer import UnsupervisedTrainer
from unreid.projects import discover_projects
from unreid.registry import LABELER_REGISTRY

CONFIGS = config_files()
every_config = pytest.mark.parametrize("config", CONFIGS, ids=lambda p: "/".join(p.parts[1:]))


def test_configs__are_found_for_every_project() -> None:
    assert {project_of(p) for p in CONFIGS} == set(discover_projects())
    assert Path("projects/CALR/configs/small/calr.yml") in CONFIGS


def test_configs__write_into_folders_of_their_own() -> None:
    given = [CfgNode.load_yaml_with_base(str(ROOT / config))["OUTPUT_DIR"] for config in CONFIGS]
    assert len(set(given)) == len(given)


#: Configs compared in the documentation, each as ``small/<row>.yml`` and ``small/uda_<row>.yml``.
ROWS = {
    "CALR": ("baseline", "baseline_plus", "calr", "plus"),
    "SphereCluster": ("hct", "dbc", "buc", "spherecluster", "plus"),
    "PseudoPair": ("surrogate", "pairs", "intra", "inter", "plus"),
}
WARM_ROWS = {
    "CALR": ("baseline", "baseline_plus", "calr", "plus"),
    "SphereCluster": ("hct", "spherecluster", "plus"),
    "PseudoPair": ("intra", "plus"),
}


def row(project: str, name: str) -> Path:
    return Path("projects", project, "configs", "small", f"{name}.yml")


def settings_of(config: Path) -> dict[str, Any]:
    cfg, _ = load_config(str(ROOT / config), ["MODEL.BACKBONE.PRETRAIN", "False"])
    return dict(flat_keys(cfg))


def test_rows__have_their_fixed_names() -> None:
    cold = {row(project, name) for project, names in ROWS.items() for name in names}
    warm = {row(project, f"uda_{name}") for project, names in WARM_ROWS.items() for name in names}
    assert cold | warm <= set(CONFIGS)
    assert {config for config in CONFIGS if is_adaptation(config)} == warm


@pytest.mark.parametrize(
    ("project", "name"), [(project, name) for project, names in WARM_ROWS.items() for name in names]
)
def test_uda_row__is_its_cold_row_from_another_start_network(project: str, name: str) -> None:
    cold, warm = settings_of(row(project, name)), settings_of(row(project, f"uda_{name}"))
    different = {key: value for key, value in warm.items() if cold[key] != value}
    different.pop("OUTPUT_DIR")
    assert different == {
        "MODEL.BACKBONE.NAME": "build_osnet_backbone",
        "MODEL.BACKBONE.DEPTH": "x0_25",
        "MODEL.BACKBONE.FEAT_DIM": 128,
        "MODEL.HEADS.POOL_LAYER": "GlobalAvgPool",
        # Mean and std of ImageNet, for pixels in 0..255.
        "MODEL.PIXEL_MEAN": pytest.approx([255 * 0.485, 255 * 0.456, 255 * 0.406]),
        "MODEL.PIXEL_STD": pytest.approx([255 * 0.229, 255 * 0.224, 255 * 0.225]),
    }
    assert warm["MODEL.BACKBONE.WITH_IBN"] is False
    assert warm["INPUT.SIZE_TRAIN"] == warm["INPUT.SIZE_TEST"] == [128, 64]


def test_baseline_plus__adds_to_the_baseline_what_is_no_part_of_calr() -> None:
    plain, plus = settings_of(row("CALR", "baseline")), settings_of(row("CALR", "baseline_plus"))
    different = {key: value for key, value in plus.items() if plain[key] != value}
    different.pop("OUTPUT_DIR")
    assert different == {
        "UNSUP.CENTER_CAMERAS": True, "UNSUP.WHITEN_CAMERAS": 0.3, "UNSUP.SMOOTH_NEIGHBOURS": 12,
        "UNSUP.CLUSTER.NAME": "bottom_up",
        "TEST.CENTER_CAMERAS": True, "TEST.FLIP.ENABLED": True,
    }  # fmt: skip
    recommended = settings_of(row("CALR", "plus"))
    assert all(recommended[key] == value for key, value in different.items())


def test_baseline_long__has_the_steps_of_both_stages_of_calr() -> None:
    plain, long = settings_of(row("CALR", "baseline")), settings_of(row("CALR", "baseline_long"))
    assert {key for key in long if long[key] != plain[key]} == {
        "UNSUP.ITERS_PER_EPOCH",
        "OUTPUT_DIR",
    }
    calr = settings_of(row("CALR", "calr"))
    stage_1 = 6 * calr["CALR.INTRA.EPOCHS"] * calr["CALR.INTRA.ITERS_PER_EPOCH"]  # cameras
    stage_2 = calr["SOLVER.MAX_EPOCH"] * calr["UNSUP.ITERS_PER_EPOCH"]
    assert long["SOLVER.MAX_EPOCH"] * long["UNSUP.ITERS_PER_EPOCH"] == stage_1 + stage_2


@every_config
def test_own_recipes__use_the_tensor_backend_and_reproductions_that_of_fastreid(
    config: Path,
) -> None:
    own = config.parent.name == "small" or config.stem.endswith("_plus")
    assert settings_of(config)["INPUT.BACKEND"] == ("tensor" if own else "pil")


@every_config
def test_config__loads_as_shipped(config: Path) -> None:
    # The user supplies the weights: load the config without its file of weights.
    cfg, project = load_config(str(ROOT / config), ["MODEL.BACKBONE.PRETRAIN", "False"])
    assert project.name == project_of(config) == cfg.PROJECT
    assert cfg.UNSUP.LABELER in LABELER_REGISTRY
    assert cfg.is_frozen()


@every_config
def test_config__labels_trains_and_resumes_to_the_same_labels_and_weights(
    config: Path, synthetic_root: Path, tmp_path: Path
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    results = train_tiny(config, synthetic_root, whole)
    assert set(results["after"]) >= {"mAP", "Rank-1", "Rank-5", "mINP"}
    files = label_files(whole)
    assert {"labels/epoch_000.npz", "labels/epoch_001.npz"} <= files.keys()
    for name in ("labels/epoch_000.npz", "labels/epoch_001.npz"):
        labels = files[name]["labels"]
        assert len(labels) == len(files[name]["paths"]) == len(files[name]["camids"])
        assert set(np.unique(labels)) - {-1} == set(range(labels.max() + 1))
        assert labels.max() >= 1

    # Stop at the last iteration: the first epoch is in a checkpoint, the second one is lost.
    total = results_steps(config, synthetic_root, stopped)
    with pytest.raises(Interrupted), interrupted_at_step(total):
        train_tiny(config, synthetic_root, stopped)
    assert not (stopped / "model_final.pth").exists()
    train_tiny(config, synthetic_root, stopped, resume=True)
    assert_same_labels(whole, stopped)
    assert_same_weights(whole, stopped)
    assert final_checkpoint(stopped)["epoch"] == 1


def results_steps(config: Path, root: Path, output: Path) -> int:
    """Return the number of iterations of the whole run, including earlier stages."""
    cfg, _ = load_tiny(config, output)
    main = cfg.SOLVER.MAX_EPOCH * cfg.UNSUP.ITERS_PER_EPOCH
    if project_of(config) == "CALR" and cfg.CALR.REFINE.ENABLED:
        return main + 3 * cfg.CALR.INTRA.EPOCHS * cfg.CALR.INTRA.ITERS_PER_EPOCH
    return main


def small_but_own(config: Path) -> dict[str, Any]:
    """Return settings that shrink a config's network but keep its family, norms and pooling."""
    cfg, _ = load_config(str(ROOT / config), ["MODEL.BACKBONE.PRETRAIN", "False"])
    if cfg.MODEL.BACKBONE.NAME != "build_resnet_backbone":
        return {}
    return {
        "MODEL.BACKBONE.NAME": cfg.MODEL.BACKBONE.NAME,
        "MODEL.BACKBONE.DEPTH": "18x",
        "MODEL.BACKBONE.FEAT_DIM": 512,
    }


#: Without ``uda_`` configs: at this width a gate of their OSNet has two hidden units before a ReLU.
#: After random initialisation both may be inactive, and then some parameters have no gradient.
@pytest.mark.parametrize(
    "config", [c for c in CONFIGS if not is_adaptation(c)], ids=lambda p: "/".join(p.parts[1:])
)
def test_one_step__moves_every_trainable_parameter(
    config: Path, synthetic_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With torch >= 2, fast-reid's own optimiser changes no parameter and raises no error."""
    seen: list[UnsupervisedTrainer] = []
    monkeypatch.setattr(UnsupervisedTrainer, "train", lambda self: seen.append(self))
    settings = {k.replace(".", "__"): v for k, v in small_but_own(config).items()}
    settings |= FOR_ONE_STEP.get(project_of(config), {})
    train_tiny(config, synthetic_root, tmp_path, **settings)
    trainer = seen[0]
    trainer.epoch = trainer.iter = 0
    with EventStorage(0) as trainer.storage:
        trainer.before_train()
        trainer.before_epoch()
        model = unwrap(trainer.model)
        if getattr(model, "cluster_weights", None) is not None:
            # If each cluster of a batch has one camera, the loss and its gradients are zero.
            model.cluster_weights = torch.ones_like(model.cluster_weights)
        before = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
        trainer._trainer.iter = 0
        trainer._trainer.storage = trainer.storage
        trainer.before_step()
        trainer.run_step()
    after = dict(model.named_parameters())
    assert before
    assert [n for n, p in before.items() if torch.equal(p, after[n])] == []
    assert [n for n in before if after[n] not in trainer.optimizer.state] == []
    if project_of(config) == "CALR" and trainer.cfg.CALR.ADVERSARY.ENABLED:
        assert any(n.startswith("adversary.") for n in before)


def test_flat_buffer_of_fastreid__is_what_the_test_above_catches() -> None:
    """With torch >= 2 the optimiser of fast-reid leaves every parameter unchanged."""
    cfg, _ = load_tiny(CONFIGS[0])
    model = torch.nn.Linear(3, 1)
    start = model.weight.detach().clone()
    optimizer, _wrapper = build_optimizer(cfg, model, contiguous=True)
    for _ in range(2):
        loss = model(torch.ones(2, 3)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert torch.equal(model.weight, start)
    assert not optimizer.state
