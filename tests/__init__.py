"""The tests; a package, so that ``tests.oracles`` is importable from any of them."""
