"""Appearance of synthetic people: body proportions, clothes and bags, in a few shared colours."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

Color = tuple[int, int, int]

# Few colours, so that colour alone does not identify a person.
UPPER_COLORS: tuple[Color, ...] = (
    (38, 38, 42), (222, 220, 214), (128, 130, 134), (36, 48, 92), (168, 40, 44),
    (58, 104, 168), (48, 96, 66), (206, 176, 82), (200, 132, 150), (176, 152, 120),
)  # fmt: skip
LOWER_COLORS: tuple[Color, ...] = (
    (36, 36, 40), (44, 56, 92), (104, 128, 164), (112, 112, 116), (160, 142, 112), (206, 202, 194),
)  # fmt: skip
SKIN_COLORS: tuple[Color, ...] = ((236, 200, 172), (214, 166, 132), (166, 116, 84), (104, 70, 52))
HAIR_COLORS: tuple[Color, ...] = ((28, 24, 22), (70, 46, 32), (132, 94, 56), (176, 172, 166))
TEXTURES = ("plain", "hoops", "bars", "checks", "dots", "yoke", "logo")
BAGS = ("none", "backpack", "shoulder", "hand")


@dataclass(frozen=True)
class Identity:
    """Appearance of one person, equal in all cameras.

    Lengths are fractions of the height of a standing person.

    Attributes:
        height: Factor on the height.
        shoulders: Half width of the shoulders.
        waist: Half width of the waist.
        hips: Half width of the hips.
        depth: Half depth of the torso.
        legs: Length of the legs.
        limb: Factor on the thickness of arms and legs.
        skin: Colour.
        hair: Colour.
        hair_length: 0 (none) to 1 (long).
        hat: Colour, or None.
        upper: Colour of the upper clothing.
        second: Second colour of its texture.
        texture: One of :data:`TEXTURES`.
        frequency: Periods of the texture over the torso.
        phase: Phase of the texture in radians.
        long_sleeves: Whether the sleeves reach the hands.
        open_jacket: Whether a shirt is visible under the upper clothing.
        hem: Length of the upper clothing below the hips.
        lower: Colour of the lower clothing.
        lower_kind: "trousers", "shorts" or "skirt".
        shoes: Colour.
        bag: One of :data:`BAGS`.
        bag_color: Colour.
        side: Side of the bag, +1 or -1.
    """

    height: float
    shoulders: float
    waist: float
    hips: float
    depth: float
    legs: float
    limb: float
    skin: Color
    hair: Color
    hair_length: float
    hat: Color | None
    upper: Color
    second: Color
    texture: str
    frequency: float
    phase: float
    long_sleeves: bool
    open_jacket: bool
    hem: float
    lower: Color
    lower_kind: str
    shoes: Color
    bag: str
    bag_color: Color
    side: int


def _jitter_color(color: Color, rng: np.random.Generator, spread: int = 7) -> Color:
    """Return a colour near ``color``."""
    r, g, b = np.clip(np.asarray(color) + rng.integers(-spread, spread + 1, 3), 0, 255)
    return int(r), int(g), int(b)


def _pick(colors: tuple[Color, ...], rng: np.random.Generator) -> Color:
    """Sample a colour near one of ``colors``."""
    return _jitter_color(colors[int(rng.integers(len(colors)))], rng)


def sample_identity(rng: np.random.Generator) -> Identity:
    """Sample the appearance of one person from ``rng``."""
    texture = TEXTURES[int(rng.choice(len(TEXTURES), p=(0.22, 0.16, 0.11, 0.13, 0.11, 0.13, 0.14)))]
    build = rng.uniform(0.86, 1.2)
    return Identity(
        height=rng.uniform(0.9, 1.02),
        shoulders=0.112 * build * rng.uniform(0.94, 1.06),
        waist=0.086 * build * rng.uniform(0.9, 1.15),
        hips=0.094 * build * rng.uniform(0.92, 1.12),
        depth=0.068 * build * rng.uniform(0.9, 1.15),
        legs=rng.uniform(0.45, 0.52),
        limb=build * rng.uniform(0.9, 1.12),
        skin=_pick(SKIN_COLORS, rng),
        hair=_pick(HAIR_COLORS, rng),
        hair_length=float(rng.choice((0.0, 0.35, 0.6, 1.0), p=(0.08, 0.42, 0.2, 0.3))),
        hat=_pick(UPPER_COLORS, rng) if rng.random() < 0.18 else None,
        upper=_pick(UPPER_COLORS, rng),
        second=_pick(UPPER_COLORS, rng),
        texture=texture,
        frequency=float(rng.choice((3.0, 4.5, 6.0, 8.0))),
        phase=rng.uniform(0.0, 2 * math.pi),
        long_sleeves=bool(rng.random() < 0.55),
        open_jacket=bool(rng.random() < 0.2),
        hem=float(rng.choice((0.0, 0.03, 0.14), p=(0.5, 0.35, 0.15))),
        lower=_pick(LOWER_COLORS, rng),
        lower_kind=str(rng.choice(("trousers", "shorts", "skirt"), p=(0.6, 0.2, 0.2))),
        shoes=_jitter_color(
            ((40, 38, 40), (214, 212, 208), (150, 60, 52))[int(rng.integers(3))], rng
        ),
        bag=str(rng.choice(BAGS, p=(0.34, 0.28, 0.22, 0.16))),
        bag_color=_pick(UPPER_COLORS, rng),
        side=int(rng.choice((-1, 1))),
    )
