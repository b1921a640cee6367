"""timm's networks as backbones: one map for every head, weights, refused settings."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from fastreid.config import get_cfg
from torch import nn

from tests.projects.tiny_run import BASELINE, final_checkpoint, load_tiny, train_tiny
from unreid.config import config_hash
from unreid.engine.checkpoint import AtomicCheckpointer
from unreid.modeling.build import build_model
from unreid.modeling.conv_stem import OverlappingPatches
from unreid.modeling.ghost_norm import use_ghost_norm

timm = pytest.importorskip("timm")

#: Small networks: name -> options, size of the map at 64 x 32 with LAST_STRIDE 1.
NETWORKS: dict[str, tuple[list[str], tuple[int, ...]]] = {
    "vit_tiny_patch16_224": (["depth=2", "embed_dim=48"], (48, 4, 2)),
    "swin_tiny_patch4_window7_224": (
        ["depths=(1,2)", "num_heads=(3,6)", "embed_dim=24"],
        (48, 8, 4),
    ),
    "convnext_atto": (["depths=(1,1,1,1)", "dims=(8,16,24,32)"], (32, 4, 2)),
    "tf_efficientnet_lite0": ([], (1280, 4, 2)),
    "resnet10t": ([], (512, 4, 2)),
}
VIT = "vit_tiny_patch16_224"


def config(name: str = VIT, options: list[str] | None = None, **settings: Any) -> Any:
    if options is None:
        options = NETWORKS[name][0]
    named = {k if "__" in k else f"MODEL__BACKBONE__{k}": v for k, v in settings.items()}
    return load_tiny(
        BASELINE,
        MODEL__BACKBONE__NAME="build_timm_backbone",
        MODEL__BACKBONE__TIMM=name,
        MODEL__BACKBONE__TIMM_OPTIONS=options,
        **named,
    )[0]


def images(count: int = 2, size: tuple[int, int] = (64, 32)) -> torch.Tensor:
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_kind_of_network__gives_a_map_that_trains_whole(name: str) -> None:
    cfg = config(name)
    model = build_model(cfg)
    output = model.backbone.train()(images())
    assert tuple(output.shape[1:]) == NETWORKS[name][1]
    assert cfg.MODEL.BACKBONE.FEAT_DIM == output.shape[1] == model.heads.num_features
    output.square().sum().backward()
    assert [n for n, p in model.backbone.named_parameters() if p.grad is None] == []


def test_map__is_the_patches_in_rows_and_class_is_the_token() -> None:
    model = build_model(config()).eval()
    tokens = model.backbone.network.forward_features(images())
    output = model.backbone(images())
    assert torch.equal(output[:, :, 1, 0], tokens[:, 1 + 2])  # second row, two patches per row
    model = build_model(config(OUTPUT="class")).eval()
    token = model.backbone.network.forward_features(images())[:, 0]
    assert torch.equal(model.backbone(images())[:, :, 0, 0], token)


def test_parts__are_the_mean_of_class_and_part_tokens() -> None:
    model = build_model(config(OUTPUT="parts", VARIANT="pass")).eval()
    tokens = model.backbone.network.forward_features(images())
    assert tokens.shape[1] == 4 + 8
    expected = (tokens[:, 0] + (tokens[:, 1] + tokens[:, 2] + tokens[:, 3]) / 3) / 2
    torch.testing.assert_close(model.backbone(images())[:, :, 0, 0], expected)


def test_file_of_pass__has_its_tokens_and_positions_in_order(tmp_path: Path) -> None:
    """Names of PASS-reID, PASS_cluster_contrast_reid, clustercontrast/models."""
    cfg = config(VARIANT="pass")
    published = dict(build_model(cfg).backbone.network.state_dict())
    del published["reg_token"]
    generator = torch.Generator().manual_seed(2)
    tokens = ("cls_token", "part_token1", "part_token2", "part_token3")
    positions = ("cls_pos", "part1_pos", "part2_pos", "part3_pos")
    for name in (*tokens, *positions):
        published[name] = torch.randn(1, 1, 48, generator=generator)
    published["pos_embed"] = torch.randn(1, 8, 48, generator=generator)
    torch.save({"teacher": {f"backbone.{k}": v for k, v in published.items()}}, tmp_path / "a")
    start = config(VARIANT="pass", PRETRAIN=True, PRETRAIN_PATH=tmp_path / "a")
    network = build_model(start).backbone.network.eval()
    patches = network.patch_embed(images())
    x = torch.cat([*(published[k].expand(2, -1, -1) for k in tokens), patches], 1)
    x = x + torch.cat([*(published[k] for k in positions), published["pos_embed"]], 1)
    expected = network.norm(network.blocks(x))
    torch.testing.assert_close(network.forward_features(images()), expected)


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "convnext_atto"])
def test_file_of_timms_names__gives_timms_forward_pass(name: str, tmp_path: Path) -> None:
    options = NETWORKS[name][0]
    arguments: dict[str, Any] = {
        "tf_efficientnet_lite0": {},
        "convnext_atto": {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)},
    }[name]
    reference = timm.create_model(name, num_classes=7, **arguments).eval()
    torch.save(reference.state_dict(), tmp_path / "a.pth")
    cfg = config(name, options, LAST_STRIDE=2, PRETRAIN=True, PRETRAIN_PATH=tmp_path / "a.pth")
    model = build_model(cfg).eval()
    torch.testing.assert_close(model.backbone(images()), reference.forward_features(images()))


def test_square_position_embedding__is_interpolated_as_timm_does(tmp_path: Path) -> None:
    arguments = {"depth": 2, "embed_dim": 48, "num_classes": 0}
    square = timm.create_model(VIT, img_size=64, **arguments)
    torch.save(square.state_dict(), tmp_path / "a.pth")
    reference = timm.create_model(VIT, img_size=(64, 32), **arguments).eval()
    from timm.models.vision_transformer import checkpoint_filter_fn

    reference.load_state_dict(checkpoint_filter_fn(square.state_dict(), reference))
    model = build_model(config(PRETRAIN=True, PRETRAIN_PATH=tmp_path / "a.pth")).eval()
    output = model.backbone.network.forward_features(images())
    torch.testing.assert_close(output, reference.forward_features(images()))


def test_weights_of_the_backbone_alone__start_the_whole_model(tmp_path: Path) -> None:
    cfg = config()
    source, model = build_model(cfg), build_model(cfg)
    state = source.backbone.network.state_dict()
    torch.save({"teacher": {f"module.backbone.{k}": v for k, v in state.items()}}, tmp_path / "a")
    AtomicCheckpointer(model).load(str(tmp_path / "a"))
    loaded = model.backbone.network.state_dict()
    assert all(torch.equal(state[k], loaded[k]) for k in state)


def test_last_stride__is_taken_out_without_a_dilation() -> None:
    plain = build_model(config("resnet18", [], LAST_STRIDE=2)).backbone
    kept = build_model(config("resnet18", [], LAST_STRIDE=1)).backbone
    kept.load_state_dict(plain.state_dict())
    block = plain.network.layer4[0]
    block.conv1.stride = block.downsample[0].stride = (1, 1)
    torch.testing.assert_close(kept.eval()(images()), plain.eval()(images()))


def test_overlapping_patches__have_more_cells_and_the_same_weights() -> None:
    plain, dense = build_model(config()), build_model(config(PATCH_STRIDE=8))
    assert tuple(dense.backbone(images()).shape) == (2, 48, 7, 3)
    embed = OverlappingPatches((64, 32), 16, 3, 48, stride=16)
    embed.load_state_dict(plain.backbone.network.patch_embed.state_dict())
    torch.testing.assert_close(embed(images()), plain.backbone.network.patch_embed(images()))


@pytest.mark.parametrize("variant", ["", "ics"])
def test_test_images_of_another_size__give_a_larger_map(variant: str) -> None:
    model = build_model(config(INPUT__SIZE_TEST=[96, 48], VARIANT=variant)).eval()
    assert tuple(model.backbone(images()).shape) == (2, 48, 4, 2)
    assert tuple(model.backbone(images(size=(96, 48))).shape) == (2, 48, 6, 3)


def test_convolution_stem__has_the_published_names_and_is_trained_or_frozen() -> None:
    embed = build_model(config(VARIANT="ics")).backbone.network.patch_embed
    shapes = {k: tuple(v.shape) for k, v in embed.state_dict().items() if v.ndim > 1}
    assert shapes == {
        "conv.0.weight": (64, 3, 7, 7),
        "conv.3.weight": (64, 64, 3, 3),
        "conv.6.weight": (64, 64, 3, 3),
        "proj.weight": (48, 64, 8, 8),
    }
    assert {"conv.1.IN.weight", "conv.1.BN.running_var", "conv.4.IN.bias", "conv.7.weight"} <= set(
        embed.state_dict()
    )
    frozen = build_model(config(FREEZE_STEM=True)).backbone.network
    assert not any(p.requires_grad for p in frozen.patch_embed.parameters())
    assert all(p.requires_grad for p in frozen.blocks.parameters())


def test_checkpointing__gives_the_same_gradient() -> None:
    model = build_model(config()).backbone.train()
    other = build_model(config(CHECKPOINTING=True)).backbone.train()
    other.load_state_dict(model.state_dict())
    for network in (model, other):
        network(images()).square().sum().backward()
    for one, two in zip(model.parameters(), other.parameters()):
        torch.testing.assert_close(one.grad, two.grad)


def test_drop_path__rises_over_the_blocks() -> None:
    blocks = build_model(config(DROP_PATH=0.2)).backbone.network.blocks
    assert [getattr(b.drop_path1, "drop_prob", 0.0) for b in blocks] == pytest.approx([0.0, 0.2])


def test_statistics__are_those_of_the_weights_unless_given(caplog: Any) -> None:
    with caplog.at_level("INFO", logger="fastreid"):
        cfg = config()
    assert list(cfg.MODEL.PIXEL_MEAN) == [127.5] * 3 and list(cfg.MODEL.PIXEL_STD) == [127.5] * 3
    assert f"MODEL.PIXEL_MEAN [127.5, 127.5, 127.5], of timm's {VIT}" in caplog.text
    assert list(config(MODEL__PIXEL_MEAN=[1.0, 2.0, 3.0]).MODEL.PIXEL_MEAN) == [1.0, 2.0, 3.0]


def test_ghost_norm__keeps_timms_activation() -> None:
    network = build_model(config("tf_efficientnet_lite0", MODEL__GHOST_BN=2)).backbone.network
    plain = build_model(config("tf_efficientnet_lite0")).backbone.network
    plain.load_state_dict(network.state_dict())
    ghost, norm = network.bn1.train(), plain.bn1.train()
    x = images(4)[:, :1].expand(-1, norm.num_features, -1, -1) * 9
    torch.testing.assert_close(ghost(x), torch.cat([norm(x[:2]), norm(x[2:])]))
    assert float(ghost(x).detach().min()) == 0.0  # ReLU6


def test_ghost_norm__refuses_a_norm_that_it_does_not_know() -> None:
    class Scaled(nn.BatchNorm2d):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(input)

    with pytest.raises(ValueError, match=r"MODEL.GHOST_BN must be 0 .*Scaled, got 4"):
        use_ghost_norm(nn.Sequential(Scaled(3)), 4)


def test_mixed_precision_and_export__work() -> None:
    backbone = build_model(config()).backbone.eval()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(backbone(images())).all()
    batch = {"images": {0: torch.export.Dim("batch", min=1)}}
    program = torch.export.export(backbone, (images(),), strict=True, dynamic_shapes=batch)
    torch.testing.assert_close(program.module()(images(3)), backbone(images(3)))


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "name": ({"name": "vit_smal_patch16_224", "options": []}, KeyError, "did you mean"),
    "no name": ({"name": "", "options": []}, KeyError, "MODEL.BACKBONE.TIMM must be a network"),
    "option": ({"options": ["depth"]}, ValueError, "TIMM_OPTIONS must be NAME=VALUE, got 'depth'"),
    "unknown option": ({"options": ["dpth=2"]}, ValueError, "cannot be built with"),
    "variant": ({"VARIANT": "abc"}, ValueError, "MODEL.BACKBONE.VARIANT must be"),
    "output": ({"OUTPUT": "mean"}, ValueError, "MODEL.BACKBONE.OUTPUT must be"),
    "class of a map": (
        {"name": "convnext_atto", "OUTPUT": "class"},
        ValueError,
        "OUTPUT must be map for convnext_atto, which has no class token, got class",
    ),
    "drop path": ({"DROP_PATH": 1.0}, ValueError, "MODEL.BACKBONE.DROP_PATH must be"),
    "overlap at two sizes": (
        {"PATCH_STRIDE": 8, "INPUT__SIZE_TEST": [96, 48]},
        ValueError,
        "PATCH_STRIDE must be 0 .* got 8",
    ),
}


@pytest.mark.parametrize("name", sorted(BAD))
def test_bad_setting__is_refused_by_its_key(name: str) -> None:
    settings, kind, message = BAD[name]
    with pytest.raises(kind, match=message):
        build_model(config(**settings))


def test_name_for_another_backbone__is_refused() -> None:
    with pytest.raises(ValueError, match=r"set MODEL.BACKBONE.NAME build_timm_backbone"):
        load_tiny(BASELINE, MODEL__BACKBONE__TIMM=VIT)


def test_missing_timm__names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r'needs timm: pip install "unreid\[timm\]"'):
        config()


def test_keys_of_timm__do_not_change_the_hash_of_other_runs() -> None:
    cfg, _ = load_tiny(BASELINE)
    before = cfg.clone()
    before.defrost()
    for key in set(before.MODEL.BACKBONE) - set(get_cfg().MODEL.BACKBONE):
        before.MODEL.BACKBONE.pop(key)
    assert len(before.MODEL.BACKBONE) == len(cfg.MODEL.BACKBONE) - 8
    assert config_hash(before) == config_hash(cfg)
    assert config_hash(config()) != config_hash(config(DROP_PATH=0.1))


def test_run__trains_evaluates_and_leaves_a_checkpoint(
    synthetic_root: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    results = train_tiny(
        BASELINE,
        synthetic_root,
        output,
        MODEL__BACKBONE__NAME="build_timm_backbone",
        MODEL__BACKBONE__TIMM=VIT,
        MODEL__BACKBONE__TIMM_OPTIONS=["depth=1", "embed_dim=24"],
        MODEL__BACKBONE__DROP_PATH=0.1,
    )
    assert results["after"]["mAP"] > 0
    assert "backbone.network.blocks.0.attn.qkv.weight" in final_checkpoint(output)["model"]
