"""The network: which loss terms are active when, its outputs, and its memories."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.projects.PseudoPair.networks import bank, batch, labels, network
from unreid.structures import FeatureBank, PseudoPairs

ALL = {
    "loss_surrogate",
    "loss_separation",
    "loss_pair",
    "loss_pair_local",
    "loss_diversity",
    "loss_inter",
}
SIDE_BY_SIDE = [0, 1, 2, 5, 4, 4, 6, 7]


def losses(model: Any, epoch: int = 1, indices: list[int] | None = None) -> dict[str, torch.Tensor]:
    model.train()
    model.on_new_labels(labels(), bank(model), epoch)
    model.surrogate and model.surrogate.memory.reset(torch.randn_like(model.surrogate.memory.rows))
    return model(batch(indices or SIDE_BY_SIDE)).losses


def test_schedule__is_surrogate_classes_alone_before_epoch_e0() -> None:
    model = network(PSEUDOPAIR__SURROGATE__EPOCHS=1)
    assert set(losses(model, 0)) == {"loss_surrogate", "loss_whole"}
    assert set(losses(model, 1)) == ALL


def test_schedule__lowers_the_weight_of_the_surrogate_classes() -> None:
    found = [
        losses(
            network(
                PSEUDOPAIR__SURROGATE__EPOCHS=1,
                PSEUDOPAIR__SURROGATE__LATER_WEIGHT=weight,
                PSEUDOPAIR__SURROGATE__NEGATIVES=0,
            )
        )["loss_surrogate"]
        for weight in (0.2, 0.4)
    ]
    assert float(found[1]) == pytest.approx(2 * float(found[0]))


@pytest.mark.parametrize(
    ("switch", "names"),
    [
        ("SURROGATE", {"loss_surrogate"}),
        ("SEPARATION", {"loss_separation"}),
        ("INTRA", {"loss_pair_local", "loss_diversity"}),
        ("INTER", {"loss_inter"}),
    ],
)
def test_term__that_is_off_is_not_there_and_takes_no_other_with_it(
    switch: str, names: set[str]
) -> None:
    model = network(**{f"PSEUDOPAIR__{switch}__ENABLED": False})
    assert set(losses(model)) == ALL - names


def test_term__of_pairs_off_leaves_the_whole_picture_a_class() -> None:
    model = network(PSEUDOPAIR__PAIR__ENABLED=False, PSEUDOPAIR__INTRA__ENABLED=False)
    assert set(losses(model)) == {"loss_surrogate", "loss_whole", "loss_separation", "loss_inter"}


@pytest.mark.parametrize("memory", [True, False])
def test_losses__are_finite_and_move_all_their_parts(memory: bool) -> None:
    model = network(PSEUDOPAIR__PAIR__MEMORY=memory)
    found = losses(model)
    assert all(torch.isfinite(v) for v in found.values())
    sum(found.values()).backward()
    still = [
        n
        for n, p in model.named_parameters()
        if p.requires_grad and (p.grad is None or not torch.isfinite(p.grad).all())
    ]
    assert still == []


@pytest.mark.parametrize("trains", [True, False])
def test_inter_loss__trains_the_backbone_only_where_it_is_to(trains: bool) -> None:
    model = network(PSEUDOPAIR__INTER__TRAINS_BACKBONE=trains)
    losses(model)["loss_inter"].backward()
    reached = {
        n.split(".")[0]
        for n, p in model.named_parameters()
        if p.grad is not None and p.grad.abs().sum() > 0
    }
    assert reached == ({"backbone", "inter"} if trains else {"inter"})


def test_losses__of_a_batch_without_any_pair_are_finite() -> None:
    model = network()
    found = losses(model, indices=[4, 6, 7, 0])
    assert float(found["loss_inter"].detach()) == 0.0
    sum(found.values()).backward()


def test_losses__of_a_batch_of_one_person_are_finite() -> None:
    model = network()
    every = np.array([(i, j) for i in range(8) for j in range(i + 1, 8)])
    model.train()
    model.on_new_labels(labels(PseudoPairs(every, np.full(28, 0.1, np.float32))), bank(model), 1)
    found = model(batch(SIDE_BY_SIDE)).losses
    assert all(torch.isfinite(v) for v in found.values())
    assert float(found["loss_pair"].detach()) == 0.0


def test_losses__without_pairs_at_all_are_finite() -> None:
    model = network()
    none = PseudoPairs(np.zeros((0, 2), np.int64), np.zeros(0, np.float32))
    model.train()
    model.on_new_labels(labels(none), bank(model), 1)
    found = model(batch([0, 0, 3, 3])).losses
    assert set(found) == ALL and all(torch.isfinite(v) for v in found.values())


def test_features__are_body_and_heads_side_by_side_in_unit_length() -> None:
    model = network(PSEUDOPAIR__INTRA__HEADS=3).eval()
    pictures = batch([0, 1])
    with torch.no_grad():
        found = model({"images": pictures["images"]})
        groups, _ = model.group_features(model.backbone(model.normalized(pictures["images"])))
    assert found.shape == (2, 4 * model.heads.num_features)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(found, groups.flatten(1) / 2)


def test_features__without_heads_are_those_of_the_body() -> None:
    model = network(PSEUDOPAIR__INTRA__ENABLED=False).eval()
    pictures = batch([0, 1])["images"]
    with torch.no_grad():
        expected = model.heads(model.backbone(model.normalized(pictures)))
        torch.testing.assert_close(model({"images": pictures}), expected)


def test_label_step__fills_the_surrogate_rows_from_what_was_extracted() -> None:
    model = network().eval()
    with torch.inference_mode():
        found = [model.extract_features(batch(indices)) for indices in ([0, 1, 2, 3, 4], [5, 6, 7])]
        for indices, (features, _) in zip(([0, 1, 2, 3, 4], [5, 6, 7]), found):
            torch.testing.assert_close(features, model(batch(indices)))
    model.on_extracted([extra for _, extra in found])
    model.on_new_labels(labels(), bank(model), 0)
    rows = model.surrogate.memory.rows
    torch.testing.assert_close(rows.norm(dim=2), torch.ones(rows.shape[:2]))
    before = rows.clone()
    with torch.inference_mode():
        _, extra = model.extract_features(batch([0, 1]))
    assert extra is None
    model.on_extracted([extra])
    model.on_new_labels(labels(), bank(model), 1)
    assert torch.equal(model.surrogate.memory.rows, before)


def test_label_step__makes_the_rows_of_body_and_heads_from_the_bank() -> None:
    model = network()
    given = bank(model)
    model.on_new_labels(labels(), given, 0)
    width = model.memory.num_features
    for group in range(model.memory.num_groups):
        part = torch.from_numpy(given.features[:, group * width : (group + 1) * width].copy())
        torch.testing.assert_close(model.memory.rows[group], F.normalize(part))


def test_update_memory__moves_the_rows_of_the_batch_only() -> None:
    model = network()
    losses(model)
    attributes = {k: v for k, v in vars(model).items() if k != "_generator"}
    before = model.memory.rows.clone(), model.surrogate.memory.rows.clone()
    update = model(batch(SIDE_BY_SIDE)).memory_update
    assert {k: v for k, v in vars(model).items() if k != "_generator"} == attributes
    assert torch.equal(model.memory.rows, before[0])
    model.update_memory(update)
    for old, new in zip(before, (model.memory.rows, model.surrogate.memory.rows)):
        moved = (old != new).any(dim=2).any(dim=0)
        assert moved.nonzero().flatten().tolist() == sorted(set(SIDE_BY_SIDE))


def test_beta__is_todays_percentile_or_its_moving_average() -> None:
    today, mixed = network(), network(PSEUDOPAIR__SEPARATION__BETA_MOMENTUM=0.75)
    values = []
    for seed in (0, 1):
        for model in (today, mixed):
            model.on_new_labels(labels(), bank(model, seed=seed), 0)
        values.append((float(today.beta), float(mixed.beta)))
    (first, start), (second, average) = values
    assert start == first != second
    assert average == pytest.approx(0.75 * first + 0.25 * second)


def test_collapse__stops_the_label_step_after_training_but_not_before() -> None:
    model = network(PSEUDOPAIR__SEPARATION__MAX_SIMILARITY=0.9)
    given = bank(model)
    same = FeatureBank(np.tile(given.features[:1], (8, 1)), given.camids)
    model.on_new_labels(labels(), same, 0)
    with pytest.raises(RuntimeError, match=r"MAX_SIMILARITY 0\.9"):
        model.on_new_labels(labels(), same, 1)


def test_labels__without_pairs_are_refused() -> None:
    model = network()
    with pytest.raises(RuntimeError, match="PseudoPairLabeler"):
        model.on_new_labels(labels(None), bank(model), 0)


def test_state__of_a_trained_model_loads_into_a_fresh_one() -> None:
    trained, fresh = network(), network()
    losses(trained)
    trained.update_memory(trained(batch(SIDE_BY_SIDE)).memory_update)
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(fresh.surrogate.memory.rows, trained.surrogate.memory.rows)
    assert torch.equal(fresh.beta, trained.beta)
    fresh.eval(), trained.eval()
    pictures = {"images": batch([0, 1])["images"]}
    with torch.no_grad():
        assert torch.equal(fresh(pictures), trained(pictures))


def test_draws__of_an_epoch_repeat_themselves() -> None:
    found = [losses(network(PSEUDOPAIR__PAIR__NEGATIVES=3))["loss_pair"] for _ in range(2)]
    assert torch.equal(*found)


def test_pair_similarity__compares_reduced_maps() -> None:
    model = network().eval()
    maps = model.pair_maps(batch([0, 1, 2])["images"])
    assert maps.shape == (3, 16, 4, 2) and not maps.requires_grad
    own = model.pair_similarity(maps, maps)
    assert own.shape == (3,) and (own.abs() <= 1 + 1e-5).all()
    torch.testing.assert_close(own, model.inter(maps, maps))


def test_pair_similarity__is_refused_without_inter() -> None:
    model = network(PSEUDOPAIR__INTER__ENABLED=False)
    with pytest.raises(RuntimeError, match=r"PSEUDOPAIR\.INTER\.ENABLED must be True"):
        model.pair_maps(batch([0])["images"])
