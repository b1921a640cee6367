"""One optimiser step: gradient accumulation, mixed precision, compilation, non-finite values."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fastreid.utils.events import EventStorage
from torch import Tensor, nn

from tests.projects.tiny_run import (
    BASELINE,
    MARKET,
    Interrupted,
    assert_same_labels,
    assert_same_weights,
    final_checkpoint,
    interrupted_at_step,
    load_tiny,
    train_tiny,
)
from unreid.contracts import ReIDModel, StepOutput
from unreid.data.loader import SwappableLoader
from unreid.engine import step as module
from unreid.engine.step import (
    MAX_SKIPPED_STEPS,
    UnsupervisedStep,
    _amp_dtype,
    check_norm_groups,
    compile_backbone,
    split_batch,
)
from unreid.losses.cluster_nce import cluster_nce
from unreid.memory.cluster_memory import ClusterMemory
from unreid.modeling.ghost_norm import use_ghost_norm

CLUSTERS, WIDTH, SIDE = 6, 8, 4
SHORT = {"SOLVER__MAX_EPOCH": 1, "UNSUP__ITERS_PER_EPOCH": 1}


class Model(ReIDModel):
    """A network with ghost batch norm of two images, and a cluster memory."""

    def __init__(self, update: str = "plain") -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, WIDTH, 3), nn.BatchNorm2d(WIDTH), nn.ReLU())
        use_ghost_norm(self, 2)
        self.memory = ClusterMemory(WIDTH, update=update)
        self.memory.reset(F.normalize(torch.randn(CLUSTERS, WIDTH)))
        self.spoil: Any = lambda losses: losses
        self.seen: list[list[int]] = []

    def forward(self, batch: dict[str, Any]) -> StepOutput:
        features = F.normalize(self.backbone(batch["images"]).mean((2, 3)))
        loss = cluster_nce(self.memory(features, batch["targets"]), batch["targets"])
        losses = {
            "loss_memory": loss,
            "loss_other": 0.1 * features.square().sum(1).mean() + 0.1 * features[:, 0].mean(),
        }
        return StepOutput(self.spoil(losses), (features.detach(), batch["targets"]))

    def update_memory(self, update: tuple[Tensor, Tensor]) -> None:
        self.seen.append(update[1].tolist())
        self.memory.update(*update)


def batch(size: int = 16) -> dict[str, Any]:
    """``size`` images, four of each cluster."""
    generator = torch.Generator().manual_seed(3)
    return {
        "images": torch.rand(size, 3, SIDE, SIDE, generator=generator),
        "targets": torch.arange(size) // 4 % CLUSTERS,
        "indices": torch.arange(size),
        "img_paths": [str(i) for i in range(size)],
    }


def step_of(model: nn.Module, **settings: Any) -> UnsupervisedStep:
    loader = SwappableLoader()
    loader.swap([batch()] * 40)  # type: ignore[arg-type]
    made = UnsupervisedStep(
        model, loader, torch.optim.SGD(model.parameters(), 0.1), None, **settings
    )
    made.iter = 7
    return made


@pytest.fixture(autouse=True)
def storage() -> Iterator[EventStorage]:
    torch.manual_seed(5)
    with EventStorage(0) as storage:
        yield storage


def state(model: nn.Module) -> dict[str, Tensor]:
    return {
        k: v.clone()
        for k, v in model.state_dict().items()
        if "running" not in k and "num_batches" not in k
    }


# --- gradient accumulation ---


@pytest.mark.parametrize("update", ["plain", "hard"])
@pytest.mark.parametrize("parts", [2, 4])
def test_micro_batches__give_the_weights_losses_and_memory_of_the_whole_batch(
    parts: int, update: str, storage: EventStorage
) -> None:
    whole = Model(update)
    cut = copy.deepcopy(whole)
    before = state(whole)
    logged = []
    for model, number in ((whole, 1), (cut, parts)):
        made = step_of(model, accumulate=number)
        for _ in range(2):
            made.run_step()
        logged.append({k: v.latest() for k, v in storage.histories().items() if "loss" in k})
    after, other = state(whole), state(cut)
    for name in before:
        assert not torch.equal(before[name], after[name]), name
        torch.testing.assert_close(after[name], other[name], rtol=2e-4, atol=2e-6)
    assert logged[0].keys() >= {"total_loss", "loss_memory", "loss_other"}
    assert logged[0] == pytest.approx(logged[1], rel=1e-4)


def test_running_statistics__of_micro_batches_equal_those_of_the_whole_batch() -> None:
    whole = Model()
    start = whole.backbone[1].running_mean.clone()
    cut = copy.deepcopy(whole)
    for model, parts in ((whole, 1), (cut, 4)):
        step_of(model, accumulate=parts).run_step()
    moved, other = (m.backbone[1].running_mean - start for m in (whole, cut))
    assert moved.norm() > 0.01
    torch.testing.assert_close(moved, other, rtol=0.1, atol=0.002)


def test_memory__is_updated_after_the_optimiser_once_per_micro_batch() -> None:
    model = Model()
    made = step_of(model, accumulate=4)
    order: list[str] = []
    step, end = made.optimizer.step, model.update_memory
    made.optimizer.step = lambda: (order.append("optimiser"), step())  # type: ignore[assignment]
    model.update_memory = lambda update: (  # type: ignore[assignment]
        order.append("memory"),
        end(update),
    )
    made.run_step()
    assert order == ["optimiser", *["memory"] * 4]
    assert [t for part in model.seen for t in part] == batch()["targets"].tolist()


def test_gradients__are_synchronised_for_the_last_micro_batch_only() -> None:
    class Wrapped(nn.parallel.DistributedDataParallel):
        def __init__(self) -> None:
            nn.Module.__init__(self)  # without a process group
            self.module, self.unsynced, self.log = Model(), False, []

        def forward(self, data: dict[str, Any]) -> Any:
            self.log.append(self.unsynced)
            return self.module(data)

        def no_sync(self) -> Any:
            import contextlib

            @contextlib.contextmanager
            def no_sync() -> Iterator[None]:
                self.unsynced = True
                yield
                self.unsynced = False

            return no_sync()

    model = Wrapped()
    step_of(model, accumulate=4).run_step()
    assert model.log == [True, True, True, False]


def test_split_batch__gives_consecutive_images_or_raises() -> None:
    parts = split_batch(batch(), 4)
    assert [p["targets"].tolist() for p in parts] == [[c] * 4 for c in range(4)]
    assert [path for p in parts for path in p["img_paths"]] == batch()["img_paths"]
    assert split_batch(parts[0], 1)[0] is parts[0]
    with pytest.raises(
        ValueError,
        match=r"a batch of 16 images cannot be split into"
        r" SOLVER.ACCUMULATE 3 micro-batches of equal size",
    ):
        split_batch(batch(), 3)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"SOLVER__ACCUMULATE": 0}, "SOLVER.ACCUMULATE must be an integer >= 1, got 0"),
        (
            {"SOLVER__ACCUMULATE": 3},
            r"SOLVER.IMS_PER_BATCH must be a multiple of 6, SOLVER.ACCUMULATE"
            r" \(3\) parts of whole clusters .* got 8",
        ),
        ({"SOLVER__AMP__DTYPE": "float64"}, "SOLVER.AMP.DTYPE must be one of"),
        ({"MODEL__COMPILE_BACKEND": "gcc"}, "MODEL.COMPILE_BACKEND must be one of"),
    ],
)
def test_settings__are_checked_before_any_work(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        load_tiny(BASELINE, **settings)


# --- non-finite values ---


def spoiled(name: str, value: float) -> Any:
    return lambda losses: {**losses, name: losses[name] * value}


@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=["NaN", "infinity"])
@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("amp", [None, torch.float16])
def test_non_finite_loss__is_named_and_changes_no_weight(
    value: float, accumulate: int, amp: torch.dtype | None
) -> None:
    model = Model()
    model.spoil = spoiled("loss_other", value)
    before = state(model)
    made = step_of(model, accumulate=accumulate, amp_dtype=amp)
    with pytest.raises(
        FloatingPointError,
        match=r"^loss_other not finite in iteration 7 \("
        r"loss_memory \d.*loss_other (nan|inf)\)",
    ):
        made.run_step()
    assert all(torch.equal(v, before[k]) for k, v in state(model).items())


class _Spoil(torch.autograd.Function):
    """The identity, whose gradient is infinite."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * float("inf")


def infinite_gradient(losses: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: _Spoil.apply(value) for name, value in losses.items()}


def test_non_finite_gradient__is_named_and_changes_no_weight() -> None:
    model = Model()
    model.spoil = infinite_gradient
    before = state(model)
    with pytest.raises(
        FloatingPointError,
        match=r"the gradient of backbone.0.weight \(and of \d"
        r" others\) is not finite in iteration 7",
    ):
        step_of(model).run_step()
    assert all(torch.equal(v, before[k]) for k, v in state(model).items())
    assert model.seen == []


def test_float16__skips_steps_that_overflow_and_raises_after_the_maximum_number() -> None:
    model = Model()
    made = step_of(model, amp_dtype=torch.float16)
    assert made.grad_scaler is not None
    before, scale = state(model), made.grad_scaler.get_scale()
    model.spoil = infinite_gradient
    made.run_step()
    after = state(model)
    assert all(torch.equal(after[k], before[k]) for k in after if k != "memory.centroids")
    assert made.skipped == 1 and made.grad_scaler.get_scale() == scale / 2
    model.spoil = lambda losses: losses
    made.run_step()
    assert made.skipped == 0
    assert not torch.equal(state(model)["backbone.0.weight"], before["backbone.0.weight"])
    model.spoil = infinite_gradient
    with pytest.raises(
        FloatingPointError, match=rf"in iteration 7 and the {MAX_SKIPPED_STEPS} before"
    ):
        made.skipped = MAX_SKIPPED_STEPS
        made.run_step()
    assert made.skipped == MAX_SKIPPED_STEPS + 1


# --- precision and compilation ---


def test_amp_dtype__is_that_of_the_config_and_bfloat16_needs_hardware_support(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert _amp_dtype(load_tiny(BASELINE)[0]) is None
    for dtype in ("bfloat16", "float16"):
        cfg, _ = load_tiny(BASELINE, SOLVER__AMP__ENABLED=True, SOLVER__AMP__DTYPE=dtype)
        assert _amp_dtype(cfg) == getattr(torch, dtype)
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE, cfg.SOLVER.AMP.DTYPE = "cuda", "bfloat16"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    with pytest.raises(ValueError, match=r"SOLVER.AMP.DTYPE must be float16 on Tesla T4"):
        _amp_dtype(cfg)


@pytest.mark.parametrize(
    ("project", "dtype"),
    [
        ("CALR", "bfloat16"),
        ("SphereCluster", "bfloat16"),
        ("PseudoPair", "bfloat16"),
        ("SphereCluster", "float16"),
    ],
)
def test_mixed_precision__trains_every_method_and_keeps_float32_weights(
    project: str, dtype: str, synthetic_root: Path, tmp_path: Path
) -> None:
    settings = {"SOLVER__AMP__ENABLED": True, "SOLVER__AMP__DTYPE": dtype, **SHORT}
    settings |= {
        "CALR": {"CALR__REFINE__ENABLED": False},
        "SphereCluster": {},
        "PseudoPair": {"PSEUDOPAIR__SURROGATE__EPOCHS": 0},
    }[project]
    config = Path(f"projects/{project}/configs/market.yml")
    train_tiny(config, synthetic_root, tmp_path, **settings, DATASETS__TESTS="()")
    state = final_checkpoint(tmp_path)
    values = [v for v in state["model"].values() if v.is_floating_point()]
    assert all(v.dtype == torch.float32 and bool(torch.isfinite(v).all()) for v in values)
    assert ("grad_scaler" in state) == (dtype == "float16")


def test_resume__with_float16_and_accumulation_is_bit_identical(
    synthetic_root: Path, tmp_path: Path
) -> None:
    settings = {
        "SOLVER__AMP__ENABLED": True,
        "SOLVER__AMP__DTYPE": "float16",
        "SOLVER__ACCUMULATE": 2,
        "DATASETS__TESTS": "()",
    }
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train_tiny(BASELINE, synthetic_root, whole, **settings)
    with pytest.raises(Interrupted), interrupted_at_step(4):
        train_tiny(BASELINE, synthetic_root, stopped, **settings)
    train_tiny(BASELINE, synthetic_root, stopped, resume=True, **settings)
    assert_same_labels(whole, stopped)
    assert_same_weights(whole, stopped)
    scales = [final_checkpoint(o)["grad_scaler"] for o in (whole, stopped)]
    assert scales[0] == scales[1] and scales[0]["scale"] <= 65536


def test_accumulate__is_checked_for_stage_1_too(synthetic_root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"CALR.INTRA.IMS_PER_BATCH must be a multiple of 8"):
        load_tiny(MARKET, SOLVER__ACCUMULATE=4)


def test_compiled_backbone__trains_equally_and_keeps_the_parameter_names() -> None:
    """Backend "eager" generates no code: tested are the compiled modules and the state dict."""
    plain = Model()
    compiled = copy.deepcopy(plain)
    compile_backbone(compiled, "eager", "cpu")
    assert compiled.backbone._compiled_call_impl is not None
    assert compiled._compiled_call_impl is None
    for model in (plain, compiled):
        step_of(model).run_step()
    assert plain.state_dict().keys() == compiled.state_dict().keys()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(value, compiled.state_dict()[name], rtol=1e-4, atol=1e-6)


def test_norm_groups__must_have_one_size_when_compiled() -> None:
    for parts, group, good in ((1, 2, True), (1, 3, False), (2, 3, True), (2, 0, True)):
        cfg, _ = load_tiny(BASELINE, MODEL__GHOST_BN=group, SOLVER__ACCUMULATE=parts)
        if good:
            check_norm_groups(cfg, 1)
        else:
            with pytest.raises(
                ValueError,
                match=r"MODEL.GHOST_BN must split 8 images into groups of equal"
                r" size with MODEL.COMPILE True, got 3",
            ):
                check_norm_groups(cfg, 1)


def test_from_config__passes_all_settings_to_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[tuple[nn.Module, str, str]] = []
    monkeypatch.setattr(module, "compile_backbone", lambda *arguments: compiled.append(arguments))
    model = Model()
    cfg, _ = load_tiny(
        BASELINE,
        MODEL__COMPILE=True,
        SOLVER__ACCUMULATE=2,
        SOLVER__AMP__ENABLED=True,
        SOLVER__AMP__DTYPE="float16",
    )
    made = UnsupervisedStep.from_config(cfg, model, SwappableLoader(), None, None)
    assert compiled == [(model, "inductor", "cpu")]
    assert made.accumulate == 2 and made.amp_dtype == torch.float16
    assert made.grad_scaler is not None


def test_compiler_error__names_the_backend_and_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(function: Any, backend: str) -> Any:
        def run(x: Tensor) -> Tensor:
            raise FileNotFoundError("no C++ compiler")

        return run

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(
        RuntimeError,
        match=r"MODEL.COMPILE: torch.compile with backend 'inductor'"
        r" does not work on this machine.*no C\+\+ compiler",
    ):
        compile_backbone(Model(), "inductor", "cpu")
