"""A figure's picture: limbs, clothes, head and hair, from back to front."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from segue.training.figure_brush import Canvas, Colour, Cone, Paint, Surface, darker, mixed, soft
from segue.training.figure_head import draw_hair_behind, draw_head
from segue.training.figure_motion import Body
from segue.training.figure_points import FINGERS, finger_joints
from segue.training.figure_subject import CLOTHS, Subject

_ARM, _LEG, _HAND = (0.038, 0.026), (0.05, 0.032), 0.0105
_SIDES = ("right", "left")


@dataclass(frozen=True)
class Sheet:
    """Where a figure is drawn.

    Args:
        size: (width, height) in pixels.
        scale: pixels of the figure's height.
        feet: where the middle of its soles is, x and y in pixels.
    """

    size: tuple[int, int]
    scale: float
    feet: tuple[float, float]

    def on_screen(self, place: np.ndarray) -> np.ndarray:
        """Pixels, and the depth as it is."""
        return np.array([*(self.scale * place[:2] + np.asarray(self.feet)), place[2]])

    @property
    def outline(self) -> float:
        """Pixels of an outline."""
        return max(0.8, 0.0075 * self.scale)


def draw_body(canvas: Canvas, body: Body, subject: Subject, sheet: Sheet) -> None:
    """Paint all of a figure, what is behind first."""
    facing = body.torso_turn[2, 2]
    if facing >= -0.2:
        draw_hair_behind(canvas, body, subject, sheet)
    arms = {side: _depth(body, side) for side in _SIDES}
    behind = [side for side in sorted(_SIDES, key=arms.__getitem__) if arms[side] < 0]
    before = [side for side in sorted(_SIDES, key=arms.__getitem__) if arms[side] >= 0]
    for side in behind:
        _arm(canvas, body, subject, sheet, side)
    for side in sorted(_SIDES, key=lambda side: body.joints[f"{side}_hip"][2] + body.joints[f"{side}_knee"][2]):
        _leg(canvas, body, subject, sheet, side)
    _torso(canvas, body, subject, sheet)
    draw_head(canvas, body, subject, sheet)
    if facing < -0.2:
        draw_hair_behind(canvas, body, subject, sheet)
    for side in before:
        _arm(canvas, body, subject, sheet, side)


def _depth(body: Body, side: str) -> float:
    """Of an arm, before the body's middle; one that hangs beside it is before it."""
    joints = [body.joints[f"{side}_{name}"][2] for name in ("shoulder", "elbow", "wrist")]
    return float(np.mean(joints) - body.joints["neck"][2] + 0.012)


def _arm(canvas: Canvas, body: Body, subject: Subject, sheet: Sheet, side: str) -> None:
    shoulder, elbow, wrist = (body.joints[f"{side}_{name}"] for name in ("shoulder", "elbow", "wrist"))
    unit = subject.build.thick * sheet.scale
    wide, thin = (radius * unit for radius in _ARM)
    middle = 0.5 * (wide + thin)
    skin: Paint = subject.skin
    parts = _hand(body, subject, sheet, side)
    parts.append((_cone(sheet, elbow, wrist, middle, thin), skin))
    parts.append((_cone(sheet, shoulder, elbow, wide, middle), skin))
    end = subject.sleeves
    cloth = _pattern(subject, sheet, plain=subject.pattern in ("badged", "dotted"))
    puff = 0.006 * sheet.scale
    if end > 0.5:
        parts.append(
            (_cone(sheet, elbow, elbow + (wrist - elbow) * (2 * end - 1) * 0.92, middle + puff, thin + puff), cloth)
        )
    low = shoulder + (elbow - shoulder) * min(1.0, 2 * end)
    parts.append((_cone(sheet, shoulder, low, wide + puff, middle + puff), cloth))
    canvas.limb(parts, sheet.outline)


def _hand(body: Body, subject: Subject, sheet: Sheet, side: str) -> list[tuple[Cone, Paint]]:
    joints = finger_joints(body, side)
    radius = _HAND * subject.build.thick * sheet.scale
    parts: list[tuple[Cone, Paint]] = []
    for finger in range(FINGERS):
        root, tip = joints[1 + 4 * finger], joints[4 + 4 * finger]
        parts.append((_cone(sheet, root, tip, 1.15 * radius, 0.95 * radius), subject.skin))
    palm = joints[[5, 9, 13, 17]].mean(0)
    parts.append((_cone(sheet, joints[0], palm, 2.0 * radius, 2.5 * radius), subject.skin))
    return parts


def _leg(canvas: Canvas, body: Body, subject: Subject, sheet: Sheet, side: str) -> None:
    hip, knee, ankle, toe = (body.joints[f"{side}_{name}"] for name in ("hip", "knee", "ankle", "toe"))
    unit = subject.build.thick * sheet.scale
    wide, thin = (radius * unit for radius in _LEG)
    middle = 0.5 * (wide + thin)
    cloth: Colour = CLOTHS[subject.bottom]
    covers = {"trousers": 1.9, "shorts": 0.85, "skirt": 0.0}[subject.wears]
    lower: Paint = cloth if covers > 1 else subject.skin
    parts: list[tuple[Cone, Paint]] = [(_cone(sheet, knee, ankle, middle, thin), subject.skin)]
    heel = ankle + np.array([0, 0.016, 0]) - 0.12 * (toe - ankle)
    sole = 0.029 * math.sqrt(subject.build.thick) * sheet.scale
    parts.append((_cone(sheet, heel, toe - np.array([0, 0.014, 0]), sole, sole), CLOTHS[subject.shoes]))
    parts.append((_cone(sheet, hip, knee, wide, middle), lower))
    if covers > 1:
        parts.append((_cone(sheet, knee, knee + (ankle - knee) * (covers - 1), middle * 1.04, thin * 1.18), cloth))
    elif covers > 0:
        parts.append((_cone(sheet, hip, hip + (knee - hip) * covers, wide * 1.08, middle * 1.22), cloth))
    canvas.limb(parts, sheet.outline)


def _torso(canvas: Canvas, body: Body, subject: Subject, sheet: Sheet) -> None:
    build, joints = subject.build, body.joints
    neck, pelvis = joints["neck"], joints["pelvis"]
    unit = sheet.scale
    depth = 0.052 * build.thick
    side = abs(body.torso_turn[0, 0])
    away = math.sqrt(max(0.0, 1 - side * side))

    def wide(half: float) -> float:
        return math.hypot(half * side, depth * away) * unit

    def at(share: float) -> np.ndarray:
        return neck + (pelvis - neck) * share

    cloth, bottom = _pattern(subject, sheet, body=body), CLOTHS[subject.bottom]
    chest, waist, seat = wide(build.shoulders * 0.86), wide(build.shoulders * 0.74), wide(build.hips + 0.034)
    up = 0.040 * unit * build.thick
    right, left = (joints[f"{name}_shoulder"] for name in _SIDES)
    parts: list[tuple[Cone, Paint]] = []
    if subject.wears == "skirt":
        hem = at(1.0) + (pelvis - neck) / np.linalg.norm(pelvis - neck) * 0.14
        skirt = _cone(sheet, at(0.8), hem, waist, wide(build.hips + 0.085))
        parts.append((replace(skirt, cut=True), _pleated(bottom)))
    else:
        parts.append((_cone(sheet, at(0.85), at(1.02), seat, seat), bottom))
    parts.append((_cone(sheet, at(0.4), at(0.84), chest, waist), cloth))
    throat = neck + 0.45 * (joints["head"] - neck)
    parts.append((_cone(sheet, neck + (pelvis - neck) * 0.06, throat, 0.036 * unit, 0.032 * unit), subject.skin))
    parts.append((_cone(sheet, right, left, up, up), _plain_of(subject)))
    parts.append((_cone(sheet, at(0.24), at(0.5), chest, chest), cloth))
    canvas.limb(parts, sheet.outline)


def _plain_of(subject: Subject) -> Colour:
    return CLOTHS[subject.top]


def _pleated(colour: Colour) -> Paint:
    def paint(surface: Surface) -> np.ndarray:
        angle = np.arcsin(surface.across)
        return mixed(colour, darker(colour, 0.82), 0.5 + 0.5 * np.cos(9 * angle))

    return paint


def _pattern(subject: Subject, sheet: Sheet, *, plain: bool = False, body: Body | None = None) -> Paint:
    """The top's colours: around the body they turn with it."""
    base, accent = CLOTHS[subject.top], CLOTHS[subject.accent]
    if plain or subject.pattern == "plain" or (subject.pattern == "badged" and body is None):
        return base
    yaw = 0.0 if body is None else math.atan2(body.torso_turn[0, 2], body.torso_turn[2, 2])
    unit, pixel = sheet.scale, 1.0 / sheet.scale

    def paint(surface: Surface) -> np.ndarray:
        down = surface.along / unit
        around = np.arcsin(surface.across) + yaw
        if subject.pattern == "striped":
            return mixed(base, accent, _bars(down / 0.052, pixel / 0.052))
        if subject.pattern == "checked":
            rows, columns = _bars(down / 0.066, pixel / 0.066), _bars(around / 0.75, 0.12)
            return mixed(base, accent, 0.5 * rows + 0.5 * columns)
        if subject.pattern == "dotted":
            row = np.floor(down / 0.048)
            place = (around / 0.62 + 0.5 * (row % 2)) % 1 - 0.5, (down / 0.048) % 1 - 0.5
            far = np.hypot(0.062 * place[0] * np.cos(np.arcsin(surface.across)), 0.048 * place[1])
            return mixed(base, accent, soft(far, 0.0145 + pixel / 2, 0.0145 - pixel / 2))
        turned = (around + math.pi) % (2 * math.pi) - math.pi
        far = np.hypot(0.09 * turned, down - 0.03)
        return mixed(base, accent, soft(far, 0.042 + pixel / 2, 0.042 - pixel / 2))

    return paint


def _bars(place: np.ndarray, edge: float) -> np.ndarray:
    """1 and 0 in turn, with soft edges."""
    wave = np.abs((place % 1) - 0.5) - 0.25
    return soft(wave, -edge / 2, edge / 2)


def _cone(sheet: Sheet, a: np.ndarray, b: np.ndarray, ra: float, rb: float) -> Cone:
    return Cone(sheet.on_screen(a), sheet.on_screen(b), ra, rb)
