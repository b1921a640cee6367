"""Any network of timm as a backbone: ``MODEL.BACKBONE.NAME build_timm_backbone``.

[0] https://github.com/huggingface/pytorch-image-models (Apache-2.0), the extra ``timm``.

Notation: B images, C channels, h x w cells of the map, T prefix tokens (class and part tokens).
"""

from __future__ import annotations

import ast
import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from fastreid.modeling.backbones import BACKBONE_REGISTRY
from torch import Tensor, nn

from unreid.modeling.backbone_config import TIMM
from unreid.modeling.conv_stem import ConvStem, OverlappingPatches

logger = logging.getLogger("fastreid.unreid.timm")

NAME = TIMM
#: Published changes of timm's networks, see ``MODEL.BACKBONE.VARIANT``.
VARIANTS = ("", "ics", "pass")
OUTPUTS = ("map", "class", "parts")


@dataclass(frozen=True)
class Spec:
    """What a network is built from.

    Attributes:
        name: Of timm, such as ``vit_small_patch16_224``.
        size: (height, width) of training images.
        any_size: Whether images of other sizes come, too.
        options: Pairs of timm's own arguments.
        variant: One of :data:`VARIANTS`.
        stride: Pixels between patches; 0: the patch size, without overlap.
        drop_path: Largest rate of stochastic depth.
        keep_stride: Whether the last stage of a convolutional network has a stride of 1.
    """

    name: str
    size: tuple[int, int]
    any_size: bool = False
    options: tuple[tuple[str, Any], ...] = ()
    variant: str = ""
    stride: int = 0
    drop_path: float = 0.0
    keep_stride: bool = False

    @classmethod
    def from_config(cls, cfg: Any) -> Spec:
        """Return the network of ``MODEL.BACKBONE.*`` at ``INPUT.SIZE_*``.

        Raises:
            ValueError: An option is not ``NAME=VALUE``.
        """
        backbone = cfg.MODEL.BACKBONE
        train, test = (_pair(size) for size in (cfg.INPUT.SIZE_TRAIN, cfg.INPUT.SIZE_TEST))
        return cls(
            backbone.TIMM,
            train,
            train != test,
            tuple(sorted(_options(backbone.TIMM_OPTIONS).items())),
            backbone.VARIANT,
            backbone.PATCH_STRIDE,
            backbone.DROP_PATH,
            backbone.LAST_STRIDE == 1,
        )


def _pair(size: Any) -> tuple[int, int]:
    height, width = (*size, *size)[:2]
    return int(height), int(width)


def _options(words: Any) -> dict[str, Any]:
    options = {}
    for word in words:
        name, equals, value = str(word).partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(f"MODEL.BACKBONE.TIMM_OPTIONS must be NAME=VALUE, got {word!r}")
        try:
            options[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            options[name] = value
    return options


def import_timm() -> Any:
    """Return the package timm.

    Raises:
        ImportError: It is not installed; names the extra.
    """
    try:
        import timm
    except ImportError as error:
        raise ImportError(
            f'MODEL.BACKBONE.NAME {NAME} needs timm: pip install "unreid[timm]"'
        ) from error
    return timm


def check_name(name: str) -> None:
    """Refuse a network that timm does not have.

    Raises:
        ImportError: timm is not installed.
        KeyError: No such network; the message suggests the nearest one.
    """
    from unreid.checks import nearest

    timm = import_timm()
    known = timm.list_models()
    if name.partition(".")[0] not in known:
        raise KeyError(
            f"MODEL.BACKBONE.TIMM must be a network of timm {timm.__version__}, such as"
            f" vit_small_patch16_224, got {name!r}{nearest(name, known)}"
        )


def pretrained_config(name: str) -> Any:
    """Return timm's ``PretrainedCfg`` of a network: statistics, size, source."""
    return import_timm().get_pretrained_cfg(name, allow_unregistered=True)


def create(spec: Spec, *, pretrained: bool = False) -> nn.Module:
    """Return timm's network without the parts that only its classifier uses.

    Args:
        spec: The network.
        pretrained: Download timm's own weights.

    Raises:
        ImportError: timm is not installed.
        ValueError: The network does not have what the config asks for.
        RuntimeError: The weights cannot be downloaded.
    """
    network, arguments = _timms(spec)
    if "output_stride" in arguments:
        _undilate(network)
    for name in _classifier_only(spec):
        _remove(network, name)
    if pretrained:
        _download(network, spec)
    return network


def _layout_arguments(spec: Spec) -> dict[str, Any]:
    """Return arguments for image size, patches and stride."""
    if not pretrained_config(spec.name).fixed_input_size:  # convolutions: any size
        return {"output_stride": 16} if spec.keep_stride else {}
    arguments: dict[str, Any] = {"img_size": spec.size}
    if spec.name.startswith("swin"):
        # Windows keep their size where the map is smaller, as published tables of biases need.
        arguments |= {"always_partition": True, "strict_img_size": not spec.any_size}
    elif spec.any_size:
        arguments["dynamic_img_size"] = True
    if spec.variant == "ics":
        arguments["embed_layer"] = ConvStem
    elif spec.variant == "pass":
        arguments["reg_tokens"] = 3
    if spec.stride:
        if spec.variant == "ics" or spec.any_size:
            raise ValueError(
                "MODEL.BACKBONE.PATCH_STRIDE must be 0 with VARIANT ics, and where"
                f" INPUT.SIZE_TRAIN and INPUT.SIZE_TEST differ, got {spec.stride}"
            )
        arguments["embed_layer"] = functools.partial(OverlappingPatches, stride=spec.stride)
    return arguments


def _undilate(network: nn.Module) -> None:
    """Turn the dilated convolutions of ``output_stride`` into plain ones, as re-id networks have.

    timm replaces the last stride by a dilation. fast-reid only takes the stride out.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.dilation != (1, 1):
            if isinstance(module.padding, tuple):
                module.padding = tuple(p // d for p, d in zip(module.padding, module.dilation))
            module.dilation = (1, 1)


@functools.lru_cache(maxsize=32)
def _classifier_only(spec: Spec) -> tuple[str, ...]:
    """Return parameters that no gradient of the map reaches, found on the meta device."""
    network = _on_meta(spec)
    network.forward_features(torch.zeros(2, 3, *spec.size, device="meta")).sum().backward()
    return tuple(name for name, p in network.named_parameters() if p.grad is None)


def _on_meta(spec: Spec) -> Any:
    """Return the network without memory for its values."""
    with torch.device("meta"):
        return _timms(spec)[0]


def _timms(spec: Spec) -> tuple[Any, dict[str, Any]]:
    """Return what timm builds, and the arguments that it was given."""
    arguments = {"num_classes": 0, "drop_path_rate": spec.drop_path, **_layout_arguments(spec)}
    arguments.update(spec.options)
    try:
        return import_timm().create_model(spec.name, pretrained=False, **arguments), arguments
    except (TypeError, NotImplementedError, AssertionError, RuntimeError) as error:
        raise ValueError(
            f"MODEL.BACKBONE.TIMM {spec.name} cannot be built with"
            f" {', '.join(f'{k}={v}' for k, v in arguments.items())}"
            f" ({' '.join(str(error).split())[:200]}); see MODEL.BACKBONE.TIMM_OPTIONS, VARIANT,"
            " PATCH_STRIDE, DROP_PATH and LAST_STRIDE"
        ) from error


def _remove(network: nn.Module, name: str) -> None:
    """Replace the module that owns a parameter, or a parameter of the network itself."""
    owner, _, leaf = name.rpartition(".")
    if not owner:
        setattr(network, leaf, None)
        return
    parent, _, module = owner.rpartition(".")
    setattr(network.get_submodule(parent), module, nn.Identity())


def _download(network: nn.Module, spec: Spec) -> None:
    from unreid.weights.container import StateDict
    from unreid.weights.fit import fit_state

    try:
        published = import_timm().create_model(spec.name, pretrained=True, num_classes=0)
    except Exception as error:  # of the hub's client: many kinds
        raise RuntimeError(
            f"could not download the weights of timm's {spec.name}"
            f" ({' '.join(str(error).split())[:200]}); name a file of your own:"
            " MODEL.BACKBONE.PRETRAIN_PATH path/to/weights.safetensors"
        ) from error
    fit = fit_state(network, StateDict(dict(published.state_dict())), spec.name, "timm's weights")
    network.load_state_dict(fit.matched, strict=False)
    logger.info(f"timm's weights {spec.name}: {fit.describe()}")


class TimmBackbone(nn.Module):
    """timm's network with a map as output: (B, 3, H, W) -> (B, C, h, w).

    Args:
        network: Its ``forward_features`` returns (B, C, h, w), (B, h, w, C) or (B, T + h w, C).
        layout: "NCHW", "NHWC" or "tokens", which of these.
        output: "map"; "class": (B, C, 1, 1) of the class token; "parts": the mean of the class
            token and of the mean of the other prefix tokens, as PASS has it.
        num_features: C.
    """

    def __init__(self, network: nn.Module, layout: str, output: str, num_features: int) -> None:
        super().__init__()
        self.network: Any = network
        self.layout = layout
        self.output = output
        self.num_features = num_features

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, C, h, w) of normalised images."""
        features: Tensor = self.network.forward_features(images)
        if self.layout == "NCHW":
            return features
        if self.layout == "NHWC":
            return features.permute(0, 3, 1, 2)
        prefix = int(self.network.num_prefix_tokens)
        if self.output == "class":
            return features[:, 0, :, None, None]
        if self.output == "parts":
            return ((features[:, 0] + features[:, 1:prefix].mean(1)) / 2)[:, :, None, None]
        embed = self.network.patch_embed
        height, width = embed.grid_size
        if getattr(self.network, "dynamic_img_size", False):
            height, width = embed.dynamic_feat_size(tuple(images.shape[-2:]))
        patches = features[:, prefix:].transpose(1, 2)
        return patches.reshape(len(features), self.num_features, height, width)

    def extra_repr(self) -> str:
        """Return layout and output."""
        return f"layout={self.layout}, output={self.output}"


@functools.lru_cache(maxsize=32)
def probe(spec: Spec) -> tuple[str, int]:
    """Return the layout of ``forward_features`` and C, found on the meta device.

    Raises:
        ValueError: The output is none of these layouts.
    """
    network: Any = _on_meta(spec).eval()
    with torch.no_grad():
        shape = network.forward_features(torch.zeros(1, 3, *spec.size, device="meta")).shape
    channels = int(network.num_features)
    if len(shape) == 4 and shape[1] == channels:
        return "NCHW", channels
    if len(shape) == 4 and shape[3] == channels:
        return "NHWC", channels
    if len(shape) == 3 and shape[2] == channels:
        return "tokens", channels
    raise ValueError(
        f"MODEL.BACKBONE.TIMM {spec.name} must return a map or tokens of {channels} channels,"
        f" got {tuple(shape)}"
    )


@BACKBONE_REGISTRY.register()
def build_timm_backbone(cfg: Any) -> TimmBackbone:
    """Return the network of ``MODEL.BACKBONE.TIMM``; see :func:`create` for errors.

    ``MODEL.BACKBONE.PRETRAIN`` without a path downloads timm's own weights; a path is loaded by
    :func:`unreid.modeling.build.build_model`.
    """
    backbone, spec = cfg.MODEL.BACKBONE, Spec.from_config(cfg)
    download = backbone.PRETRAIN and not backbone.PRETRAIN_PATH
    network: Any = create(spec, pretrained=download)
    layout, channels = probe(spec)
    if layout != "tokens" and backbone.OUTPUT != "map":
        raise ValueError(
            f"MODEL.BACKBONE.OUTPUT must be map for {spec.name}, which has no class token, got"
            f" {backbone.OUTPUT}"
        )
    if backbone.CHECKPOINTING:
        network.set_grad_checkpointing(True)
    if backbone.FREEZE_STEM:
        stem = {k: m for k, m in network.named_children() if k in ("patch_embed", "conv_stem")}
        if not stem:
            raise ValueError(
                f"MODEL.BACKBONE.FREEZE_STEM must be False for {spec.name}: it has no patch"
                " embedding and no module conv_stem"
            )
        for module in stem.values():
            module.requires_grad_(False)
    return TimmBackbone(network, layout, backbone.OUTPUT, channels)


def statistics(cfg: Any) -> Mapping[str, list[float]]:
    """Return ``PIXEL_MEAN`` and ``PIXEL_STD`` in 0..255 of timm's own weights."""
    found = pretrained_config(cfg.MODEL.BACKBONE.TIMM)
    return {
        "PIXEL_MEAN": [round(255 * value, 6) for value in found.mean],
        "PIXEL_STD": [round(255 * value, 6) for value in found.std],
    }
