"""Checkpoints from untrusted files."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from unreid.reading.tensors import check_state_dict, load_tensors


class Boom:
    def __reduce__(self) -> Any:
        return (os.system, ("touch pwned",))


class Hub:
    """Pickles to a call of the torch function that downloads code and runs it."""

    def __reduce__(self) -> Any:
        return (torch.hub.load, ("evil/repo", "model"))


def saved(folder: Path, content: Any) -> Path:
    path = folder / "a.pth"
    torch.save(content, path)
    return path


def test_tensors_and_plain_values__come_back(tmp_path: Path) -> None:
    content = {"w": torch.arange(3), "epoch": 1, "milestones": [20, 40], "name": "CALR"}
    found = load_tensors(saved(tmp_path, content))
    assert torch.equal(found.pop("w"), content.pop("w")) and found == content


@pytest.mark.parametrize("old", [True, False])
def test_both_formats_of_torch__are_read(old: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"w": torch.ones(2)}, path, _use_new_zipfile_serialization=not old)
    assert torch.equal(load_tensors(path)["w"], torch.ones(2))


@pytest.mark.parametrize(("evil", "name"), [(Boom(), "posix.system"), (Hub(), "torch.hub.load")])
@pytest.mark.parametrize("protocol", [None, 0, 2, 4, 5])
def test_malicious_pickle__is_refused_by_name_and_not_run(
    evil: Any, name: str, protocol: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if protocol is None:
        path = saved(tmp_path, {"model": {"w": torch.zeros(2)}, "extra": evil})
    else:
        path = tmp_path / "a.pth"
        path.write_bytes(pickle.dumps({"model": evil}, protocol=protocol))
    with pytest.raises(ValueError, match=rf"weights .*a\.pth is refused: .* asks to run {name};"):
        load_tensors(path, "weights")
    assert not (tmp_path / "pwned").exists()


def test_refusal__gives_no_advice_to_load_it_all_the_same(tmp_path: Path) -> None:
    with pytest.raises(ValueError) as error:
        load_tensors(saved(tmp_path, Boom()))
    assert "weights_only" not in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content",
    [
        b"cposix\n" + b"x" * 400_000 + b"\n.",  # a name, in which torch searches for words
        b"X" + (400_000).to_bytes(4, "little") + b"x" * 400_000 + b")R.",  # a string that is called
    ],
)
def test_long_names__do_not_keep_torch_busy(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.pth") as error:
        load_tensors(tmp_path / "a.pth")
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04" + bytes(50), b"\x80\x02."])
def test_damaged_file__is_no_malicious_one(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"checkpoint .*a\.pth cannot be loaded: it is damaged"):
        load_tensors(tmp_path / "a.pth")
    with pytest.raises(FileNotFoundError, match=r"checkpoint .*b\.pth: no such file"):
        load_tensors(tmp_path / "b.pth")


def test_archive_that_unfolds__is_refused(tmp_path: Path) -> None:
    stream = io.BytesIO()
    torch.save({"w": torch.zeros(2**20)}, stream)
    path = tmp_path / "a.pth"
    with (
        zipfile.ZipFile(stream) as source,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for member in source.infolist():
            target.writestr(member.filename, source.read(member))
    assert path.stat().st_size < 2**15
    with pytest.raises(ValueError, match=r"a\.pth cannot be loaded: .*entries unfold into 41945"):
        load_tensors(path)


def test_tensor_that_unfolds__is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, {"w": torch.zeros(1).expand(2**30, 64)})
    with pytest.raises(ValueError, match=r"cannot be loaded: .*tensors unfold into 274877906944"):
        load_tensors(path)


def test_lists_of_lists__are_refused(tmp_path: Path) -> None:
    node: Any = [0] * 10
    for _ in range(12):
        node = [node] * 10
    with pytest.raises(ValueError, match="lists unfold into more values than it has bytes"):
        load_tensors(saved(tmp_path, {"state": node}))


def test_shared_tensors__are_no_bomb(tmp_path: Path) -> None:
    shared = torch.zeros(2**18)
    found = load_tensors(saved(tmp_path, {str(i): shared for i in range(8)}))
    assert len(found) == 8


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ("weights", "the weights of a model by name, got a str"),
        ({1: torch.zeros(1)}, "under 1"),
        ({"a": 1.0}, "got float under 'a'"),
    ],
)
def test_what_is_no_state_dict__is_refused(state: Any, why: str) -> None:
    with pytest.raises(ValueError, match=rf"checkpoint x\.pth must hold .*{why}"):
        check_state_dict("x.pth", state)
    check_state_dict("x.pth", {"a": torch.zeros(1)})
