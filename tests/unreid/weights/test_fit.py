"""Weights to start from: what fits is loaded to the bit, what does not fit is refused by name."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fastreid.modeling.backbones import build_backbone
from fastreid.modeling.meta_arch import build_model as fastreid_build_model
from torch import Tensor, nn

from tests.projects.tiny_run import BASELINE, load_tiny
from unreid.engine.checkpoint import AtomicCheckpointer
from unreid.modeling.build import KEY, build_model
from unreid.weights.fit import compare, load_backbone

MOBILENET: dict[str, Any] = {
    "MODEL__BACKBONE__NAME": "build_mobilenetv2_backbone",
    "MODEL__BACKBONE__DEPTH": "0.35x",
    "MODEL__BACKBONE__FEAT_DIM": 1280,
}
OSNET: dict[str, Any] = {
    "MODEL__BACKBONE__NAME": "build_osnet_backbone",
    "MODEL__BACKBONE__DEPTH": "x0_25",
    "MODEL__BACKBONE__FEAT_DIM": 128,
}
FILES = {
    "mobilenetv2_0.35x_imagenet.pth": MOBILENET,
    "osnet_x0_25_msmt17.pth": OSNET,
}


def published(settings: dict[str, Any], seed: int = 7) -> dict[str, Tensor]:
    """Return a state dict of the backbone with random values, counters included."""
    cfg, _ = load_tiny(BASELINE, **settings)
    network = build_backbone(cfg)
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(value.shape, generator=generator)
        if value.is_floating_point()
        else torch.tensor(41)
        for name, value in network.state_dict().items()
    }


def start(path: Path, settings: dict[str, Any]) -> Any:
    """Return the config that starts from a file, with group-wise batch norm as in training."""
    return load_tiny(
        BASELINE,
        MODEL__BACKBONE__PRETRAIN=True,
        MODEL__BACKBONE__PRETRAIN_PATH=path,
        MODEL__GHOST_BN=4,
        **settings,
    )[0]


def assert_same_start(cfg: Any) -> None:
    """Our loader and fast-reid's give the same model and the same random numbers after it."""
    torch.manual_seed(3)
    ours, after = build_model(cfg).state_dict(), torch.get_rng_state()
    torch.manual_seed(3)
    theirs = fastreid_build_model(cfg).state_dict()
    assert torch.equal(torch.get_rng_state(), after)
    assert ours.keys() == theirs.keys()
    assert [k for k in ours if not torch.equal(ours[k], theirs[k])] == []


@pytest.mark.parametrize("settings", [MOBILENET, OSNET], ids=["MobileNetV2", "OSNet"])
def test_valid_file__gives_the_start_of_fastreids_own_loader(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    state = published(settings)
    torch.save(state, tmp_path / "start.pth")
    cfg = start(tmp_path / "start.pth", settings)
    assert_same_start(cfg)
    loaded = build_model(cfg).state_dict()
    assert [k for k in state if not torch.equal(loaded[f"backbone.{k}"], state[k])] == []


@pytest.mark.parametrize("name", sorted(FILES))
def test_published_file__gives_the_start_of_fastreids_own_loader(
    name: str, shared_data: Path
) -> None:
    assert_same_start(start(shared_data / "weights" / name, FILES[name]))


CONTAINERS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "DataParallel": lambda s: {f"module.{k}": v for k, v in s.items()},
    "supervised, with classifier": lambda s: {
        **s,
        "classifier.weight": torch.zeros(5, 2),
        "fc.0.bias": torch.zeros(2),
    },
    "MoCo": lambda s: {
        "epoch": 200,
        "arch": "resnet50",
        "state_dict": {
            **{f"module.encoder_q.{k}": v for k, v in s.items()},
            **{f"module.encoder_k.{k}": v + 1 for k, v in s.items()},
            "module.queue": torch.zeros(128, 8),
        },
    },
    "DINO": lambda s: {
        "student": {f"module.backbone.{k}": v + 1 for k, v in s.items()},
        "teacher": {
            **{f"backbone.{k}": v for k, v in s.items()},
            "head.mlp.0.weight": torch.zeros(2, 2),
        },
        "epoch": 100,
    },
    "DINO, parallel": lambda s: {"teacher": {f"module.backbone.{k}": v for k, v in s.items()}},
    "fast-reid": lambda s: {
        "model": {
            **{f"backbone.{k}": v for k, v in s.items()},
            "heads.bottleneck.0.bias": torch.zeros(128),
            "heads.weight": torch.zeros(751, 128),
        },
        "iteration": 5,
    },
    "TransReID": lambda s: {f"base.{k}": v for k, v in s.items()},
    "double precision": lambda s: {
        k: v.double() if v.is_floating_point() else v for k, v in s.items()
    },
}


@pytest.mark.parametrize("name", sorted(CONTAINERS))
def test_container__is_unwrapped(name: str, tmp_path: Path) -> None:
    state = published(OSNET)
    torch.save(CONTAINERS[name](state), tmp_path / "start.pth")
    loaded = build_model(start(tmp_path / "start.pth", OSNET)).state_dict()
    assert [k for k in state if not torch.equal(loaded[f"backbone.{k}"], state[k])] == []


def test_safetensors__is_a_file_of_weights(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    state = published(OSNET)
    save_file(state, tmp_path / "start.safetensors")
    loaded = build_model(start(tmp_path / "start.safetensors", OSNET)).state_dict()
    assert [k for k in state if not torch.equal(loaded[f"backbone.{k}"], state[k])] == []


def test_log__counts_and_names_what_was_not_loaded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    torch.save({**network.state_dict(), "fc.weight": torch.zeros(2)}, tmp_path / "a.pth")
    with caplog.at_level(logging.INFO, logger="fastreid"):
        load_backbone(network, str(tmp_path / "a.pth"))
    assert f"weights {tmp_path / 'a.pth'}: loaded 6 of 6 tensors" in caplog.text
    assert "unexpected, left out: fc.weight" in caplog.text


class Runs:
    """Would run code when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.system, ("touch ran",)


def _half_of_the_file(path: Path, state: dict[str, Tensor]) -> None:
    torch.save(state, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


#: Kind of file -> (writes it, what the error says).
BAD: dict[str, tuple[Callable[[Path, dict[str, Tensor]], object], str]] = {
    "text": (lambda p, s: p.write_text("no weights\n"), "cannot be loaded"),
    "web page": (
        lambda p, s: p.write_text("<!DOCTYPE html><html>Virus scan warning</html>"),
        "it is a web page, such as one that asks to confirm a download",
    ),
    "pointer of Git LFS": (
        lambda p, s: p.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        "it is a pointer of Git LFS",
    ),
    "nothing": (lambda p, s: p.write_bytes(b""), "cannot be loaded"),
    "half": (_half_of_the_file, "cannot be loaded"),
    "pickle with code": (lambda p, s: torch.save({**s, "a": Runs()}, p), "asks to run .*system"),
    "plain pickle with code": (
        lambda p, s: p.write_bytes(pickle.dumps(Runs())),
        "asks to run .*system",
    ),
    "list": (lambda p, s: torch.save([1, 2], p), "must hold weights by name.*a list"),
    "no tensors": (
        lambda p, s: torch.save({"epoch": 1}, p),
        "must hold weights by name.*it holds 'epoch'",
    ),
    "another architecture": (
        lambda p, s: torch.save(published(MOBILENET), p),
        "of another backbone than OSNet: loaded 0 of .* tensors; missing: conv1.conv.weight",
    ),
    "another width": (
        lambda p, s: torch.save(published({**OSNET, "MODEL__BACKBONE__DEPTH": "x0_5"}), p),
        r"of another shape: conv1.conv.weight \(32, 3, 7, 7\), not \(16, 3, 7, 7\)",
    ),
    "one tensor missing": (
        lambda p, s: torch.save({k: v for k, v in s.items() if k != "conv5.bn.running_var"}, p),
        "missing: conv5.bn.running_var; all tensors of the backbone are needed",
    ),
    "unknown prefix": (
        lambda p, s: torch.save({f"trunk.{k}": v for k, v in s.items()}, p),
        "loaded 0 of .*unexpected, left out: trunk.conv1.conv.weight",
    ),
    "half precision": (
        lambda p, s: torch.save({k: v.half() for k, v in s.items()}, p),
        "conv1.conv.weight must be float32, got float16",
    ),
    "bfloat16": (
        lambda p, s: torch.save({k: v.bfloat16() for k, v in s.items()}, p),
        "must be float32, got bfloat16",
    ),
    "whole numbers": (
        lambda p, s: torch.save({k: v.long() for k, v in s.items()}, p),
        "torch.int64, not torch.float32",
    ),
    "not finite": (
        lambda p, s: torch.save({**s, "conv1.bn.bias": torch.full((16,), float("nan"))}, p),
        "conv1.bn.bias must be finite",
    ),
    "sparse": (
        lambda p, s: torch.save({**s, "conv1.bn.bias": torch.zeros(16).to_sparse()}, p),
        "conv1.bn.bias must be a dense tensor",
    ),
}


@pytest.mark.parametrize("name", sorted(BAD))
def test_bad_file__is_refused_by_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write, message = BAD[name]
    path = tmp_path / "start.pth"
    write(path, published(OSNET))
    with pytest.raises(ValueError, match=rf"{KEY} .*start\.pth.*{message}"):
        build_model(start(path, OSNET))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"text", b"", b"\x08" + bytes(7) + b"{broken}"])
def test_bad_safetensors__is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "start.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{KEY} .*start.safetensors cannot be loaded"):
        start(path, OSNET)


def test_refused_file__leaves_the_network_as_it_was(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3))
    before = {k: v.clone() for k, v in network.state_dict().items()}
    torch.save({"0.weight": torch.ones(3, 2)}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a\.pth is of another backbone"):
        load_backbone(network, str(tmp_path / "a.pth"))
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())


def test_non_local_blocks__may_be_absent() -> None:
    """They start as an identity; no file of ImageNet weights has them."""
    cfg, _ = load_tiny(
        BASELINE,
        MODEL__BACKBONE__NAME="build_resnet_backbone",
        MODEL__BACKBONE__DEPTH="50x",
        MODEL__BACKBONE__FEAT_DIM=2048,
        MODEL__BACKBONE__WITH_NL=True,
    )
    with torch.device("meta"):
        network = build_backbone(cfg)
    published = {k: v for k, v in network.state_dict().items() if not k.startswith("NL_")}
    fit = compare(network, published)
    assert len(fit.missing) > 50 and fit.lacking == ()
    fit = compare(network, {k: v for k, v in published.items() if k != "layer1.0.bn1.bias"})
    assert fit.lacking == ("layer1.0.bn1.bias",)


class TestWholeModel:
    """``MODEL.WEIGHTS`` and ``--weights`` take the same files as the backbone alone."""

    @pytest.mark.parametrize("name", sorted(CONTAINERS))
    def test_weights_of_a_backbone__load_into_the_model(self, name: str, tmp_path: Path) -> None:
        state = published(OSNET)
        torch.save(CONTAINERS[name](state), tmp_path / "a.pth")
        model = build_model(load_tiny(BASELINE, **OSNET)[0])
        AtomicCheckpointer(model).load(str(tmp_path / "a.pth"))
        loaded = model.state_dict()
        assert [k for k in state if not torch.equal(loaded[f"backbone.{k}"], state[k])] == []

    def test_safetensors_of_a_model__loads(self, tmp_path: Path) -> None:
        from safetensors.torch import save_file

        cfg, _ = load_tiny(BASELINE, **OSNET)
        model, other = build_model(cfg), build_model(cfg)
        save_file(
            {k: v.contiguous() for k, v in model.state_dict().items()}, tmp_path / "a.safetensors"
        )
        AtomicCheckpointer(other).load(str(tmp_path / "a.safetensors"))
        one, two = model.state_dict(), other.state_dict()
        assert all(torch.equal(one[k], two[k]) for k in one)

    @pytest.mark.parametrize("name", sorted(BAD))
    def test_bad_file__is_refused_by_name(
        self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        BAD[name][0](tmp_path / "a.pth", published(OSNET))
        model = build_model(load_tiny(BASELINE, **OSNET)[0])
        with pytest.raises(ValueError, match=r"checkpoint .*a\.pth"):
            AtomicCheckpointer(model).load(str(tmp_path / "a.pth"))
        assert not (tmp_path / "ran").exists()

    def test_checkpoint_in_half_precision__is_refused(self, tmp_path: Path) -> None:
        model = build_model(load_tiny(BASELINE, **OSNET)[0])
        state = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
        torch.save({"model": state}, tmp_path / "a.pth")
        with pytest.raises(ValueError, match=r"a\.pth is damaged.*float32, got torch.float16"):
            AtomicCheckpointer(model).load(str(tmp_path / "a.pth"))
