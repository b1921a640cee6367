"""Malicious checkpoints and other files of a run, for --resume and for the report."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.untrusted_input.archives import Malicious
from tests.untrusted_input.case import Builder, Case, copy_run
from tests.untrusted_input.damage import damage, damage_text
from tests.untrusted_input.valid_files import ValidFiles


class Hub:
    """Object whose pickle downloads and executes code by torch.hub."""

    def __reduce__(self) -> Any:
        return torch.hub.load, ("evil/repo", "model")


def _torch(content: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def _rewritten(data: bytes, *, packed: bool = False, change: Callable[[bytes], bytes]) -> bytes:
    """Return the archive with its pickle changed."""
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as source,
        zipfile.ZipFile(
            stream, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
        ) as target,
    ):
        for member in source.infolist():
            content = source.read(member)
            is_pickle = member.filename.endswith("data.pkl")
            target.writestr(member.filename, change(content) if is_pickle else content)
    return stream.getvalue()


def _lists_of_lists() -> Any:
    node: Any = [0] * 10
    for _ in range(12):
        node = [node] * 10
    return node


def _nested(depth: int) -> Any:
    node: Any = 0
    for _ in range(depth):
        node = [node]
    return node


#: Name -> function that changes the content of a checkpoint.
CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "evil model": lambda c: {**c, "model": Malicious()},
    "evil value": lambda c: {**c, "extra": Malicious()},
    "evil hub": lambda c: {**c, "extra": Hub()},
    "evil weight": lambda c: {**c, "model": {**c["model"], "heads.bottleneck.0.bias": Malicious()}},
    "numpy number": lambda c: {**c, "best": np.float64(3)},
    "list": lambda c: [c],
    "number": lambda c: 7,
    "nothing": lambda c: {},
    "text for a model": lambda c: {**c, "model": "weights"},
    "list for a model": lambda c: {**c, "model": [1, 2]},
    "numbers for names": lambda c: {**c, "model": dict(enumerate(c["model"].values()))},
    "numbers for weights": lambda c: {**c, "model": dict.fromkeys(c["model"], 1.0)},
    "other shapes": lambda c: {**c, "model": {k: torch.zeros(3) for k in c["model"]}},
    "no backbone": lambda c: {**c, "model": {"a": torch.zeros(3)}},
    "not finite": lambda c: {
        **c,
        "model": {
            k: v * float("nan") if v.is_floating_point() else v for k, v in c["model"].items()
        },
    },
    "whole numbers": lambda c: {**c, "model": {k: v.long() for k, v in c["model"].items()}},
    "complex": lambda c: {**c, "model": {k: v.to(torch.complex64) for k, v in c["model"].items()}},
    "sparse": lambda c: {**c, "model": {k: v.to_sparse() for k, v in c["model"].items()}},
    "stride of zero": lambda c: {
        **c,
        "model": {**c["model"], "memory.centroids": torch.zeros(1).expand(2**30, 64)},
    },
    "memory of another width": lambda c: {
        **c,
        "model": {**c["model"], "memory.centroids": torch.zeros(3, 5)},
    },
    "memory of no rows": lambda c: {
        **c,
        "model": {**c["model"], "memory.centroids": torch.zeros(0)},
    },
    "lists of lists": lambda c: {**c, "extra": _lists_of_lists()},
    "deep": lambda c: {**c, "optimizer": _nested(200)},
}

#: The same for entries that only a resume reads.
RESUMED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "text for an epoch": lambda c: {**c, "epoch": "0"},
    "minus epoch": lambda c: {**c, "epoch": -5},
    "far epoch": lambda c: {**c, "epoch": 10**30},
    "text for an optimiser": lambda c: {**c, "optimizer": "Adam"},
    "optimiser of nothing": lambda c: {**c, "optimizer": {"state": {}, "param_groups": []}},
    "optimiser of lists": lambda c: {
        **c,
        "optimizer": {
            **c["optimizer"],
            "state": {k: _lists_of_lists() for k in c["optimizer"]["state"]},
        },
    },
    "text for a scheduler": lambda c: {**c, "lr_sched": "steps"},
    "no random numbers": lambda c: {k: v for k, v in c.items() if k != "rng"},
    "text for random numbers": lambda c: {**c, "rng": "dice"},
    "short random numbers": lambda c: {**c, "rng": {**c["rng"], "torch": torch.zeros(3)}},
    "fewer labels": lambda c: {**c, "labels": torch.zeros(3, dtype=torch.long)},
    "labels with gaps": lambda c: {**c, "labels": c["labels"] * 5},
    "text for labels": lambda c: {**c, "labels": "none"},
    "text for a number": lambda c: {**c, "num_images": "all"},
    "another list": lambda c: {**c, "image_list": "0" * 64},
    "evil optimiser": lambda c: {**c, "optimizer": Malicious()},
}


def _loaded(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(path, weights_only=True)
    return content


def _embedded(run: Path, folder: Path, valid: ValidFiles, *, refuse: bool = False) -> Case:
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
        ("model_final.pth",),
        refuse,
    )


def _weights(name: str) -> Builder:
    def build(folder: Path, valid: ValidFiles, rng: np.random.Generator) -> Case:
        run = copy_run(valid, folder)
        path = run / "model_final.pth"
        path.write_bytes(_torch(CHANGES[name](_loaded(path))))
        return _embedded(run, folder, valid, refuse=name.startswith("evil"))

    return build


def _resume(run: Path) -> Case:
    return Case(
        "train_net",
        ("--config-file", str(run / "config.yaml"), "--resume", "OUTPUT_DIR", str(run)),
        ("model_last.pth", "last_checkpoint", "results.json", "config.yaml"),
    )


def _resumed(name: str) -> Builder:
    def build(folder: Path, valid: ValidFiles, rng: np.random.Generator) -> Case:
        run = copy_run(valid, folder, half=True)
        path = run / "model_last.pth"
        path.write_bytes(_torch(RESUMED[name](_loaded(path))))
        case = _resume(run)
        return Case(case.tool, case.arguments, case.named, True)

    return build


def _bytes(data: bytes) -> Builder:
    def build(folder: Path, valid: ValidFiles, rng: np.random.Generator) -> Case:
        run = copy_run(valid, folder)
        (run / "model_final.pth").write_bytes(data)
        return _embedded(run, folder, valid, refuse=True)

    return build


def _pretrained(data: bytes) -> Builder:
    """Return the builder of pre-trained weights, which the backbones of fast-reid read."""

    def build(folder: Path, valid: ValidFiles, rng: np.random.Generator) -> Case:
        path = folder / "start.pth"
        path.write_bytes(data)
        return Case(
            "train_net",
            (
                "--config-file",
                str(valid.run / "config.yaml"),
                "--eval-only",
                "OUTPUT_DIR",
                str(folder / "out"),
                "MODEL.BACKBONE.PRETRAIN",
                "True",
                "MODEL.BACKBONE.PRETRAIN_PATH",
                str(path),
            ),
            ("start.pth",),
            True,
        )

    return build


def _packed(folder: Path, valid: ValidFiles, rng: np.random.Generator) -> Case:
    """Return a checkpoint with a large pickle of zeros in a compressed archive."""
    run = copy_run(valid, folder)
    path = run / "model_final.pth"
    path.write_bytes(
        _rewritten(
            path.read_bytes(), packed=True, change=lambda p: p[:-1] + b"0" * 0 + bytes(2**28) + b"."
        )
    )
    return _embedded(run, folder, valid, refuse=True)


def _storage(folder: Path, valid: ValidFiles, rng: np.random.Generator) -> Case:
    """Return a tensor storage of four numbers whose header claims 2^31 - 1."""
    data = _rewritten(
        _torch({"model": {"w": torch.zeros(4)}}),
        change=lambda p: p.replace(b"K\x04t", b"J\xff\xff\xff\x7ft"),
    )
    run = copy_run(valid, folder)
    (run / "model_final.pth").write_bytes(data)
    return _embedded(run, folder, valid, refuse=True)


def _tag(text: str) -> Builder:
    """Return the builder of a ``last_checkpoint`` with this text."""

    def build(folder: Path, valid: ValidFiles, rng: np.random.Generator) -> Case:
        run = copy_run(valid, folder, half=True)
        (run / "last_checkpoint").write_bytes(text.encode(errors="surrogateescape"))
        case = _resume(run)
        return Case(case.tool, case.arguments, (*case.named, "no such file"), True)

    return build


def _results(content: Any, *, shown: bool) -> Builder:
    """Return the builder of a ``results.json`` with this content."""

    def build(folder: Path, valid: ValidFiles, rng: np.random.Generator) -> Case:
        run = copy_run(valid, folder, half=not shown)
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        (run / "results.json").write_bytes(data)
        if shown:
            output = (run / "report.html", "results.json")
            return Case("report", (str(run), "--no-model"), ("results.json",), output=output)
        return _resume(run)

    return build


def mutated(folder: Path, valid: ValidFiles, rng: np.random.Generator) -> Case:
    """Return a valid checkpoint of a finished or interrupted run, with damaged bytes."""
    half = rng.random() < 0.3
    run = copy_run(valid, folder, half=half)
    path = run / ("model_last.pth" if half else "model_final.pth")
    data = path.read_bytes()
    if rng.random() < 0.5:  # damage the pickle, which is small compared with the weights
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            pickled = next(n for n in archive.namelist() if n.endswith("data.pkl"))
            at, size = data.index(archive.read(pickled)), archive.getinfo(pickled).file_size
        path.write_bytes(
            data[:at]
            + damage(data[at : at + size], rng)[:size].ljust(size, b"0")
            + data[at + size :]
        )
    else:
        path.write_bytes(damage(data, rng))
    return _resume(run) if half else _embedded(run, folder, valid)


def mutated_record(folder: Path, valid: ValidFiles, rng: np.random.Generator) -> Case:
    """Return damaged results or logs of a run, for the report or for --resume."""
    shown = rng.random() < 0.7
    run = copy_run(valid, folder, half=not shown)
    name = str(rng.choice(["results.json", "metrics.json", "log.txt"]))
    path = run / name
    path.write_bytes(damage_text(path.read_text(), rng))
    return Case("report", (str(run), "--no-model"), (name,)) if shown else _resume(run)


_STATE = {"conv.weight": torch.zeros(3)}


def _valid(folder: Path, valid: ValidFiles, rng: np.random.Generator) -> Case:
    return _resume(copy_run(valid, folder, half=True))


SPECIALS: dict[str, Builder] = {
    "valid": _valid,
    **{f"weights: {name}": _weights(name) for name in CHANGES},
    **{f"resumed: {name}": _resumed(name) for name in RESUMED},
    "empty.pth": _bytes(b""),
    "text.pth": _bytes(b"no weights\n"),
    "plain pickle.pth": _bytes(pickle.dumps(Malicious())),
    "protocol 0.pth": _bytes(pickle.dumps(Malicious(), protocol=0)),
    "protocol 5.pth": _bytes(pickle.dumps({"model": Malicious()}, protocol=5)),
    "global.pth": _bytes(b'cbuiltins\neval\n(S\'__import__("os").system("touch pwned")\'\ntR.'),
    "zip of nothing.pth": _bytes(b"PK\x05\x06" + bytes(18)),
    "archive that is packed": _packed,
    "storage that claims more": _storage,
    "start: pickle": _pretrained(pickle.dumps(Malicious())),
    "start: evil": _pretrained(_torch({"a": Malicious()})),
    "start: text": _pretrained(b"no weights"),
    "start: list": _pretrained(_torch([1, 2])),
    "start: shapes": _pretrained(
        _torch({"conv1.weight": torch.zeros(3), "features.0.0.weight": torch.zeros(3)})
    ),
    "tag: elsewhere": _tag("../run/model_last.pth"),
    "tag: absolute": _tag("/etc/passwd"),
    "tag: empty": _tag(""),
    "tag: long": _tag("x" * 100_000),
    "tag: bytes": _tag("\udcff\0\n"),
    "tag: other": _tag("log.txt"),
    **{
        f"results {'shown' if shown else 'resumed'}: {name}": _results(content, shown=shown)
        for shown in (True, False)
        for name, content in {
            "text": b"{",
            "list": [1],
            "deep": b"[" * 10**5,
            "kinds": {
                "before": 5,
                "after": {"mAP": "x"},
                "seconds": [1],
                "labels": "no",
                "datasets": 3,
            },
            "infinite": b'{"before": {"mAP": Infinity}, "seconds": {"train": NaN}}',
            "large": {"before": {"mAP": 10**400}, "seconds": {"train": 10**400}},
        }.items()
    },
}
