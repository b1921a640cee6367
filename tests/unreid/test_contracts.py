"""The base classes of a method: what their defaults do, and that nothing probes for methods."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils import _pytree

from tests.import_rules import ROOT, sources
from unreid.contracts import Labeler, Project, ReIDModel, StepOutput
from unreid.structures import FeatureBank, PseudoLabels


class OneCluster(Labeler):
    """The least that a labeler must define."""

    def __init__(self, cfg: object) -> None:
        self.cfg = cfg

    def __call__(self, bank: FeatureBank, epoch: int) -> PseudoLabels:
        return PseudoLabels(np.zeros(len(bank), np.int64))


def test_labeler__needs_call_alone() -> None:
    labeler = OneCluster.from_config("cfg", None)  # type: ignore[arg-type]
    assert isinstance(labeler, OneCluster) and labeler.cfg == "cfg"
    OneCluster.check_images("cfg", None)  # type: ignore[arg-type]
    assert labeler.renews(0) and labeler.renews(7)
    assert labeler.describe() == "OneCluster"
    assert labeler.state_dict() == {}
    labeler.load_state_dict({})
    assert not labeler.selects_model
    with pytest.raises(NotImplementedError, match="OneCluster selects no model"):
        labeler.selection_score(None, None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="abstract"):
        Labeler()  # type: ignore[abstract]


class Mean(ReIDModel):
    """The least that a model must define."""

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return batch["images"].mean((2, 3))


def test_model__needs_forward_alone() -> None:
    model = Mean()
    batch = {"images": torch.rand(2, 3, 4, 4)}
    features, extra = model.extract_features(batch)
    assert torch.equal(features, model(batch)) and extra is None
    model.on_extracted([extra])
    model.on_new_labels(None, None, 0)  # type: ignore[arg-type]
    model.update_memory(None)
    assert list(model.label_parameters()) == [] and model.find_unused_parameters
    assert vars(model).keys() == vars(Mean()).keys()


def test_step_output__is_seen_into_by_distributed_data_parallel() -> None:
    """It looks for tensors by pytree and in tuples and dicts; another container hides them."""
    loss, kept = torch.ones((), requires_grad=True) * 2, torch.ones(3)
    output = StepOutput({"loss": loss}, (kept, None))
    leaves, spec = _pytree.tree_flatten(output)
    assert any(leaf is loss for leaf in leaves) and any(leaf is kept for leaf in leaves)
    assert isinstance(_pytree.tree_unflatten(leaves, spec), StepOutput)
    found = list(torch.nn.parallel.distributed._find_tensors(output))
    assert any(tensor is loss for tensor in found)


def optional_methods() -> set[str]:
    """Names of everything that the three contracts define."""
    return {
        name
        for kind in (Labeler, ReIDModel, Project)
        for name, value in vars(kind).items()
        if not name.startswith("__")
        and (inspect.isroutine(value) or not callable(value))
        and not name.startswith("_abc")
    }


def probes(source: str, names: set[str]) -> list[str]:
    """``hasattr(x, "name")`` and ``getattr(x, "name", ...)`` for one of these names."""
    calls = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call)]
    return [
        ast.unparse(n)
        for n in calls
        if ast.unparse(n.func) in ("hasattr", "getattr")
        and len(n.args) > 1
        and isinstance(n.args[1], ast.Constant)
        and n.args[1].value in names
    ]


def test_optional_methods__are_called_and_never_probed_for() -> None:
    names = optional_methods() | {"pairs", "subset"}
    assert {
        "renews",
        "selection_score",
        "state_dict",
        "find_unused_parameters",
        "update_memory",
        "before_training",
        "draw_pictures",
        "check_images",
    } <= names
    assert probes("if hasattr(labeler, 'renews'): pass\ngetattr(x, 'describe', None)", names) != []
    for path in sources("unreid", "projects", "tools"):
        assert probes((ROOT / Path(path)).read_text(), names) == [], path
