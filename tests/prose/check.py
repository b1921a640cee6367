"""List phrases of ``phrases.toml`` in the repository's text files.

``make lint`` runs ``python -m tests.prose.check``. Exit code 1 when a phrase is found.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PHRASES = Path(__file__).with_name("phrases.toml")
SUFFIXES = (".py", ".pyx", ".pxd", ".md", ".yml", ".yaml", ".toml", ".html", ".js", ".css", ".cfg")

#: The list itself and its test name the phrases; the change log names what was renamed.
EXCLUDED = ("tests/prose/", "CHANGELOG.md", "unreid/visualization/templates/vendor")


@dataclass(frozen=True)
class Finding:
    """One phrase in one line.

    Attributes:
        path: File, relative to the repository.
        line: Line number, from 1.
        text: The phrase as it stands there.
        instead: The standard term.
    """

    path: str
    line: int
    text: str
    instead: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text!r}; write: {self.instead}"


def read_phrases(path: Path = PHRASES) -> list[tuple[re.Pattern[str], str]]:
    """Return (pattern, standard term) of every phrase.

    Raises:
        ValueError: A pattern is no regular expression; names the file and the pattern.
    """
    phrases = []
    for entry in tomllib.loads(path.read_text(encoding="utf-8"))["phrase"]:
        try:
            pattern = re.compile(entry["pattern"], re.IGNORECASE)
        except re.error as error:
            raise ValueError(
                f"{path}: {entry['pattern']!r} is no regular expression ({error})"
            ) from error
        phrases.append((pattern, entry["instead"]))
    return phrases


def find_phrases(
    text: str, path: str, phrases: Sequence[tuple[re.Pattern[str], str]]
) -> Iterator[Finding]:
    """Yield the findings of one file, in order of lines."""
    for number, line in enumerate(text.splitlines(), start=1):
        for pattern, instead in phrases:
            match = pattern.search(line)
            if match:
                yield Finding(path, number, match[0].strip(), instead)


def tracked_files(root: Path = ROOT) -> list[str]:
    """Return the text files under version control, without the excluded ones."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    return [
        name
        for name in listed
        if name.endswith(SUFFIXES) and not name.startswith(EXCLUDED) and (root / name).is_file()
    ]


def check(files: Iterable[str], root: Path = ROOT) -> list[Finding]:
    """Return the findings of all files."""
    phrases = read_phrases()
    return [
        finding
        for name in files
        for finding in find_phrases((root / name).read_text(encoding="utf-8"), name, phrases)
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print every finding; return 1 when there is one, else 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", metavar="FILE", help="default: all tracked text files")
    args = parser.parse_args(arguments)
    findings = check(args.files or tracked_files())
    sys.stdout.writelines(f"{finding}\n" for finding in findings)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
