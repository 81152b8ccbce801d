"""Streets of the demo world: backgrounds, foreground furniture, and how light and camera change the drawing.

All colours are RGB, uint8; sizes in px. Everything is drawn with OpenCV from the generator passed in.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

SKIES = {  # time of day -> (zenith, horizon, brightness of everything)
    "day": ((86, 150, 226), (198, 224, 246), 1.0),
    "dusk": ((70, 66, 120), (244, 162, 106), 0.82),
    "night": ((12, 16, 40), (46, 52, 84), 0.6),
    "overcast": ((150, 156, 164), (206, 208, 210), 0.9),
}


@dataclass(frozen=True)
class Street:
    """A background larger than the frame, for the camera to shake over, and the way it is recorded."""

    image: np.ndarray  # uint8 [height, width, 3]
    kerb: int  # row where the road begins
    table: np.ndarray  # uint8 [1, 256, 3]: exposure, contrast, colour cast and haze, applied to whole frames
    noise: float  # standard deviation of the sensor noise, grey levels
    rain: float  # share of pixels where a streak begins; 0: dry


def street(rng: np.random.Generator, height: int, width: int) -> Street:
    """A town, suburb, countryside or park by day, dusk, night or under clouds; rain or fog at times."""
    day_time = str(rng.choice(list(SKIES), p=(0.4, 0.2, 0.15, 0.25)))
    image = np.empty((height, width, 3), dtype=np.uint8)
    horizon = int(height * rng.uniform(0.42, 0.56))
    pavement = horizon + int(height * rng.uniform(0.03, 0.08))
    kerb = pavement + int(height * rng.uniform(0.04, 0.12))

    zenith, low_sky, brightness = SKIES[day_time]
    slope = np.linspace(0, 1, pavement, dtype=np.float32)[:, None] ** rng.uniform(0.6, 1.6)
    sky = (1 - slope) * np.array(zenith, dtype=np.float32) + slope * np.array(low_sky, dtype=np.float32)  # (rows, 3)
    image[:pavement] = (sky + rng.normal(0, 8, 3)).clip(0, 255)[:, None]
    if rng.random() < 0.6:
        _clouds(rng, image[:horizon], 120 if day_time == "night" else 240)

    kind = rng.choice(["town", "suburb", "countryside", "park"], p=(0.4, 0.25, 0.2, 0.15))
    if kind in ("town", "suburb"):
        _buildings(rng, image, pavement, tall=kind == "town", lit=day_time in ("night", "dusk"))
    else:
        _hills(rng, image, horizon, pavement)
    for _ in range(rng.integers(2, 7) if kind == "park" else rng.integers(0, 4)):
        _tree(rng, image, int(rng.integers(width)), pavement, int(height * rng.uniform(0.15, 0.4)))

    image[pavement:kerb] = rng.integers(120, 190) + rng.integers(-15, 16, 3)
    if kind == "countryside" or rng.random() < 0.25:
        image[pavement:kerb] = np.array((96, 134, 62)) + rng.integers(-25, 26, 3)  # a grass verge
    image[kerb:] = rng.integers(60, 120) + rng.integers(-8, 9, 3)
    cv2.line(image, (0, kerb), (width, kerb), (200, 200, 195), 1)
    _road_markings(rng, image, kerb)
    _texture(rng, image)
    return _recorded(rng, image, kerb, brightness)


def relit(rng: np.random.Generator, place: Street) -> Street:
    """The same street in another light, through another camera."""
    return _recorded(rng, place.image, place.kerb, brightness=rng.uniform(0.6, 1.0))


def sensor_noise(rng: np.random.Generator, sd: float, height: int, width: int) -> np.ndarray:
    """Noise to add to a frame, int16 [height, width, 3], mean 0, standard deviation `sd` grey levels."""
    wave = _white_noise(height + 64, width + 64)
    top, left = rng.integers(0, 65, 2)
    grain = (wave[top : top + height, left : left + width] * np.float32(sd)).astype(np.int16)
    return cv2.merge((grain, grain, grain))


@lru_cache(maxsize=2)
def _white_noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((height, width), dtype=np.float32)


def rain_streaks(rng: np.random.Generator, share: float, height: int, width: int) -> np.ndarray:
    """One moment of rain, int16 [height, width, 3] to add to a frame."""
    drops = (rng.random((height, width), dtype=np.float32) < share).astype(np.float32)
    length = int(rng.integers(7, 13))
    kernel = np.zeros((length, length), dtype=np.float32)
    cv2.line(kernel, (length // 2 + 2, 0), (length // 2 - 2, length - 1), 1.0, 1)
    streaks = np.minimum(cv2.filter2D(drops, -1, kernel), 1) * 60
    bright = streaks.astype(np.int16)
    return cv2.merge((bright, bright, bright))


def furniture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """An opaque thing to stand in front of others, uint8 [height, width, 3]; its kind follows its shape."""
    shade = int(rng.integers(40, 120))
    patch = np.full((height, width, 3), shade, dtype=np.uint8)
    if width <= 6:  # a lamp post
        patch[:, : max(1, width // 3)] = min(shade + 60, 255)
    elif width <= height // 4:  # a tree trunk
        patch[:] = (104, 72, 44)
        patch[:, rng.integers(0, width, max(1, width // 3))] = (74, 50, 30)
    elif width > height * 1.2:  # a hedge
        patch[:] = (52, 98, 44)
        leaves = rng.integers(-24, 25, (height // 2 + 1, width // 2 + 1, 1))
        patch[:] = (patch + np.repeat(np.repeat(leaves, 2, 0), 2, 1)[:height, :width]).clip(0, 255)
    elif rng.random() < 0.5:  # a brick wall
        patch[:] = (150, 84, 66)
        patch[::5] = (186, 176, 164)
        for row in range(0, height, 5):
            patch[row : row + 5, (row // 5 % 2) * 4 :: 8] = (186, 176, 164)
    else:  # a site hoarding or an advertisement
        patch[:] = rng.integers(60, 230, 3)
        stripe = ((np.arange(width) + np.arange(height)[:, None]) // 6 % 2).astype(bool)
        patch[stripe] = patch[stripe] // 4 * 3
    if min(height, width) > 8:
        cv2.rectangle(patch, (0, 0), (width - 1, height - 1), (30, 30, 30), 1)
    return patch


def _recorded(rng: np.random.Generator, image: np.ndarray, kerb: int, brightness: float) -> Street:
    levels = np.arange(256, dtype=np.float32)[:, None] / 255  # (256, 1)
    levels = levels ** rng.uniform(0.75, 1.35)
    levels = 0.5 + (levels - 0.5) * rng.uniform(0.75, 1.15)
    levels = levels * brightness * rng.uniform(0.85, 1.1) * rng.uniform(0.9, 1.1, 3)
    if rng.random() < 0.15:  # fog: towards grey
        haze = rng.uniform(0.2, 0.5)
        levels = levels * (1 - haze) + haze * 0.78 * brightness
    table = (levels * 255).clip(0, 255).astype(np.uint8)[None]  # (1, 256, 3)
    noise = float(rng.uniform(1, 7))
    rain = float(rng.uniform(0.002, 0.01)) if rng.random() < 0.15 else 0.0
    return Street(image, kerb, table, noise, rain)


def _texture(rng: np.random.Generator, image: np.ndarray) -> None:
    height, width = image.shape[:2]
    coarse = cv2.resize(rng.standard_normal((9, 13), dtype=np.float32) * 9, (width, height))
    fine = rng.standard_normal((height, width), dtype=np.float32) * np.float32(rng.uniform(1, 6))
    grain = (coarse + fine).astype(np.int16)
    cv2.add(image, cv2.merge((grain, grain, grain)), dst=image, dtype=cv2.CV_8U)


def _clouds(rng: np.random.Generator, sky: np.ndarray, white: int) -> None:
    height, width = sky.shape[:2]
    noise = cv2.resize(rng.random((4, 7), dtype=np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    veil = ((noise - rng.uniform(0.4, 0.7)) * 2.5).clip(0, 0.8)[..., None]
    sky[:] = (sky * (1 - veil) + white * veil).astype(np.uint8)


def _hills(rng: np.random.Generator, image: np.ndarray, horizon: int, pavement: int) -> None:
    columns = np.arange(image.shape[1])
    rows = np.arange(pavement)[:, None]
    for green in ((122, 150, 128), (98, 140, 84)):
        waves = np.sin(columns / rng.uniform(18, 50) + rng.uniform(0, 6)) * rng.uniform(3, 14)
        ridge = horizon - rng.uniform(0, 10) + waves
        image[:pavement][rows > ridge] = np.array(green) + rng.integers(-18, 19, 3)


def _buildings(rng: np.random.Generator, image: np.ndarray, ground: int, tall: bool, lit: bool) -> None:
    width = image.shape[1]
    left = -int(rng.integers(0, 20))
    while left < width:
        breadth = int(rng.integers(24, 60))
        rise = int(ground * (rng.uniform(0.4, 1.0) if tall else rng.uniform(0.25, 0.5)))
        x0, x1, y0 = max(left, 0), min(left + breadth, width), ground - rise
        facade = image[y0:ground, x0:x1]
        wall = rng.integers(80, 215) + rng.integers(-35, 36, 3)
        facade[:] = wall.clip(30, 245)
        step_x, step_y = int(rng.integers(7, 13)), int(rng.integers(8, 14))
        columns = np.arange(x1 - x0) % step_x
        rows = np.arange(rise) % step_y
        panes = ((rows >= 3) & (rows < step_y - 2))[:, None] & ((columns >= 2) & (columns < step_x - 2))
        facade[panes] = (70, 88, 112)
        if lit:
            cells = rng.random((rise // step_y + 1, (x1 - x0) // step_x + 1)) < 0.4
            glow = np.repeat(np.repeat(cells, step_y, 0), step_x, 1)[:rise, : x1 - x0]
            facade[panes & glow] = (255, 226, 140)
        if not tall:  # a gable roof
            peak = ((left + left + breadth) // 2, max(y0 - breadth // 3, 0))
            roof = np.array([(left - 2, y0), peak, (left + breadth + 2, y0)], dtype=np.int32)
            cv2.fillPoly(image, [roof], _colour(rng, (150, 70, 52)))
        left += breadth + int(rng.integers(0, 4 if tall else 18))


def _tree(rng: np.random.Generator, image: np.ndarray, x: int, ground: int, height: int) -> None:
    cv2.rectangle(image, (x - 1, ground - height // 2), (x + 2, ground), (92, 66, 44), -1)
    leaves = ((62, 120, 54), (110, 140, 60), (176, 116, 48), (48, 92, 62))[int(rng.integers(4))]
    for _ in range(5):
        dx, dy = rng.integers(-height // 4, height // 4 + 1, 2)
        radius = int(height * rng.uniform(0.18, 0.3))
        cv2.circle(image, (x + int(dx), ground - int(height * 0.7) + int(dy)), radius, _colour(rng, leaves), -1)


def _road_markings(rng: np.random.Generator, image: np.ndarray, kerb: int) -> None:
    height, width = image.shape[:2]
    dash, gap = int(rng.integers(10, 26)), int(rng.integers(8, 24))
    row = kerb + int((height - kerb) * rng.uniform(0.4, 0.65))
    thick = int(rng.integers(1, 4))
    if rng.random() < 0.85:
        for x in range(-int(rng.integers(dash)), width, dash + gap):
            cv2.rectangle(image, (x, row), (x + dash, row + thick), (224, 222, 210), -1)
    if rng.random() < 0.2:  # a zebra crossing
        start = int(rng.integers(0, max(1, width - 50)))
        for x in range(start, start + 48, 12):
            corners = np.array([(x, height), (x + 7, height), (x + 12, kerb + 1), (x + 7, kerb + 1)], dtype=np.int32)
            cv2.fillPoly(image, [corners], (226, 226, 220))


def _colour(rng: np.random.Generator, near: tuple[int, int, int]) -> tuple[int, int, int]:
    red, green, blue = (np.array(near) + rng.integers(-22, 23, 3)).clip(0, 255).tolist()
    return red, green, blue
