"""Six synthetic cameras: viewing angles, scenes, and image degradation.

A camera turns a body (RGBA) and its place into an image: shadow, shading from the direction of
its light, an object in front, exposure, a 3 x 3 colour matrix, a tone curve, lens blur and sensor
noise. The parameters below set the domain gap between cameras.

Notation: H, W height and width of an image in pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from PIL import Image, ImageFilter

from unreid.checks import check_integer
from unreid.data.synthetic_figures import View, draw_body
from unreid.data.synthetic_people import Identity
from unreid.data.synthetic_scenes import PANORAMA, Scene, draw_scene

FRONT, SIDE, BACK = 0.0, math.pi / 2, math.pi


@dataclass(frozen=True)
class Camera:
    """One camera.

    ``gains`` scale red, green and blue, ``saturation`` 1 leaves colours alone and 0 gives grey,
    ``gamma`` > 1 darkens the middle tones. ``light`` is the direction the light comes from (x
    right, y down) times its strength. ``blur`` is a radius and ``noise`` a standard deviation, in
    pixels of a 128 pixel high image and in grey levels. ``facing`` are the chances of front,
    side and back; ``hidden`` the chance of an object in front.
    """

    index: int
    place: str
    gains: tuple[float, float, float]
    saturation: float
    gamma: float
    exposure: float
    lift: float
    light: tuple[float, float]
    blur: float
    noise: float
    quality: int
    facing: tuple[float, float, float]
    pitch: float
    scale: float
    tilt: float
    hidden: float
    seed: int


# Gains within a tenth of each other are a strong gap for the first layers of an untrained network.
# Measured with ``tests/unreid/data/test_synthetic.py``.
# fmt: off
_CAMERAS: tuple[Camera, ...] = (
    Camera(index=0, place="plaza", gains=(1.04, 1.0, 0.955), saturation=1.0, gamma=1.0,
           exposure=1.0, lift=0.0, light=(-0.9, -0.4), blur=0.4, noise=3.0, quality=88,
           facing=(0.45, 0.2, 0.35), pitch=0.12, scale=1.03, tilt=0.0, hidden=0.1, seed=0),
    Camera(index=1, place="lawn", gains=(0.975, 1.025, 0.965), saturation=0.97, gamma=0.98,
           exposure=0.98, lift=2.0, light=(0.8, -0.6), blur=0.6, noise=4.0, quality=82,
           facing=(0.35, 0.3, 0.35), pitch=0.18, scale=1.01, tilt=0.03, hidden=0.12, seed=0),
    Camera(index=2, place="shop", gains=(1.04, 1.0, 0.915), saturation=0.96, gamma=0.97,
           exposure=0.995, lift=2.0, light=(0.1, -0.8), blur=0.5, noise=5.0, quality=80,
           facing=(0.35, 0.2, 0.45), pitch=0.22, scale=1.05, tilt=-0.03, hidden=0.12, seed=0),
    Camera(index=3, place="gate", gains=(0.955, 0.995, 1.05), saturation=0.95, gamma=1.04,
           exposure=0.97, lift=1.0, light=(0.5, -0.5), blur=0.8, noise=5.0, quality=76,
           facing=(0.42, 0.22, 0.36), pitch=0.16, scale=0.99, tilt=0.0, hidden=0.12, seed=0),
    Camera(index=4, place="carpark", gains=(1.0, 1.005, 1.02), saturation=0.92, gamma=0.94,
           exposure=1.03, lift=5.0, light=(-0.6, -0.9), blur=0.5, noise=4.0, quality=84,
           facing=(0.35, 0.22, 0.43), pitch=0.2, scale=1.03, tilt=-0.02, hidden=0.12, seed=0),
    Camera(index=5, place="passage", gains=(1.03, 0.975, 0.99), saturation=0.92, gamma=1.03,
           exposure=0.91, lift=1.0, light=(0.3, -0.9), blur=0.7, noise=7.0, quality=74,
           facing=(0.4, 0.22, 0.38), pitch=0.1, scale=1.01, tilt=0.02, hidden=0.1, seed=0),
)
# fmt: on
MAX_CAMERAS = len(_CAMERAS)


def make_camera(index: int, seed: int = 0) -> Camera:
    """Return camera ``index`` (from 0, below ``MAX_CAMERAS``); ``seed`` varies its gains."""
    camera = _CAMERAS[check_integer("index", index, 0, MAX_CAMERAS - 1)]
    rng = np.random.default_rng([seed, 7, index])
    r, g, b = (gain * rng.uniform(0.985, 1.015) for gain in camera.gains)
    return replace(camera, gains=(r, g, b), seed=seed)


def sample_track(camera: Camera, rng: np.random.Generator) -> View:
    """Return the first view of a walk past ``camera``: heading, framing and place."""
    heading = (FRONT, SIDE, BACK)[int(rng.choice(3, p=camera.facing))]
    if heading == SIDE and rng.random() < 0.5:
        heading = -SIDE
    return View(
        yaw=heading + rng.normal(0.0, 0.22),
        gait=rng.uniform(0.0, 2 * math.pi),
        stride=rng.uniform(0.22, 0.5),
        pitch=camera.pitch + rng.normal(0.0, 0.03),
        tilt=camera.tilt + rng.normal(0.0, 0.02),
        scale=camera.scale * rng.uniform(0.95, 1.05),
        shift=(rng.normal(0.0, 0.02), rng.normal(0.0, 0.01)),
        place=rng.uniform(0.0, 1.0),
        light=rng.uniform(0.88, 1.12),
        occluder=-1,
        cover=0.0,
    )


def next_view(camera: Camera, first: View, frame: int, rng: np.random.Generator) -> View:
    """Return frame ``frame`` (from 0) of the walk that begins with ``first``."""
    hidden = bool(rng.random() < camera.hidden)
    return View(
        yaw=first.yaw + rng.normal(0.0, 0.12),
        gait=first.gait + 1.1 * frame + rng.normal(0.0, 0.15),
        stride=first.stride,
        pitch=first.pitch,
        tilt=first.tilt + rng.normal(0.0, 0.01),
        scale=first.scale * rng.uniform(0.95, 1.06),
        shift=(first.shift[0] + rng.normal(0.0, 0.02), first.shift[1] + rng.normal(0.0, 0.01)),
        place=(first.place + 0.035 * frame) % 1.0,
        light=first.light * rng.uniform(0.95, 1.05),
        occluder=0 if hidden else -1,
        cover=float(rng.choice((-1, 1)) * rng.uniform(0.25, 0.6)),
    )


@lru_cache(maxsize=16)
def _scene(place: str, size: tuple[int, int], seed: int) -> Scene:
    return draw_scene(place, size, seed)


def _shading(alpha: Image.Image, light: tuple[float, float]) -> np.ndarray:
    """Return the shading of the figure's surface, (H, W) around 1.

    The blurred silhouette is read as a height field: it falls off at the sides, so its slope along
    the light tells the lit flank from the dark one.
    """
    radius = alpha.size[1] / 32
    soft = np.asarray(alpha.filter(ImageFilter.GaussianBlur(radius)), np.float32) / 255.0
    down, right = np.gradient(soft)
    slope = (light[0] * right + light[1] * down) * radius
    return np.clip(1.0 - 0.55 * slope, 0.6, 1.35)


def _ground_shadow(view: View, camera: Camera, size: tuple[int, int]) -> np.ndarray:
    """Return a soft ellipse at the feet, away from the light, (H, W) in [0.6, 1]."""
    width, height = size
    x = np.arange(width, dtype=np.float32)[None] / height
    y = np.arange(height, dtype=np.float32)[:, None] / height
    cx = (0.5 + view.shift[0]) * width / height - 0.06 * camera.light[0]
    cy = 0.955 + view.shift[1]
    far = ((x - cx) / 0.17) ** 2 + ((y - cy) / 0.03) ** 2
    return 1.0 - 0.42 * np.exp(-far)


def _develop(light: np.ndarray, camera: Camera, exposure: float) -> np.ndarray:
    """Return exposure, colour matrix and tone curve of (H, W, 3) in [0, 255]."""
    luma = np.array([0.299, 0.587, 0.114], np.float32)
    mix = camera.saturation * np.eye(3) + (1 - camera.saturation) * luma[None]
    matrix = (np.asarray(camera.gains)[:, None] * mix * exposure / 255.0).astype(np.float32)
    tone = np.clip(light @ matrix.T, 0.0, 1.0) ** camera.gamma
    return camera.lift + (255.0 - camera.lift) * tone


def draw_figure(
    identity: Identity,
    camera: Camera,
    view: View,
    rng: np.random.Generator,
    size: tuple[int, int] = (64, 128),
) -> Image.Image:
    """Draw one image: ``identity`` in ``view``, seen by ``camera``.

    Args:
        identity: Appearance of the person.
        camera: The camera.
        view: pose and framing.
        rng: sensor noise only; the same state gives the same pixels.
        size: (W, H) in pixels.

    Returns:
        An RGB image of that size, before JPEG.
    """
    width, height = size
    scene = _scene(camera.place, size, camera.seed)
    left = round(view.place * (PANORAMA * height - width))
    behind = scene.panorama.crop((left, 0, left + width, height))
    if view.yaw < 0:
        behind = behind.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    body = draw_body(identity, view, size)
    opacity = body.getchannel("A")
    alpha = np.asarray(opacity, np.float32)[..., None] / 255.0
    ground = np.asarray(behind, np.float32) * _ground_shadow(view, camera, size)[..., None]
    skin = np.asarray(body.convert("RGB"), np.float32) * _shading(opacity, camera.light)[..., None]
    light = ground * (1.0 - alpha) + skin * alpha
    if view.occluder >= 0:
        front = Image.new("RGBA", size, (0, 0, 0, 0))
        front.paste(scene.occluder, (round(view.cover * width), 0))
        cover = np.asarray(front, np.float32)
        light += (cover[..., :3] - light) * (cover[..., 3:] / 255.0)
    image = _develop(light, camera, camera.exposure * view.light)
    sharp = Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))
    blurred = np.asarray(sharp.filter(ImageFilter.GaussianBlur(camera.blur * height / 128)))
    noise = rng.normal(0.0, camera.noise, blurred.shape)
    return Image.fromarray(np.clip(blurred + noise, 0, 255).astype(np.uint8))
