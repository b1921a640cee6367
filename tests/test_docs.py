"""Commands in the README and docs run or are checked, and quoted messages exist in the code."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from tests.projects.overrides import OF_PROJECT, ROOT, TINY
from tests.projects.tiny_run import label_files, train_tiny
from tests.tools.using import load_tool
from unreid.commands import COMMANDS

TUTORIAL = ROOT / "docs" / "tutorial.md"
PAGES = [
    TUTORIAL,
    ROOT / "README.md",
    *sorted(p for p in (ROOT / "docs").glob("*.md") if p != TUTORIAL),
    *sorted(ROOT.glob("projects/*/README.md")),
]
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))

#: Languages of code blocks without commands.
LANGUAGES = {"sh", "text", "python", "py", "yaml", "bibtex", ""}
_BLOCK = re.compile(r"^```(\w*)(.*)\n((?:.*\n)*?)```$", re.MULTILINE)
#: A command in an indented code block without fences.
_INDENTED = re.compile(r"(?:^    .*\n)+", re.MULTILINE)
_COMMAND = re.compile(r"^\s*(?:\$ |(?:[A-Z_]+=\S+ )*(?:unreid|python|pip|make|export|cd|git)\s)")


class Block(NamedTuple):
    language: str
    title: str
    text: str


class Command(NamedTuple):
    """One command line: its page, the variables it sets, and its arguments."""

    page: Path
    variables: dict[str, str]
    words: list[str]

    @property
    def line(self) -> str:
        return f"{self.page.relative_to(ROOT)}: {shlex.join(self.words)}"


def blocks(page: Path) -> list[Block]:
    return [Block(*found) for found in _BLOCK.findall(page.read_text())]


def commands(page: Path) -> Iterator[Command]:
    """Return the commands of a page in order, those in code blocks first."""
    rest = _BLOCK.sub("", page.read_text())
    texts = [b.text for b in blocks(page) if b.language == "sh"]
    texts += [text for text in _INDENTED.findall(rest) if _COMMAND.match(text)]
    for text in texts:
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            variables = {}
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                name, _, variables[name] = words.pop(0).partition("=")
            if words:
                yield Command(page, variables, words)


ALL = [command for page in PAGES for command in commands(page)]


@every_page
def test_blocks__are_of_known_languages_and_commands_stand_in_sh(page: Path) -> None:
    for block in blocks(page):
        assert block.language in LANGUAGES, block
        if block.language != "sh":
            assert [x for x in block.text.splitlines() if _COMMAND.match(x)] == []


def test_commands__are_found_in_all_three_places() -> None:
    found = {c.page.name for c in ALL}
    assert {"README.md", "tutorial.md", "own_data.md", "merging.md"} <= found
    assert sum(c.words[0] == "make" for c in ALL) >= 2


# --- commands that are checked without being run ---


def check_make(words: list[str]) -> None:
    known = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert words and set(w for w in words if "=" not in w) <= set(known)


def check_pip(words: list[str]) -> None:
    project = (ROOT / "pyproject.toml").read_text()
    verb, *rest = words
    assert verb in ("install", "uninstall")
    for word, before in zip(rest, ["", *rest]):
        if before == "-r":
            assert (ROOT / word).is_file()
        elif before == "-e":
            extras = re.fullmatch(r"\.(?:\[([\w,-]+)\])?", word)
            assert extras, word
            for extra in (extras[1] or "").split(",") if extras[1] else []:
                assert re.search(rf"^{extra} = \[", project, re.MULTILINE), extra
        elif "==" in word:
            assert f"FASTREID := {word}" in (ROOT / "Makefile").read_text()
        else:
            assert word in ("-r", "-e", "--no-deps", "faiss-cpu"), word


def check_export(words: list[str]) -> None:
    for word in words:
        assert re.fullmatch(r"(FASTREID_DATASETS|OMP_NUM_THREADS|UNREID_\w+)=\S+", word), word


def check_config(file: str, opts: list[str]) -> None:
    """Check that a config loads with all given settings; files of weights may be missing here."""
    from unreid.config import load_config
    from unreid.projects import resolve_config

    found = resolve_config(ROOT / file if (ROOT / file).is_file() else file)
    load_config(str(found), [*opts, "MODEL.BACKBONE.PRETRAIN", "False"])


def check_tool(name: str, words: list[str]) -> None:
    """Check that the tool parses a command line, and that the config in it loads."""
    tool = load_tool(name)
    parse: Callable[..., Any] = getattr(tool, "parse", None) or tool.build_parser().parse_args
    args = parse(words)
    if name == "sweep" and args.configs:
        # Weights and fold datasets may be missing on this machine: use a small file, and no folds.
        if "--fold-roots" in words:
            place = words.index("--fold-roots")
            words = words[:place] + words[place + 2 :]
        with tempfile.TemporaryDirectory() as folder:
            weights = Path(folder) / "weights.pth"
            torch.save({"weight": torch.zeros(1)}, weights)
            given = [str(weights) if w.startswith("path/to/") else w for w in words]
            assert tool.main([*given, "--dry-run"]) == 0
    elif getattr(args, "config_file", None) and name != "train_net":
        check_config(args.config_file, getattr(args, "opts", []))
    elif name == "train_net":
        check_config(args.config_file, args.opts)


def check_command(name: str, words: list[str]) -> None:
    """Check that the sub-command parses a command line, and that the config in it loads."""
    module = command_module(name)
    args = getattr(module, "parse", module.build_parser().parse_args)(words)
    if getattr(args, "config_file", None):
        pairs = ["OUTPUT_DIR", "x"] if getattr(args, "images", None) else []
        check_config(args.config_file, [*pairs, *getattr(args, "opts", [])])


def command_module(name: str) -> Any:
    assert name in COMMANDS, name
    return importlib.import_module(f"unreid.commands.{name.replace('-', '_')}")


def check_benchmark(name: str, words: list[str]) -> None:
    """Check that the script, its options and the requested rows or sections exist."""
    sources = "\n".join(p.read_text() for p in (ROOT / "benchmarks").glob("*.py"))
    assert (ROOT / "benchmarks" / f"{name}.py").is_file()
    for word in words:
        if word.startswith("--"):
            assert f'add_argument("{word}"' in sources, word
        elif not word.isdigit() and not word.endswith(".npz"):
            # Some names are built from a stem and a size.
            assert re.search(rf'["\']{re.escape(word)}["\']', sources) or any(
                f'"{word[:n]}' in sources for n in range(len(word) - 1, 5, -1)
            ), word


def check(command: Command) -> None:
    """Check that a command could run; fail for commands of an unknown kind."""
    match command.words:
        case ["make", *words]:
            check_make(words)
        case ["pip", *words]:
            check_pip(words)
        case ["export", *words]:
            check_export(words)
        case ["python", "-m", "pytest"]:
            pass
        case ["python", "-m", "unreid.env", *words]:
            assert importlib.import_module("unreid.env").main(words) == 0
        case ["python", "-m", "tests.prose.check", *files]:
            assert [file for file in files if not (ROOT / file).is_file()] == []
        case ["unreid", name, *words]:
            check_command(name, words)
        case ["python", script, *words] if script.startswith("tools/"):
            check_tool(Path(script).stem, words)
        case ["torchrun", *words]:
            from torch.distributed.run import parse_args

            args = parse_args(words)
            check_tool(Path(args.training_script).stem, args.training_script_args)
        case ["python", script, *words] if script.startswith("benchmarks/"):
            check_benchmark(Path(script).stem, words)
        case _:
            pytest.fail("a command of a kind that this test does not know")
    check_export([f"{name}={value}" for name, value in command.variables.items()])


def runs_on_the_shop(command: Command) -> bool:
    """Return whether a command uses the tutorial's image folder; these commands are run."""
    return any("shop" in word for word in command.words)


@pytest.mark.parametrize(
    "command", [c for c in ALL if not runs_on_the_shop(c)], ids=lambda c: c.line[:70]
)
def test_command__could_be_run(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_a_clone(tmp_path, monkeypatch)
    if "MutualGroups" in command.line:  # the page shows how to write this module
        assert command.words[3] in four_files()
        return
    try:
        check(command)
    except (SystemExit, AssertionError, KeyError, ValueError, OSError) as error:
        pytest.fail(f"{command.line}: {error!r}")


@pytest.mark.parametrize(
    "line",
    [
        "rm -r runs",
        "make nothing",
        "pip install torch",
        "pip install -e .[nothing]",
        "python tools/nothing.py",
        "unreid nothing",
        "unreid train --images a --camra-pattern b",
        "unreid eval --config CALR/nothing",
        "unreid train --config CALR/market SOLVER.MAX_EPOCHS 3",
        "python tools/search.py --run runs/a --galery b",
        "python tools/train_net.py --config-file projects/CALR/configs/nothing.yml",
        "python tools/train_net.py --config-file projects/CALR/configs/market.yml"
        " SOLVER.MAX_EPOCHS 3",
        "python benchmarks/label_engine.py --only nothing_like_it",
    ],
)
def test_check__refuses(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_a_clone(tmp_path, monkeypatch)
    refusals = (SystemExit, AssertionError, KeyError, ValueError, OSError, pytest.fail.Exception)
    with pytest.raises(refusals):
        check(Command(ROOT / "README.md", {}, shlex.split(line)))


# --- commands that are run ---


def in_a_clone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Change into ``folder`` with links to the checkout, so that outputs stay out of it."""
    for name in ("tools", "projects", "requirements.txt"):
        (folder / name).symlink_to(ROOT / name)
    monkeypatch.chdir(folder)


def small(name: str, words: list[str]) -> list[str]:
    """Return the arguments of a command with settings appended that reduce its size."""
    if name in ("make_demo_data", "synthesize"):
        return [*words, "--identities", "8", "6", "--cameras", "3", "--images-per-identity", "9"]
    if name in ("train_net", "train"):
        tiny = {k: v for k, v in {**TINY, **OF_PROJECT["CALR"]}.items() if "DATASETS" not in k}
        tiny["UNSUP.EVAL_BEFORE"] = "True"
        return [*words, *(word for pair in tiny.items() for word in pair)]
    return words


def pattern_of(line: str) -> str:
    """Return a regular expression for a transcript line; numbers and ``...`` are wildcards."""
    parts = re.split(r"(\.\.\.|-?\d[\d.,]*(?:e-?\d+)?|\s+)", line.strip())
    return "".join(
        ".*"
        if part == "..."
        else r"\s+"
        if part.isspace()
        else r"[-\d.,e]+"
        if re.match(r"-?\d", part)
        else re.escape(part)
        for part in parts
    )


def missing_lines(transcript: str, output: str) -> list[str]:
    """Return the transcript lines that the output lacks; lines of ``...`` are skipped."""
    real = [line.strip() for line in output.splitlines()]
    return [
        line
        for line in transcript.splitlines()
        if line.strip() not in ("", "...")
        and not any(re.fullmatch(pattern_of(line), other) for other in real)
    ]


def test_transcript__is_compared_line_by_line() -> None:
    assert missing_lines("a 1.5  b\n...\npath: .../x", "a 27 b\npath: /y/x\n") == []
    assert missing_lines("a 1.5 b", "a 27 c") == ["a 1.5 b"]


def transcripts() -> list[str]:
    """Return the output that the tutorial shows after each block of commands."""
    found: list[str] = []
    for block in blocks(TUTORIAL):
        if block.language == "sh":
            found.append("")
        elif block.language == "text":
            found[-1] += block.text
    return found


def test_tutorial_and_own_data__run_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run all commands on the tutorial's images, those of the tutorial first, at reduced sizes."""
    in_a_clone(tmp_path, monkeypatch)
    torch_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    output = ""
    try:
        for command in filter(runs_on_the_shop, ALL):
            tool = Path(command.words[1]).stem
            module = command_module(tool) if command.words[0] == "unreid" else load_tool(tool)
            code = module.main(small(tool, command.words[2:]))
            written = capsys.readouterr()
            assert code == 0, f"{command.line}\n{written.err[-2000:]}"
            if command.page == TUTORIAL:
                log = tmp_path / "runs" / "shop" / "log.txt"
                logged = log.read_text() if tool in ("train_net", "train") else ""
                output += "\n".join([written.out, written.err, logged, ""])
        for page in ("README.md", "docs/index.md"):
            (text,) = [b.text for b in blocks(ROOT / page) if "Predictor" in b.text]
            scope: dict[str, Any] = {}
            exec(text, scope)
            assert scope["similarity"].shape == (2, 2)
    finally:
        torch.set_num_threads(torch_threads)
    assert missing_lines("\n".join(transcripts()), output) == []
    assert (tmp_path / "runs" / "shop" / "report.html").stat().st_size > 10_000


def test_tutorial__shows_the_output_of_what_it_runs() -> None:
    assert sum(bool(t.strip()) for t in transcripts()) >= 5


# --- the example method in four files ---


def four_files() -> dict[str, str]:
    """Return path -> content of the files shown on the page about adding a method."""
    page = blocks(ROOT / "docs" / "add_a_method.md")
    titles = [re.search(r'title="(projects/[^"]+)"', block.title) for block in page]
    return {title[1]: block.text for block, title in zip(page, titles) if title}


def test_add_a_method__the_four_files_of_the_page_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, synthetic_root: Path
) -> None:
    files = four_files()
    assert len(files) == 4
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("UNREID_PROJECTS", str(tmp_path / "projects"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    config = tmp_path / next(name for name in files if name.endswith(".yml"))
    results = train_tiny(config, synthetic_root, tmp_path / "run")
    assert results["labels"]["clusters"] >= 2
    assert {"labels/epoch_000.npz", "labels/epoch_001.npz"} <= label_files(tmp_path / "run").keys()


# --- navigation and links ---


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as the site and GitHub generate them."""
    headings = re.findall(r"^#+ (.+)$", _BLOCK.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


@every_page
def test_links__of_a_page_lead_to_files_and_headings(page: Path) -> None:
    wrong = []
    for link, anchor in re.findall(
        r"\]\((?!https?://|mailto:)([^)#]*)#?([^)]*)\)", _BLOCK.sub("", page.read_text())
    ):
        target = page.parent / link if link else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(f"{link}#{anchor}")
    assert wrong == []


def test_navigation__has_every_page_once() -> None:
    text = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2]
    assert sorted(re.findall(r": (\w+\.md)$", text, re.MULTILINE)) == sorted(
        page.name for page in (ROOT / "docs").glob("*.md")
    )


def test_command_line__has_every_command_and_an_example_of_it() -> None:
    page = ROOT / "docs" / "command_line.md"
    assert set(re.findall(r"`unreid ([\w-]+)`\]", page.read_text())) == set(COMMANDS)
    assert {c.words[1] for c in commands(page) if c.words[0] == "unreid"} == set(COMMANDS)


# --- messages that pages quote ---


def literals() -> list[str]:
    """Return every string literal in the code; the fields of f-strings are NUL characters."""
    import fastreid.engine.train_loop as theirs

    found = []
    folders = [ROOT / "unreid", ROOT / "projects", ROOT / "tools"]
    for file in [Path(theirs.__file__), *(p for f in folders for p in f.rglob("*.py"))]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                found.append(
                    "".join(v.value if isinstance(v, ast.Constant) else "\0" for v in node.values)
                )  # type: ignore[misc]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def quoted_messages(page: Path) -> list[str]:
    """Return inline code of four words or more that is neither a setting nor a command."""
    text = _BLOCK.sub("", page.read_text())
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]
    return [
        s
        for s in spans
        if len(re.findall(r"\b[a-z]{2,}\b", s)) >= 4
        and not re.match(r"(pip|python|make|unreid|tools/)", s)
    ]


def says(literal: str, message: str) -> bool:
    """Return whether a string literal of the code can produce or contain this message."""
    gaps = ".*".join(re.escape(part) for part in message.split("..."))
    if re.search(gaps, literal, re.DOTALL):
        return True
    filled = ".+".join(re.escape(part) for part in literal.strip().split("\0"))
    return len(literal.replace("\0", "").strip()) > 12 and bool(re.fullmatch(filled, message))


def test_messages__that_pages_quote_are_in_the_code() -> None:
    known = literals()
    pages = [ROOT / "docs" / "troubleshooting.md", ROOT / "docs" / "several_gpus.md"]
    messages = [message for page in pages for message in quoted_messages(page)]
    assert len(messages) >= 12
    assert [m for m in messages if not any(says(text, m) for text in known)] == []


def test_functions__that_the_methods_page_names_exist() -> None:
    from unreid.projects import discover_projects, load_project

    for project in discover_projects():
        load_project(project)
    text = (ROOT / "docs" / "methods.md").read_text()
    packages = "|".join(["unreid", *(p.lower() for p in discover_projects())])
    named = set(re.findall(rf"`((?:{packages})\.[a-z_.]+\w+)`", text))
    assert len(named) > 25
    for name in named:
        module, _, entry = name.rpartition(".")
        assert hasattr(importlib.import_module(module), entry), name


@every_page
def test_settings__that_a_page_names_exist(page: Path) -> None:
    from unreid.config import flat_keys, load_config
    from unreid.projects import discover_projects

    known: set[str] = set()
    projects = sorted(discover_projects())
    for project in projects:
        cfg, _ = load_config(str(ROOT / f"projects/{project}/configs/synthetic.yml"))
        known |= {key for key, _ in flat_keys(cfg)}
    nodes = {key.rsplit(".", n)[0] for key in known for n in (1, 2)}
    roots = "|".join(
        [
            "UNSUP",
            "MODEL",
            "TEST",
            "SOLVER",
            "DATASETS",
            "DATALOADER",
            "INPUT",
            *(project.upper() for project in projects),
        ]
    )
    named = set(re.findall(rf"\b(?:{roots})\.[A-Z0-9_.]*[A-Z0-9]", page.read_text()))
    assert named - known - nodes == set()


@every_page
def test_files__that_a_page_names_exist(page: Path) -> None:
    text = page.read_text()
    named = set(
        re.findall(r"\b(?:tools|benchmarks)/\w+\.py|(?:projects|tests)/[\w/]+\.(?:yml|py)", text)
    )
    written = {n for n in named if "MutualGroups" in n}
    assert [n for n in named - written if not (ROOT / n).is_file()] == []
