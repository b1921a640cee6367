"""Six synthetic cameras: viewing angles, scenes, and image degradation.

A camera renders an image from a figure (RGBA) and the background of its scene: ground shadow,
shading, occluder, exposure, a 3 x 3 colour matrix, a tone curve, lens blur and sensor noise. The
parameters below set the domain gap between cameras.

Notation: H, W height and width of an image in pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from PIL import Image, ImageFilter

from unreid.checks import check_integer
from unreid.data.synthetic_figures import View, render_figure
from unreid.data.synthetic_people import Identity
from unreid.data.synthetic_scenes import PANORAMA, Scene, render_scene

FRONT, SIDE, BACK = 0.0, math.pi / 2, math.pi


@dataclass(frozen=True)
class Camera:
    """Parameters of one camera.

    Attributes:
        index: Number of the camera, from 0.
        scene: A key of :data:`unreid.data.synthetic_scenes.SCENES`.
        gains: Factors of red, green and blue.
        saturation: 1 keeps the colours, 0 gives greyscale.
        gamma: Exponent of the tone curve; > 1 darkens the mid-tones.
        exposure: Factor on the brightness.
        black_level: Grey level of black, of 255.
        light: Direction that the light comes from (x right, y down), times its strength.
        blur: Radius of the Gaussian lens blur, in pixels of an image 128 pixels high.
        noise: Standard deviation of the sensor noise in grey levels.
        quality: JPEG quality.
        orientations: Probabilities of front, side and back view.
        pitch: Mean pitch of the camera in radians.
        scale: Mean scale of a person.
        tilt: Mean tilt of the camera in radians.
        occlusion: Probability of an occluder.
        seed: Seed of the scene.
    """

    index: int
    scene: str
    gains: tuple[float, float, float]
    saturation: float
    gamma: float
    exposure: float
    black_level: float
    light: tuple[float, float]
    blur: float
    noise: float
    quality: int
    orientations: tuple[float, float, float]
    pitch: float
    scale: float
    tilt: float
    occlusion: float
    seed: int


# Gains that differ by 10 % are already a large domain gap for an untrained network, as measured by
# ``tests/unreid/data/test_synthetic.py``.
# fmt: off
_CAMERAS: tuple[Camera, ...] = (
    Camera(index=0, scene="plaza", gains=(1.04, 1.0, 0.955), saturation=1.0, gamma=1.0,
           exposure=1.0, black_level=0.0, light=(-0.9, -0.4), blur=0.4, noise=3.0, quality=88,
           orientations=(0.45, 0.2, 0.35), pitch=0.12, scale=1.03, tilt=0.0, occlusion=0.1, seed=0),
    Camera(index=1, scene="lawn", gains=(0.975, 1.025, 0.965), saturation=0.97, gamma=0.98,
           exposure=0.98, black_level=2.0, light=(0.8, -0.6), blur=0.6, noise=4.0, quality=82,
           orientations=(0.35, 0.3, 0.35), pitch=0.18, scale=1.01, tilt=0.03, occlusion=0.12,
           seed=0),
    Camera(index=2, scene="shop", gains=(1.04, 1.0, 0.915), saturation=0.96, gamma=0.97,
           exposure=0.995, black_level=2.0, light=(0.1, -0.8), blur=0.5, noise=5.0, quality=80,
           orientations=(0.35, 0.2, 0.45), pitch=0.22, scale=1.05, tilt=-0.03, occlusion=0.12,
           seed=0),
    Camera(index=3, scene="gate", gains=(0.955, 0.995, 1.05), saturation=0.95, gamma=1.04,
           exposure=0.97, black_level=1.0, light=(0.5, -0.5), blur=0.8, noise=5.0, quality=76,
           orientations=(0.42, 0.22, 0.36), pitch=0.16, scale=0.99, tilt=0.0, occlusion=0.12,
           seed=0),
    Camera(index=4, scene="carpark", gains=(1.0, 1.005, 1.02), saturation=0.92, gamma=0.94,
           exposure=1.03, black_level=5.0, light=(-0.6, -0.9), blur=0.5, noise=4.0, quality=84,
           orientations=(0.35, 0.22, 0.43), pitch=0.2, scale=1.03, tilt=-0.02, occlusion=0.12,
           seed=0),
    Camera(index=5, scene="passage", gains=(1.03, 0.975, 0.99), saturation=0.92, gamma=1.03,
           exposure=0.91, black_level=1.0, light=(0.3, -0.9), blur=0.7, noise=7.0, quality=74,
           orientations=(0.4, 0.22, 0.38), pitch=0.1, scale=1.01, tilt=0.02, occlusion=0.1, seed=0),
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
    """Sample the first view of a track: orientation, framing and position in the scene."""
    heading = (FRONT, SIDE, BACK)[int(rng.choice(3, p=camera.orientations))]
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
        position=rng.uniform(0.0, 1.0),
        light=rng.uniform(0.88, 1.12),
        occluder=-1,
        occluder_x=0.0,
    )


def next_view(camera: Camera, first: View, frame: int, rng: np.random.Generator) -> View:
    """Sample the view of frame ``frame`` (from 0) of the track that begins with ``first``."""
    occluded = bool(rng.random() < camera.occlusion)
    return View(
        yaw=first.yaw + rng.normal(0.0, 0.12),
        gait=first.gait + 1.1 * frame + rng.normal(0.0, 0.15),
        stride=first.stride,
        pitch=first.pitch,
        tilt=first.tilt + rng.normal(0.0, 0.01),
        scale=first.scale * rng.uniform(0.95, 1.06),
        shift=(first.shift[0] + rng.normal(0.0, 0.02), first.shift[1] + rng.normal(0.0, 0.01)),
        position=(first.position + 0.035 * frame) % 1.0,
        light=first.light * rng.uniform(0.95, 1.05),
        occluder=0 if occluded else -1,
        occluder_x=float(rng.choice((-1, 1)) * rng.uniform(0.25, 0.6)),
    )


@lru_cache(maxsize=16)
def _scene(name: str, size: tuple[int, int], seed: int) -> Scene:
    """Return the cached scene."""
    return render_scene(name, size, seed)


def _shading(alpha: Image.Image, light: tuple[float, float]) -> np.ndarray:
    """Return shading factors (H, W), around 1, of the surface of the figure.

    The blurred silhouette is used as a height field. Its slope along the direction of the light
    is negative on the lit side and positive on the other.
    """
    radius = alpha.size[1] / 32
    soft = np.asarray(alpha.filter(ImageFilter.GaussianBlur(radius)), np.float32) / 255.0
    down, right = np.gradient(soft)
    slope = (light[0] * right + light[1] * down) * radius
    return np.clip(1.0 - 0.55 * slope, 0.6, 1.35)


def _ground_shadow(view: View, camera: Camera, size: tuple[int, int]) -> np.ndarray:
    """Return the shadow at the feet: factors (H, W) in [0.58, 1], a soft ellipse."""
    width, height = size
    x = np.arange(width, dtype=np.float32)[None] / height
    y = np.arange(height, dtype=np.float32)[:, None] / height
    cx = (0.5 + view.shift[0]) * width / height - 0.06 * camera.light[0]
    cy = 0.955 + view.shift[1]
    far = ((x - cx) / 0.17) ** 2 + ((y - cy) / 0.03) ** 2
    return 1.0 - 0.42 * np.exp(-far)


def _apply_response(light: np.ndarray, camera: Camera, exposure: float) -> np.ndarray:
    """Apply exposure, colour matrix and tone curve to (H, W, 3) in [0, 255]."""
    luma = np.array([0.299, 0.587, 0.114], np.float32)
    mix = camera.saturation * np.eye(3) + (1 - camera.saturation) * luma[None]
    matrix = (np.asarray(camera.gains)[:, None] * mix * exposure / 255.0).astype(np.float32)
    tone = np.clip(light @ matrix.T, 0.0, 1.0) ** camera.gamma
    return camera.black_level + (255.0 - camera.black_level) * tone


def render_image(
    identity: Identity,
    camera: Camera,
    view: View,
    rng: np.random.Generator,
    size: tuple[int, int] = (64, 128),
) -> Image.Image:
    """Render one image of an identity as seen by a camera.

    Args:
        identity: Appearance of the person.
        camera: The camera.
        view: Pose and framing.
        rng: Random generator of the sensor noise; the same state gives the same pixels.
        size: (W, H) in pixels.

    Returns:
        An RGB image of ``size``, before JPEG compression.
    """
    width, height = size
    scene = _scene(camera.scene, size, camera.seed)
    left = round(view.position * (PANORAMA * height - width))
    background = scene.panorama.crop((left, 0, left + width, height))
    if view.yaw < 0:
        background = background.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    figure = render_figure(identity, view, size)
    opacity = figure.getchannel("A")
    alpha = np.asarray(opacity, np.float32)[..., None] / 255.0
    ground = np.asarray(background, np.float32) * _ground_shadow(view, camera, size)[..., None]
    shaded = (
        np.asarray(figure.convert("RGB"), np.float32) * _shading(opacity, camera.light)[..., None]
    )
    light = ground * (1.0 - alpha) + shaded * alpha
    if view.occluder >= 0:
        occluder = Image.new("RGBA", size, (0, 0, 0, 0))
        occluder.paste(scene.occluder, (round(view.occluder_x * width), 0))
        cover = np.asarray(occluder, np.float32)
        light += (cover[..., :3] - light) * (cover[..., 3:] / 255.0)
    image = _apply_response(light, camera, camera.exposure * view.light)
    sharp = Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))
    blurred = np.asarray(sharp.filter(ImageFilter.GaussianBlur(camera.blur * height / 128)))
    noise = rng.normal(0.0, camera.noise, blurred.shape)
    return Image.fromarray(np.clip(blurred + noise, 0, 255).astype(np.uint8))
