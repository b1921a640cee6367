"""Malicious configs (yml) and tables (CSV)."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from tests.untrusted_input.case import Builder, Case, copy_run
from tests.untrusted_input.damage import damage_text
from tests.untrusted_input.valid_files import ValidFiles

_GOOD = """PROJECT: "CALR"
DATASETS:
  NAMES: ("Market1501",)
  TESTS: ("Market1501",)
INPUT:
  SIZE_TRAIN: [64, 32]
DATALOADER:
  SAMPLER_TRAIN: "CameraAwareSampler"
SOLVER:
  MAX_EPOCH: 2
  BASE_LR: 0.00035
  STEPS: [20, 40]
UNSUP:
  LABELER: "CALRLabeler"
  ITERS_PER_EPOCH: 2
CALR:
  KNN:
    K: 2
"""
_ALIASES = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(7)
)
_MERGES = "a: &a {k: 1}\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)}\n  k{i}: 1\n  <<: [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n"
    for i in range(7)
)

#: Name -> content of the yml; all must be refused.
YAMLS: dict[str, str | bytes] = {
    "object": "PROJECT: !!python/object/apply:os.system ['touch pwned']\n",
    "object_new": "UNSUP: !!python/object/new:os.system [touch pwned]\n",
    "name": "PROJECT: !!python/name:os.system ''\n",
    "module": "PROJECT: !!python/module:antigravity ''\n",
    "tuple": "SOLVER: {STEPS: !!python/tuple [1, 2]}\n",
    "unknown_tag": "PROJECT: !frobnicate CALR\n",
    "laughs": _ALIASES,
    "merges": _MERGES,
    "itself": "a: &a\n  b: *a\n",
    "deep_list": "PROJECT: " + "[" * 3000 + "]" * 3000 + "\n",
    "deep_map": "".join(" " * i + f"a{i}:\n" for i in range(300)),
    "deep_flow": "{a: " * 2000 + "1" + "}" * 2000 + "\n",
    "empty": "",
    "list": "- a\n- b\n",
    "text": "nothing but words\n",
    "number": "7\n",
    "two_documents": "PROJECT: CALR\n---\nPROJECT: CALR\n",
    "latin": "PROJECT: caf\xe9\n".encode("latin-1"),
    "utf16": "PROJECT: CALR\n".encode("utf-16"),
    "nul": "PROJECT: CA\0LR\n",
    "binary": bytes(range(256)) * 20,
    "huge": "PROJECT: " + "x" * 2**17 + "\n",
    "number_keys": _GOOD + "1: 2\n",
    "null_key": _GOOD + "? \n: 2\n",
    "list_key": _GOOD + "? [a, b]\n: 2\n",
    "long_number": _GOOD + "TEST: {EVAL_PERIOD: " + "9" * 6000 + "}\n",
    "date": _GOOD + "TEST: {EVAL_PERIOD: 2024-01-01}\n",
    "no_date": _GOOD + "TEST: {EVAL_PERIOD: 2024-13-45}\n",
    "set": _GOOD + "TEST: !!set {a, b}\n",
    "node_for_leaf": _GOOD + "TEST: {EVAL_PERIOD: {a: 1}}\n",
    "leaf_for_node": _GOOD.replace("KNN:\n    K: 2", "KNN: 5"),
    "empty_node": _GOOD + "TEST: {EVAL_PERIOD: {}}\n",
    "null_node": _GOOD.replace("KNN:\n    K: 2", "KNN:"),
    "expression": _GOOD + "TEST: {METRIC: \"__import__('os').system('touch pwned')\"}\n",
    "parentheses": _GOOD + 'TEST: {METRIC: "' + "(" * 5000 + '"}\n',
    "minuses": _GOOD + 'TEST: {METRIC: "' + "-" * 50_000 + '1"}\n',
    "project_path": "PROJECT: ../../evil/method\n",
    "project_dots": 'PROJECT: ".."\n',
    "project_list": "PROJECT: [CALR]\n",
    "based_on_itself": "_BASE_: based_on_itself.yml\n" + _GOOD,
    "base_is_list": "_BASE_: [a.yml]\n" + _GOOD,
    "base_is_url": "_BASE_: http://127.0.0.1:9/a.yml\n" + _GOOD,
    "base_is_missing": "_BASE_: nowhere.yml\n" + _GOOD,
    "base_is_folder": "_BASE_: .\n" + _GOOD,
    "misspelt": _GOOD.replace("ITERS_PER_EPOCH", "ITERS_PR_EPOCH"),
    "unknown_labeler": _GOOD.replace("CALRLabeler", "os.system"),
    "unknown_head": _GOOD + "MODEL: {HEADS: {NAME: __class__}}\n",
    "negative": _GOOD.replace("MAX_EPOCH: 2", "MAX_EPOCH: -2"),
    "infinite": _GOOD + "TEST: {EVAL_PERIOD: .inf}\n",
}


def _yaml(name: str) -> Builder:
    def build(folder: Path, valid: ValidFiles, rng: np.random.Generator) -> Case:
        text = YAMLS[name]
        path = folder / f"{name}.yml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        if name == "object" and rng.random() < 0.5:
            return _of_run(path, folder, valid)
        return _checked(path, refuse=True)

    return build


#: Keys that an error message may name instead of the file.
_KEYS = (
    "PROJECT",
    "DATASETS",
    "INPUT.",
    "SOLVER.",
    "UNSUP.",
    "CALR.",
    "MODEL.",
    "TEST.",
    "DATALOADER.",
    "Market1501",
)


def _checked(path: Path, *, refuse: bool = False) -> Case:
    return Case("check_data", ("--config-file", str(path)), (path.name, *_KEYS), refuse)


def _of_run(path: Path, folder: Path, valid: ValidFiles) -> Case:
    """Return the command that reads ``path`` as the config of a run."""
    run = copy_run(valid, folder)
    path.replace(run / "config.yaml")
    return Case(
        "search",
        (
            "--run",
            str(run),
            "--gallery",
            str(valid.crops),
            "--output",
            str(folder / "out"),
            "--query",
            str(valid.crops / "c0_0.jpg"),
        ),
        ("config.yaml", "model_final.pth", *_KEYS),
    )


def mutated_yaml(folder: Path, valid: ValidFiles, rng: np.random.Generator) -> Case:
    """Return a valid config with damaged lines or bytes."""
    whole = rng.random() < 0.4
    text = (valid.run / "config.yaml").read_text() if whole else _GOOD
    path = folder / "damaged.yml"
    path.write_bytes(damage_text(text, rng))
    return _of_run(path, folder, valid) if whole else _checked(path)


_NAMES = ("c0_0.jpg", "c0_2.webp", "c1_1.png", "c1_3.bmp")
_TABLE = "path,camera,id\n" + "".join(f"{name},{name[:2]},{i}\n" for i, name in enumerate(_NAMES))

#: Name -> content of the CSV, and whether it must be refused.
TABLES: dict[str, tuple[str | bytes, bool]] = {
    "up": ("path,camera\n../../../../etc/passwd.jpg,1\n", True),
    "up_inside": ("path,camera\na/../../c0_0.jpg,1\n", True),
    "up_windows": ("path,camera\n..\\..\\c0_0.jpg,1\n", True),
    "absolute": ("path,camera\n/etc/hostname.jpg,1\n", True),
    "drive": ("path,camera\nC:\\c0_0.jpg,1\n", True),
    "share": ("path,camera\n\\\\host\\share\\c0_0.jpg,1\n", True),
    "url": ("path,camera\nhttp://127.0.0.1/c0_0.jpg,1\n", True),
    "home": ("path,camera\n~/c0_0.jpg,1\n", True),
    "outside_then_in": ("path,camera\n../crops/c0_0.jpg,1\n", True),
    "nul": ("path,camera\nc0_0.jpg\0.png,1\n", True),
    "lines": ('path,camera\n"c0_0\n.jpg",1\n', True),
    "camera_of_lines": ('path,camera\nc0_0.jpg,"1\nINFO: done"\n', True),
    "bell": ("path,camera\nc0_0.jpg,\x1b[2Jx\n", True),
    "empty": ("", True),
    "header_alone": ("path,camera\n", False),
    "no_header": ("c0_0.jpg,1\nc1_1.png,2\n", True),
    "no_camera": ("path,id\nc0_0.jpg,1\n", True),
    "twice": ("path,path,camera\nc0_0.jpg,c0_0.jpg,1\n", True),
    "again": ("path,camera\nc0_0.jpg,1\n./c0_0.jpg,2\n", True),
    "utf16": (_TABLE.encode("utf-16"), True),
    "latin": ("path,camera\nc0_0.jpg,caf\xe9\n".encode("latin-1"), True),
    "binary": (bytes(range(256)) * 50, True),
    "open_quote": ('path,camera\n"c0_0.jpg,1\n', True),
    "large_field": ("path,camera\nc0_0.jpg," + "x" * 200_000 + "\n", True),
    "wide": (",".join(["path", "camera", *[f"c{i}" for i in range(50_000)]]) + "\n", False),
    "short": ("path,camera\nc0_0.jpg\n", True),
    "no_image": ("path,camera\ntable.csv,1\n", True),
    "formula": ("path,camera\nc0_0.jpg,\"=cmd|' /C calc'!A0\"\n", False),
    "marked": ("\ufeff" + _TABLE, False),
    "tabs": (_TABLE.replace(",", "\t"), False),
    "surrogate": ("path,camera\nc0_0\udcff.jpg,1\n".encode("utf-8", "surrogatepass"), True),
    "long_name": ("path,camera\n" + "a/" * 5000 + "b.jpg,1\n", True),
}


def _table(name: str) -> Builder:
    def build(folder: Path, valid: ValidFiles, rng: np.random.Generator) -> Case:
        text, refuse = TABLES[name]
        data = text if isinstance(text, bytes) else text.encode()
        return _read(folder, valid, rng, f"{name}.csv", data, refuse=refuse)

    return build


def _read(
    folder: Path,
    valid: ValidFiles,
    rng: np.random.Generator,
    name: str,
    data: bytes,
    *,
    refuse: bool = False,
) -> Case:
    path = folder / name
    path.write_bytes(data)
    if rng.random() < 0.8:
        return Case(
            "check_data",
            ("--root", str(valid.crops), "--csv", str(path)),
            (name, "no image", "warning", "error"),
            refuse,
        )
    return Case(
        "label",
        (
            "--run",
            str(valid.run),
            "--images",
            str(valid.crops),
            "--csv",
            str(path),
            "--output",
            str(folder / "out.csv"),
        ),
        (name, "no image found"),
        refuse,
    )


def mutated_table(folder: Path, valid: ValidFiles, rng: np.random.Generator) -> Case:
    """Return a valid table with damaged lines or bytes."""
    return _read(folder, valid, rng, "damaged.csv", damage_text(_TABLE, rng))


def _device(name: str) -> Builder:
    """Return the builder of a table or config that is no regular file."""

    def build(folder: Path, valid: ValidFiles, rng: np.random.Generator) -> Case:
        path = folder / f"{name}.csv"
        if name == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to("/dev/zero")
        if rng.random() < 0.5:
            return Case(
                "check_data", ("--root", str(valid.crops), "--csv", str(path)), (path.name,), True
            )
        return _checked(path, refuse=True)

    return build


def _valid_yaml(folder: Path, valid: ValidFiles, rng: np.random.Generator) -> Case:
    path = folder / "valid.yml"
    path.write_text(_GOOD)
    return _checked(path)


def _valid_table(folder: Path, valid: ValidFiles, rng: np.random.Generator) -> Case:
    return _read(folder, valid, rng, "valid.csv", _TABLE.encode())


YAML_SPECIALS = {"valid": _valid_yaml, **{f"{name}.yml": _yaml(name) for name in YAMLS}}
TABLE_SPECIALS = {
    "valid": _valid_table,
    **{f"{name}.csv": _table(name) for name in TABLES},
    **{f"a {name}": _device(name) for name in ("pipe", "endless file")},
}
