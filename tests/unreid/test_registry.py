"""Registries whose misses list what exists."""

from __future__ import annotations

import pytest

from unreid.registry import Registry


def test_register__under_own_or_given_name() -> None:
    registry = Registry("labeler", "UNSUP.LABELER")

    @registry.register()
    class First:
        pass

    @registry.register("second")
    def function() -> None:
        pass

    assert registry.get("First") is First and registry.get("second") is function
    assert "First" in registry and "function" not in registry
    assert list(registry) == ["First", "second"]


def test_miss__names_the_key_lists_and_suggests() -> None:
    registry = Registry("sampler", "DATALOADER.SAMPLER_TRAIN")
    with pytest.raises(KeyError) as error:
        registry.get("Any")
    assert error.value.args[0] == (
        "DATALOADER.SAMPLER_TRAIN must be a registered sampler (none), got 'Any'"
    )
    registry.register("ClusterSampler")(object())
    with pytest.raises(KeyError) as error:
        registry.get("clustersampler")
    assert (
        "(ClusterSampler), got 'clustersampler'; did you mean 'ClusterSampler'?"
        in error.value.args[0]
    )


def test_taken_name__is_refused_but_the_same_object_may_come_again() -> None:
    registry, entry = Registry("labeler", "K"), object()
    registry.register("a")(entry)
    assert registry.register("a")(entry) is entry
    with pytest.raises(KeyError, match="a labeler named 'a' is registered already"):
        registry.register("a")(object())
