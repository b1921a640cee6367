"""Render synthetic figures: pose, framing and appearance.

A figure has a few joints in three dimensions: x to the right of the viewer of a front view, y up, z
forward; a standing person is one unit high. The joints are rotated by the yaw of the view and
projected. Limbs are tapered capsules, drawn far to near. The torso is a cylinder whose texture is
evaluated per pixel from the azimuth, so that a logo, an open jacket and the straps of a bag are
consistent between front, side and back views.

Notation: H, W height and width of the canvas in pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from unreid.data.synthetic_people import Color, Identity

Joint = tuple[float, float, float]

#: Images are rendered at this multiple of their size, then reduced (anti-aliasing).
SUPERSAMPLING = 3
#: Factor on widths, so that a person fills the crop as in a detector's bounding box.
WIDEN = 1.15


@dataclass(frozen=True)
class View:
    """Pose and framing of a person in one image.

    Attributes:
        yaw: Orientation in radians: 0 front, pi back.
        gait: Phase of the gait cycle in radians.
        stride: Amplitude of the legs in radians.
        pitch: Pitch of the camera in radians.
        tilt: Tilt of the camera in radians.
        scale: Factor on the height of the person.
        shift: Offset of the person, as fractions of image width and height.
        position: Position along the panorama of the scene, in [0, 1].
        light: Factor on the exposure.
        occluder: Index of the occluder, -1 for none.
        occluder_x: Position of the occluder, as a fraction of the image width.
    """

    yaw: float
    gait: float
    stride: float
    pitch: float
    tilt: float
    scale: float
    shift: tuple[float, float]
    position: float
    light: float
    occluder: int
    occluder_x: float


def _shade(color: Color, factor: float) -> Color:
    """Return the colour, scaled and clipped at 255."""
    r, g, b = (min(255, round(c * factor)) for c in color)
    return r, g, b


class _Canvas:
    """Transparent layer that draws shapes given in body coordinates."""

    def __init__(self, person: Identity, view: View, width: int, height: int) -> None:
        self.layer = Image.new("RGBA", (width, height), (0, 0, 0, 0))
        self.draw = ImageDraw.Draw(self.layer)
        self.unit = 0.93 * view.scale * person.height * height
        self.origin = ((0.5 + view.shift[0]) * width, (0.97 + view.shift[1]) * height)
        self.cos, self.sin = math.cos(view.yaw), math.sin(view.yaw)
        self.pitch, self.tilt = math.sin(view.pitch), math.tan(view.tilt)

    def depth(self, joint: Joint) -> float:
        """Return the depth of a joint; larger values are nearer to the viewer."""
        return joint[2] * self.cos - joint[0] * self.sin

    def to_pixels(self, x: float, y: float, depth: float = 0.0) -> tuple[float, float]:
        """Return the pixel of a point in the image plane, given in body units before the tilt."""
        y = y - depth * self.pitch
        return (
            self.origin[0] + self.unit * (WIDEN * x + (y - 0.5) * self.tilt),
            self.origin[1] - self.unit * y,
        )

    def project(self, joint: Joint) -> tuple[float, float]:
        """Return the pixel of a joint."""
        x = joint[0] * self.cos + joint[2] * self.sin
        return self.to_pixels(x, joint[1], self.depth(joint))

    def disc(self, center: tuple[float, float], rx: float, ry: float, color: Color) -> None:
        """Draw an ellipse at pixel ``center`` with radii in body units."""
        rx, ry = rx * self.unit * WIDEN, ry * self.unit
        x, y = center
        self.draw.ellipse((x - rx, y - ry, x + rx, y + ry), fill=color)

    def capsule(self, a: Joint, b: Joint, ra: float, rb: float, color: Color) -> None:
        """Draw a tapered limb from ``a`` (radius ``ra``) to ``b`` (radius ``rb``)."""
        (ax, ay), (bx, by) = self.project(a), self.project(b)
        length = math.hypot(bx - ax, by - ay)
        if length > 1.0:
            nx, ny = (ay - by) / length * self.unit * WIDEN, (bx - ax) / length * self.unit
            self.draw.polygon(
                (
                    (ax + nx * ra, ay + ny * ra),
                    (bx + nx * rb, by + ny * rb),
                    (bx - nx * rb, by - ny * rb),
                    (ax - nx * ra, ay - ny * ra),
                ),
                fill=color,
            )
        self.disc((ax, ay), ra, ra, color)
        self.disc((bx, by), rb, rb, color)


def _limb_end(start: Joint, angle: float, length: float) -> Joint:
    """Return the end of a limb that hangs from ``start``, swung forward by ``angle``."""
    return (
        start[0],
        start[1] - length * math.cos(angle),
        start[2] + length * math.sin(angle),
    )


def _leg(canvas: _Canvas, person: Identity, view: View, angle: float, side: int) -> None:
    """Draw one leg and its shoe."""
    bend = max(0.0, -side * math.cos(view.gait)) * view.stride * 1.3 + 0.04
    hip = (side * person.hips * 0.5, person.legs, 0.0)
    knee = _limb_end(hip, angle, (person.legs - 0.035) * 0.52)
    ankle = _limb_end(knee, angle - bend, (person.legs - 0.035) * 0.48)
    toe = (ankle[0] * 1.08, ankle[1] - 0.012, ankle[2] + 0.075)
    dim = 0.84 if canvas.depth(hip) < -0.01 else (1.0 if side > 0 else 0.95)
    thick = person.limb
    covered = person.lower_kind == "trousers"
    canvas.capsule(ankle, toe, 0.021, 0.017, _shade(person.shoes, dim))
    shin = _shade(person.lower if covered else person.skin, dim)
    canvas.capsule(knee, ankle, (0.038 if covered else 0.031) * thick,
                   (0.029 if covered else 0.02) * thick, shin)  # fmt: skip
    bare = person.lower_kind == "skirt"
    canvas.capsule(hip, knee, 0.05 * thick, 0.039 * thick,
                   _shade(person.skin if bare else person.lower, dim))  # fmt: skip


def _arm(canvas: _Canvas, person: Identity, angle: float, side: int) -> Joint:
    """Draw one arm; return the position of its hand."""
    shoulder = (side * person.shoulders * 0.94, 0.795, 0.0)
    elbow = _limb_end((shoulder[0] + side * 0.016, shoulder[1], 0.0), -0.8 * angle, 0.155)
    hand = _limb_end((elbow[0], elbow[1], elbow[2]), -0.8 * angle + 0.25, 0.15)
    dim = 0.8 if canvas.depth(shoulder) < -0.02 else 0.9
    sleeve = _shade(person.second if person.texture == "yoke" else person.upper, dim)
    skin = _shade(person.skin, dim + 0.06)
    thick = person.limb
    canvas.capsule(elbow, hand, 0.025 * thick, 0.02 * thick,
                   sleeve if person.long_sleeves else skin)  # fmt: skip
    canvas.disc(canvas.project(hand), 0.02, 0.022, skin)
    canvas.capsule(shoulder, elbow, 0.036 * thick, 0.028 * thick, sleeve)
    return hand


def _pattern(person: Identity, azimuth: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Return torso colours (h, w, 3) by ``azimuth`` (0: front) and ``level`` (1: neck)."""
    turn, rise = person.frequency * azimuth, 2 * math.pi * person.frequency * level + person.phase
    front = np.abs(azimuth)
    masks = {
        "plain": np.zeros(level.shape, bool),
        "hoops": np.sin(rise) > 0.1,
        "bars": np.sin(turn * 2.0 + person.phase) > 0.1,
        "checks": (np.sin(rise) > 0) ^ (np.sin(turn * 2.0) > 0),
        "dots": np.sin(rise * 1.2) * np.sin(turn * 2.4 + person.phase) > 0.42,
        "yoke": level > 0.5 + 0.22 * math.sin(person.phase),
        "logo": (front < 0.62) & (np.abs(level - 0.62 - 0.08 * math.sin(person.phase)) < 0.13),
    }
    mask = masks[person.texture]
    paint = np.where(mask[..., None], person.second, person.upper).astype(np.float32)
    if person.open_jacket:
        inside = front < 0.3 + 0.25 * level
        shirt = _shade(person.second, 0.92) if person.texture == "plain" else (214, 212, 206)
        paint[inside] = shirt
    if person.bag == "backpack":
        paint[(np.abs(front - 0.8) < 0.15) & (level > 0.35)] = _shade(person.bag_color, 0.85)
    if person.bag == "shoulder":
        across = np.sin(azimuth) * person.side * np.where(front < math.pi / 2, -1.0, 1.0)
        strap = np.abs(across * np.sign(np.cos(azimuth)) - (1.9 * level - 0.95)) < 0.15
        paint[strap] = _shade(person.bag_color, 0.85)
    # Light comes from above: clothes get darker towards the hem.
    paint *= (0.9 + 0.12 * level)[..., None]
    return paint


def _torso(canvas: _Canvas, person: Identity, yaw: float) -> None:
    """Draw the torso: the outline as a polygon, the texture per pixel."""

    def half(width: float) -> float:
        return math.hypot(width * canvas.cos, person.depth * canvas.sin)

    bottom = person.legs - 0.03 - person.hem
    rows = (
        (0.855, 0.024), (0.835, half(person.shoulders) * 0.72), (0.805, half(person.shoulders)),
        (0.74, half(person.shoulders) * 0.97), (0.6, half(person.waist)),
        (person.legs + 0.03, half(person.hips)), (bottom, half(person.hips) * 1.06),
    )  # fmt: skip
    outline = [canvas.to_pixels(w, y) for y, w in rows]
    outline += [canvas.to_pixels(-w, y) for y, w in reversed(rows)]
    xs, ys = zip(*outline)
    width, height = canvas.layer.size
    left, top = max(0, math.floor(min(xs))), max(0, math.floor(min(ys)))
    right, low = min(width, math.ceil(max(xs)) + 1), min(height, math.ceil(max(ys)) + 1)
    if right - left < 1 or low - top < 1:
        return
    mask = Image.new("L", (right - left, low - top), 0)
    ImageDraw.Draw(mask).polygon([(x - left, y - top) for x, y in outline], fill=255)
    grid_y = (canvas.origin[1] - np.arange(top, low, dtype=np.float32)) / canvas.unit
    center = canvas.origin[0] + canvas.unit * (grid_y - 0.5) * canvas.tilt
    across = (np.arange(left, right, dtype=np.float32)[None] - center[:, None]) / canvas.unit
    across /= WIDEN
    round_ = half(max(person.shoulders, person.hips)) * 1.05
    azimuth = np.arcsin(np.clip(across / round_, -1.0, 1.0)) - yaw
    azimuth = (azimuth + math.pi) % (2 * math.pi) - math.pi
    level = np.broadcast_to(((grid_y - bottom) / (0.85 - bottom))[:, None], azimuth.shape)
    paint = np.clip(_pattern(person, azimuth, level), 0, 255).astype(np.uint8)
    canvas.layer.paste(Image.fromarray(paint), (left, top), mask)


def _skirt(canvas: _Canvas, person: Identity, view: View) -> None:
    """Draw a skirt."""
    wide = math.hypot(person.hips * canvas.cos, person.depth * canvas.sin)
    flare = wide * 1.25 + 0.02 * abs(math.sin(view.gait))
    waist, hem = person.legs + 0.03, person.legs * 0.5
    corners = ((wide, waist), (flare, hem), (-flare, hem), (-wide, waist))
    canvas.draw.polygon([canvas.to_pixels(x, y) for x, y in corners], fill=person.lower)


def _head(canvas: _Canvas, person: Identity, behind: bool) -> None:
    """Draw the head in two passes: parts behind the torso, then parts in front."""
    lean = 0.018 * canvas.sin
    center = canvas.to_pixels(lean, 0.925)
    facing = canvas.cos
    if behind:
        canvas.capsule((0.0, 0.82, 0.0), (0.0, 0.89, 0.0), 0.026, 0.024, _shade(person.skin, 0.85))
        if person.hair_length > 0.8 and facing > -0.3:
            canvas.disc(
                canvas.to_pixels(lean - 0.02 * canvas.sin, 0.885), 0.058, 0.085, person.hair
            )
        return
    radius = 0.046 + 0.006 * abs(canvas.sin)
    canvas.disc(center, radius, 0.06, person.skin)
    if person.hair_length > 0:
        hair = person.hair
        # The hair is a disc that covers the face as the person turns away.
        slip = -0.03 * canvas.sin
        lift = 0.03 * max(0.0, facing)
        rx, ry = radius * (1.05 if facing > -0.3 else 1.1), 0.062 - 0.026 * max(0.0, facing)
        canvas.disc(canvas.to_pixels(lean + slip, 0.93 + lift), rx, ry, hair)
        if person.hair_length > 0.8 and facing <= -0.3:
            canvas.disc(canvas.to_pixels(lean + slip, 0.87), 0.056, 0.1, hair)
        elif person.hair_length > 0.5 and facing <= 0.3:
            canvas.disc(canvas.to_pixels(lean + slip * 1.2, 0.9), 0.046, 0.05, hair)
    if facing > 0.3:
        for eye in (-0.018, 0.018):
            canvas.disc(canvas.to_pixels(lean + eye * facing + 0.02 * canvas.sin, 0.925), 0.006,
            0.005,
                        _shade(person.skin, 0.35))  # fmt: skip
    if person.hat is not None:
        canvas.disc(canvas.to_pixels(lean, 0.96), radius * 1.12, 0.036, person.hat)
        brim = (lean + 0.035 * canvas.sin, 0.948 - 0.006 * facing)
        canvas.disc(canvas.to_pixels(*brim), radius * 1.15, 0.01, _shade(person.hat, 0.75))


def _backpack(canvas: _Canvas, person: Identity) -> None:
    """Draw a backpack."""
    back = person.depth + 0.035
    x = -back * canvas.sin
    wide = math.hypot(0.075 * canvas.cos, 0.05 * canvas.sin)
    (left, top), (right, low) = canvas.to_pixels(x - wide, 0.81), canvas.to_pixels(x + wide, 0.56)
    if right - left < 4 or low - top < 4:
        return
    radius = int(0.03 * canvas.unit)
    canvas.draw.rounded_rectangle((left, top, right, low), radius, fill=person.bag_color)
    if canvas.cos < -0.3:
        x0, y0 = canvas.to_pixels(x - wide * 0.7, 0.66)
        x1, y1 = canvas.to_pixels(x + wide * 0.7, 0.58)
        pocket = _shade(person.bag_color, 0.78)
        canvas.draw.rounded_rectangle((min(x0, x1), y0, max(x0, x1), y1), radius // 2, fill=pocket)


def _side_bag(canvas: _Canvas, person: Identity, hand: Joint) -> None:
    """Draw a handbag or a shoulder bag."""
    if person.bag == "hand":
        x, y = hand[0], hand[1] - 0.03
        spot: Joint = (x, y, hand[2])
        wide, high = 0.05, 0.085
    else:
        spot = (person.side * (person.hips + 0.012), person.legs + 0.05, 0.0)
        wide, high = 0.058, 0.1
    px, py = canvas.project(spot)
    half = canvas.unit * wide * (0.6 + 0.4 * abs(canvas.sin))
    box = (px - half, py, px + half, py + canvas.unit * high)
    canvas.draw.rounded_rectangle(box, int(0.012 * canvas.unit), fill=person.bag_color)
    lid = (box[0], box[1], box[2], box[1] + canvas.unit * high * 0.35)
    canvas.draw.rounded_rectangle(lid, int(0.012 * canvas.unit), fill=_shade(person.bag_color, 0.8))


def render_figure(person: Identity, view: View, size: tuple[int, int]) -> Image.Image:
    """Render a person on a transparent background.

    Args:
        person: Appearance of the person.
        view: Pose and framing.
        size: (W, H) of the result in pixels.

    Returns:
        An anti-aliased RGBA image; alpha is the silhouette of the figure.
    """
    width, height = size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING
    canvas = _Canvas(person, view, width, height)
    # The side at +x is nearer to the viewer if the sine of the yaw is negative.
    far, near = (1, -1) if canvas.sin > 0 else (-1, 1)
    bag_behind = person.bag == "backpack" and canvas.cos > -0.15
    hands: dict[int, Joint] = {}
    if bag_behind:
        _backpack(canvas, person)
    _head(canvas, person, behind=True)
    side_on = abs(canvas.sin) > 0.35
    angles = {side: side * view.stride * math.sin(view.gait) for side in (far, near)}
    if side_on:
        hands[far] = _arm(canvas, person, angles[far], far)
        if person.bag in ("hand", "shoulder") and person.side == far:
            _side_bag(canvas, person, hands[far])
    for side in (far, near):
        _leg(canvas, person, view, angles[side], side)
    if person.lower_kind == "skirt":
        _skirt(canvas, person, view)
    _torso(canvas, person, view.yaw)
    if person.bag == "backpack" and not bag_behind:
        _backpack(canvas, person)
    for side in (near,) if side_on else (far, near):
        hands[side] = _arm(canvas, person, angles[side], side)
        if person.bag in ("hand", "shoulder") and person.side == side:
            _side_bag(canvas, person, hands[side])
    _head(canvas, person, behind=False)
    return canvas.layer.reduce(SUPERSAMPLING)
