"""Damage the bytes of a valid file at random."""

from __future__ import annotations

import numpy as np

#: Extreme values of lengths and sizes.
_WORDS = [n.to_bytes(size, order, signed=False)
          for size, numbers in ((1, (0, 0x7F, 0x80, 0xFF)), (2, (0, 0x7FFF, 0xFFFF)),
                                (4, (0, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)),
                                (8, (0, 2**63 - 1, 2**64 - 1)))
          for n in numbers for order in ("little", "big")]  # fmt: skip


def damage(data: bytes, rng: np.random.Generator) -> bytes:
    """Return the bytes with one to eight changes: truncate, flip, overwrite, repeat, move."""
    found = bytearray(data)
    for _ in range(int(rng.choice([1, 1, 1, 2, 4, 8]))):
        if not found:
            break
        at = int(rng.integers(len(found)))
        # More changes in the header, whose values programs use without a check.
        at = at % min(len(found), 64) if rng.random() < 0.3 else at
        length = int(min(len(found) - at, rng.integers(1, 65)))
        kind = int(rng.integers(8))
        if kind == 0:
            del found[at:]
        elif kind == 1:
            found[at] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            word = _WORDS[int(rng.integers(len(_WORDS)))]
            found[at : at + len(word)] = word
        elif kind == 3:
            found[at : at + length] = rng.integers(0, 256, length, dtype=np.uint8).tobytes()
        elif kind == 4:
            found[at:at] = found[at : at + length] * int(rng.integers(1, 20))
        elif kind == 5:
            del found[at : at + length]
        elif kind == 6:
            found[at : at + length] = bytes(length)
        else:
            other = int(rng.integers(len(found)))
            found[at : at + length] = found[other : other + length]
    return bytes(found)


def damage_text(text: str, rng: np.random.Generator) -> bytes:
    """Return the text with lines repeated, moved, cut or changed, sometimes with damaged bytes."""
    lines = text.split("\n")
    for _ in range(int(rng.integers(1, 4))):
        at, other = (int(rng.integers(len(lines))) for _ in range(2))
        kind = int(rng.integers(6))
        if kind == 0:
            lines[at] = lines[other]
        elif kind == 1:
            lines.insert(at, lines[other])
        elif kind == 2:
            lines[at] = " " * int(rng.integers(1, 5)) + lines[at]
        elif kind == 3:
            head, mark, _ = lines[at].partition(":" if ":" in lines[at] else ",")
            lines[at] = head + mark + " " + str(rng.choice(_VALUES))
        elif kind == 4:
            lines[at] = lines[at][: int(rng.integers(len(lines[at]) + 1))]
        else:
            lines[at] = lines[at].swapcase()
    data = "\n".join(lines).encode()
    return damage(data, rng) if rng.random() < 0.3 else data


_VALUES = (
    "",
    "-1",
    "0",
    "1e999",
    ".nan",
    "null",
    "[]",
    "{}",
    "[1, [2, [3]]]",
    "'",
    '"x',
    "true",
    "!!binary aGk=",
    "2024-13-45",
    "0x1F",
    "9" * 40,
    "a: b: c",
    "../../x",
    "(1,",
    "\t",
    "&a",
    "*a",
    "%",
    "\x07",
    "é" * 50,
    "-.inf",
    "__import__('os').getcwd()",
)
