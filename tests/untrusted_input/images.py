"""Malicious images: decompression bombs, other formats, files that are no regular files."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.untrusted_input.case import Builder, Case
from tests.untrusted_input.damage import damage
from tests.untrusted_input.valid_files import ValidFiles


def _png(width: int, height: int, data: bytes = b"", extra: bytes = b"") -> bytes:
    """Return a PNG whose header and data may disagree."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content))
            + name
            + content
            + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", data)
        + chunk(b"IEND", b"")
    )


def _text_chunk(megabytes: int) -> bytes:
    content = b"zTXt" + b"k\0\0" + zlib.compress(bytes(megabytes * 2**20))
    return struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))


def _saved(kind: str, size: tuple[int, int] = (32, 64), mode: str = "RGB", **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size, 7 if len(mode) == 1 else None).save(stream, kind, **options)
    return stream.getvalue()


def _jpeg_of(width: int, height: int) -> bytes:
    """Return a small JPEG whose frame header claims another size."""
    data = bytearray(_saved("JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def _bmp_of(width: int, height: int) -> bytes:
    data = bytearray(_saved("BMP"))
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


def _gif_of(width: int, height: int) -> bytes:
    data = bytearray(_saved("GIF", mode="P"))
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


_EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 64\n(pwned) (w) file closefile\nshowpage\n"
_ROW = zlib.compress(bytes(1 + 3 * 5000) * 6000)

#: File name -> content, and whether it must be refused.
FILES: dict[str, tuple[bytes, bool]] = {
    "empty.jpg": (b"", True),
    "text.jpg": (b"no image\n" * 100, True),
    "header.png": (_png(32, 64), True),
    "bomb.png": (_png(65_500, 65_500, zlib.compress(bytes(2**20))), True),
    "bomb_full.png": (_png(5000, 8000, zlib.compress(bytes(1 + 3 * 5000) * 8000)), True),
    "large.png": (_png(5000, 6000, _ROW), False),
    "bomb.jpg": (_jpeg_of(65_500, 65_500), True),
    "bomb.bmp": (_bmp_of(100_000, 100_000), True),
    "negative.bmp": (_bmp_of(-32, 64), True),
    "bomb.gif.jpg": (_gif_of(65_535, 65_535), True),
    "nothing.jpg": (_jpeg_of(0, 0), True),
    "ghostscript.jpg": (_EPS, True),
    "tiff.jpg": (_saved("TIFF"), True),
    "tiff_bomb.png": (_saved("TIFF", (3000, 3000), compression="tiff_deflate"), True),
    "vector.jpg": (b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>", True),
    "text_bomb.png": (_png(32, 64, zlib.compress(bytes(97 * 64)), _text_chunk(200)), True),
    "four_inks.jpg": (_saved("JPEG", mode="CMYK"), False),
    "sixteen_bits.png": (_saved("PNG", mode="I;16"), False),
    "one_bit.png": (_saved("PNG", mode="1"), False),
    "palette.png": (_saved("PNG", mode="P"), False),
    "dot.png": (_saved("PNG", (1, 1)), False),
    "thread.png": (_saved("PNG", (30_000, 1)), False),
    "hair.png": (_saved("PNG", (1, 30_000)), False),
    "turned.jpg": (_saved("JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + bytes(40)), False),
    "moving.webp": (
        _saved("WEBP", save_all=True, append_images=[Image.new("RGB", (32, 64))]),
        False,
    ),
    "a name\nof two lines.jpg": (b"x", True),
    "<img src=x onerror=alert(1)>.jpg": (b"x", True),
    "-rf.jpg": (b"x", True),
    "\u202egpj.png": (b"x", True),
    "n" * 240 + ".jpg": (b"x", True),
    "script.jpg": (b"#!/bin/sh\ntouch pwned\n", True),
    "zip.png": (b"PK\x03\x04" + bytes(60), True),
}


def _special(name: str) -> Builder:
    def build(folder: Path, valid: ValidFiles, rng: np.random.Generator) -> Case:
        data, refuse = FILES[name]
        crops = folder / "crops"
        crops.mkdir()
        (crops / name).write_bytes(data)
        return _asked(crops, name, valid, rng, refuse=refuse)

    return build


def _asked(
    crops: Path, name: str, valid: ValidFiles, rng: np.random.Generator, *, refuse: bool = False
) -> Case:
    """Return a random command that reads images."""
    # Names with line breaks are printed in Python notation.
    named = (name, repr(name)[1:-1])
    kind = int(rng.integers(4))
    model = ("--run", str(valid.run))
    output = str(crops.parent / "out")
    if kind == 0:
        return Case(
            "label", (*model, "--images", str(crops), "--output", f"{output}.csv"), named, refuse
        )
    if kind == 1:
        # Besides, the image is left out where that is wanted.
        return Case(
            "search",
            (
                *model,
                "--gallery",
                str(crops),
                "--skip-bad",
                "--output",
                output,
                "--query",
                str(valid.crops / "c0_0.jpg"),
                "--pictures",
            ),
            (*named, "no readable image"),
        )
    if kind == 2 and "\n" not in name:
        return Case(
            "search",
            (
                *model,
                "--gallery",
                str(valid.crops),
                "--output",
                output,
                "--query",
                str(crops / name),
            ),
            named,
            refuse,
        )
    return Case("check_data", ("--root", str(crops)), named, refuse)


def _no_file(kind: str) -> Builder:
    def build(folder: Path, valid: ValidFiles, rng: np.random.Generator) -> Case:
        crops = folder / "crops"
        crops.mkdir()
        path = crops / f"{kind}.jpg"
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
            (path / "inside.png").write_bytes(FILES["dot.png"][0])
        elif kind == "dangling":
            path.symlink_to("nowhere.jpg")
        elif kind == "itself":
            path.symlink_to(path.name)
        elif kind == "loop":
            (crops / "again").symlink_to(crops)
            path.write_bytes(FILES["dot.png"][0])
        elif kind == "endless":
            path.symlink_to("/dev/zero")
        else:
            (crops / os.fsdecode(b"\xff\xfe.jpg")).write_bytes(b"")
            return _asked(crops, "must be UTF-8", valid, rng)
        good = kind in ("folder", "loop")
        return _asked(
            crops, "inside.png" if kind == "folder" else path.name, valid, rng, refuse=not good
        )

    return build


def mutated(folder: Path, valid: ValidFiles, rng: np.random.Generator) -> Case:
    """Return a valid image with damaged bytes."""
    crops = folder / "crops"
    crops.mkdir()
    source = sorted(valid.crops.iterdir())[int(rng.integers(4))]
    name = f"damaged{source.suffix}"
    (crops / name).write_bytes(damage(source.read_bytes(), rng))
    return _asked(crops, name, valid, rng)


def _valid(folder: Path, valid: ValidFiles, rng: np.random.Generator) -> Case:
    return Case(
        "label",
        (
            "--run",
            str(valid.run),
            "--images",
            str(valid.crops),
            "--output",
            str(folder / "out.csv"),
        ),
        (),
    )


SPECIALS: dict[str, Builder] = {
    "valid": _valid,
    **{name: _special(name) for name in FILES},
    **{
        f"a {kind}": _no_file(kind)
        for kind in (
            "pipe",
            "folder",
            "dangling",
            "itself",
            "loop",
            "endless",
            "name that is no UTF-8",
        )
    },
}
