"""Images of a trained model's pairs, from the command line and by function calls."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from pseudopair.meta_arch import PseudoPair
from pseudopair.show import alignments, head_heatmaps, select_pairs
from tests.projects.overrides import ROOT, tiny_options
from tests.projects.tiny_run import load_tiny
from unreid.engine.trainer import UnsupervisedTrainer
from unreid.structures import PseudoPairs

CONFIG = Path("projects/PseudoPair/configs/synthetic.yml")


def tiny_model(seed: int = 0, **settings: object) -> PseudoPair:
    cfg, _ = load_tiny(CONFIG, **settings)
    torch.manual_seed(seed)
    return UnsupervisedTrainer.build_model(cfg).eval()


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("show_pairs", ROOT / "tools/show_pairs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_chosen_pairs__are_of_two_cameras_while_there_are_enough_and_no_image_twice() -> None:
    indices = np.array([[0, 1], [0, 2], [2, 3], [4, 5], [6, 7]])
    confidence = np.array([0.9, 0.8, 0.2, 0.7, 0.1], dtype=np.float32)
    camids = np.array([0, 1, 0, 1, 0, 0, 0, 1])
    pairs = PseudoPairs(indices, confidence)
    # (0, 2) and (4, 5) are pairs within a camera; (0, 1), (2, 3), (6, 7) are cross-camera pairs.
    assert select_pairs(pairs, camids, 3).tolist() == [[0, 1], [2, 3], [6, 7]]
    assert select_pairs(pairs, camids, 2).tolist() == [[0, 1], [6, 7]]
    assert select_pairs(pairs, camids, 9).tolist() == [[0, 1], [2, 3], [6, 7], [4, 5]]


def test_heats__of_a_head_that_keeps_everything_are_zero_in_sum() -> None:
    """|g_k|^2 is 1 for every feature map, so no position contributes."""
    model = tiny_model()
    assert model.intra is not None
    images = torch.rand(3, 3, 64, 32) * 255
    with torch.no_grad():
        excite = model.intra.attention.excite
        assert excite.bias is not None
        excite.weight.zero_()
        excite.bias.fill_(20.0)
    heats = head_heatmaps(model, images)
    assert heats.shape[:2] == (3, model.intra.num_heads)
    assert float(heats.sum(dim=(2, 3)).abs().max()) < 1e-4


def test_heats__are_the_derivative_of_what_a_head_keeps() -> None:
    model = tiny_model().double()
    assert model.intra is not None
    images = torch.rand(2, 3, 64, 32, dtype=torch.float64) * 255
    heats = head_heatmaps(model, images)
    with torch.no_grad():
        maps = model.backbone(model.normalized(images))
        pool = model.heads.pool_layer
        _, weights = model.intra.describe(maps, model.heads(maps), pool)

        def kept(share: float) -> torch.Tensor:
            """Return |g_k|^2 of the map after scaling one position by 1 + ``share``."""
            changed = maps.clone()
            changed[:, :, 1, 0] *= 1 + share
            described, _ = model.intra.describe(changed, model.heads(changed), pool)
            return (weights * described).square().sum(2)

        slope = (kept(0.3) - kept(-0.3)) / 0.6
    assert float(slope.abs().max()) > 1e-4, "there is something to compare"
    torch.testing.assert_close(heats[:, :, 1, 0].double(), slope.double(), rtol=0.03, atol=1e-6)


def test_alignments__land_inside_the_partner() -> None:
    model = tiny_model()
    images = torch.rand(2, 3, 64, 32) * 255
    found = alignments(model, images, images.flip(3))
    assert len(found) == 2
    for landed, similarities in found:
        assert landed.shape == (*similarities.shape, 2)
        assert landed.min() >= 0 and landed.max() <= 1
        assert similarities.min() >= -1 and similarities.max() <= 1.0001


def test_command__draws_heads_and_alignments(
    tool: ModuleType, synthetic_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.environ["FASTREID_DATASETS"] = str(synthetic_root)
    weights = tmp_path / "model.pth"
    torch.save({"model": tiny_model().state_dict()}, weights)
    output = tmp_path / "pictures"
    options = tiny_options(CONFIG, tmp_path)
    command = [
        "--config-file",
        str(ROOT / CONFIG),
        "--weights",
        str(weights),
        "--output",
        str(output),
        "--pairs",
        "4",
        "--images",
        "60",
        *options,
    ]
    assert tool.main(command) == 0
    printed = capsys.readouterr().out.split()
    assert [Path(p).name for p in printed] == ["pairs_heads.jpg", "pairs_alignment.jpg"]
    heads, alignment = (Image.open(p) for p in printed)
    assert heads.height == 8 * (64 + 4) - 4, "both images of four pairs"
    assert heads.width == 5 * (32 + 4) - 4, "the image and four heads"
    assert alignment.height == 2 * (128 + 4) - 4, "three pairs, and one below"
    assert all(os.path.getsize(p) < 100_000 for p in printed)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["--pairs", "0"], "--pairs must be an integer >= 1, got 0"),
        (["--images", "1"], "--images must be an integer >= 2, got 1"),
        (["--config-file", str(ROOT / "projects/CALR/configs/market.yml")],
         "PROJECT CALR has nothing to draw; PseudoPair has"),
        (["--weights", "nowhere.pth"], "nowhere.pth: no such file"),
        (["PSEUDOPAIR.INTRA.ENABLED", "False", "PSEUDOPAIR.INTER.ENABLED", "False"],
         "must be True to draw figures, got False for both"),
    ],
)  # fmt: skip
def test_bad_input__is_an_error_in_words(
    tool: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: list[str],
    words: str,
) -> None:
    command = ["--config-file", str(ROOT / CONFIG), "--weights", "x", "--output", str(tmp_path)]
    options = [] if "projects/CALR" in changes[1] else tiny_options(CONFIG, tmp_path)
    named = changes if changes[0].startswith("--") else []
    assert tool.main([*command, *named, *options, *(changes if not named else [])]) == 2
    assert words in capsys.readouterr().err
