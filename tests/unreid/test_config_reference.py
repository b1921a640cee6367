"""The reference of config keys has every key, default and comment, and the page is up to date."""

from __future__ import annotations

import pytest
from fastreid.config import CfgNode, get_cfg

from tests.projects.overrides import ROOT
from unreid.config import add_unreid_config
from unreid.config_reference import declared, main, read_groups, reference, section
from unreid.projects import discover_projects, load_project

PAGE = ROOT / "docs" / "config_keys.md"
COMMAND = "python -m unreid.config_reference --output docs/config_keys.md"


def _add_below(node: CfgNode) -> None:
    # Side of the square.
    node.SIDE = 3


def _add_example(cfg: CfgNode) -> None:
    """Declare keys in every form that a config.py uses."""
    inner = cfg.OUTER = CfgNode()
    # One meaning
    # in two lines.
    inner.FIRST = 1
    inner.SECOND = "a | b"

    # After a blank line.
    cfg.OUTER.THIRD = (1, 2)
    cfg.OUTER.NODE = CfgNode()
    _add_below(cfg.OUTER.NODE)


def _add_without_comment(cfg: CfgNode) -> None:
    cfg.OUTER = CfgNode()
    cfg.OUTER.FIRST = 1


class _Method:
    def add_config(self, cfg: CfgNode) -> None:
        # Declared by a method.
        cfg.KEY = 1


def _add_in_a_loop(cfg: CfgNode) -> None:
    cfg.OUTER = CfgNode()
    for name in ("A", "B"):
        cfg.OUTER[name] = 1


def test_groups__follow_comments_blank_lines_nodes_and_calls() -> None:
    groups = [(group.keys, group.meaning) for group in read_groups(_add_example)]
    assert groups == [
        (["OUTER.FIRST", "OUTER.SECOND"], "One meaning in two lines."),
        (["OUTER.THIRD"], "After a blank line."),
        (["OUTER.NODE.SIDE"], "Side of the square."),
    ]


def test_groups__of_a_bound_method() -> None:
    groups = read_groups(_Method().add_config)
    assert [(group.keys, group.meaning) for group in groups] == [(["KEY"], "Declared by a method.")]


def test_section__has_defaults_and_escapes_bars() -> None:
    text = "\n".join(section("Example", _add_example, get_cfg()))
    assert r"| `OUTER.FIRST`<br>`OUTER.SECOND` | `1`<br>`'a \| b'` | One meaning" in text
    assert "| `OUTER.NODE.SIDE` | `3` | Side of the square. |" in text


def test_section__refuses_a_key_without_comment_and_a_form_that_it_cannot_read() -> None:
    with pytest.raises(ValueError, match=r"found none above \['OUTER.FIRST'\]"):
        section("Example", _add_without_comment, get_cfg())
    with pytest.raises(ValueError, match=r"'OUTER.A', 'OUTER.B'"):
        section("Example", _add_in_a_loop, get_cfg())


def test_reference__has_every_key_of_every_project() -> None:
    text = reference()
    keys = set(declared(add_unreid_config, get_cfg()))
    base = get_cfg()
    add_unreid_config(base)
    for name in discover_projects():
        keys |= set(declared(load_project(name).add_config, base))
    assert len(keys) > 100
    assert [key for key in keys if f"`{key}`" not in text] == []


def test_page__is_what_the_command_writes(tmp_path) -> None:
    assert main(["--output", str(tmp_path / "page.md")]) == 0
    written = (tmp_path / "page.md").read_text()
    assert PAGE.read_text() == written, f"out of date; run: {COMMAND}"
