"""Tests; a package, so that test files can import modules such as ``tests.projects.tiny_run``."""
