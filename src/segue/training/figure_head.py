"""A figure's head: a ball whose face and hair are painted by direction, so that they turn with it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from segue.training.figure_brush import Canvas, Colour, Cone, Paint, covered, darker, lit, mixed, soft
from segue.training.figure_subject import CLOTHS, HAIRS

if TYPE_CHECKING:
    from segue.training.figure_drawing import Sheet
    from segue.training.figure_motion import Body
    from segue.training.figure_subject import Subject

_INK: Colour = (0.17, 0.12, 0.15)
_SHELL = 1.09  # how much larger than the head its hair is


def draw_head(canvas: Canvas, body: Body, subject: Subject, sheet: Sheet) -> None:
    """Paint the head: ears, the ball with its face, hair on it."""
    centre = sheet.on_screen(body.joints["head"])
    radius = subject.build.head * sheet.scale
    ears: list[tuple[Cone, Paint]] = []
    for sign in (-1.0, 1.0):
        place = centre[:2] + radius * (body.head_turn @ np.array([sign * 0.99, 0.1, -0.05]))[:2]
        ears.append((Cone(place, place, 0.2 * radius, 0.2 * radius), subject.skin))
    canvas.limb(ears, sheet.outline)
    shell = _SHELL * radius
    window = canvas.window([(*(centre[:2] - 1.3 * shell), *(centre[:2] + 1.3 * shell))])
    if window is None:
        return
    rows, columns, x, y = window
    far = np.hypot(x - centre[0], y - centre[1])
    local, normal = _directions(x, y, centre, radius, body.head_turn)
    skin = _face(subject.skin, local, body.posture.smile, 1 / radius)
    canvas.over(rows, columns, np.asarray(subject.skin) * 0.36, covered(far - radius - sheet.outline))
    canvas.over(rows, columns, lit(skin, normal), covered(far - radius))
    _hair(canvas, (rows, columns, x, y), (centre, shell), body, subject, sheet)


def draw_hair_behind(canvas: Canvas, body: Body, subject: Subject, sheet: Sheet) -> None:
    """Paint what hangs or stands away from the head: a bob, a bun, a tail, curls."""
    head, unit = body.joints["head"], subject.build.head

    def at(x: float, y: float, z: float) -> np.ndarray:
        return sheet.on_screen(head + body.head_turn @ np.array([x, y, z]) * unit)

    radius = unit * sheet.scale
    colour = HAIRS[subject.hair]
    balls: list[tuple[Cone, Paint]] = []
    if subject.style == "bob":
        balls = [
            (Cone(at(x, -0.1, -0.25), at(1.12 * x, 0.85, -0.2), 0.72 * radius, 0.5 * radius), colour)
            for x in (-0.40, 0.40)
        ]
        balls.append((Cone(at(0, 0, -0.3), at(0, 0.8, -0.35), radius, 0.62 * radius), colour))
    elif subject.style == "bun":
        balls = [(Cone(at(0, -1.22, -0.3), at(0, -1.22, -0.3), 0.4 * radius, 0.4 * radius), colour)]
    elif subject.style == "tail":
        sway = 0.25 * math.sin(math.radians(6 * body.posture.lean + body.posture.look))
        balls = [(Cone(at(0, -0.45, -1.05), at(sway, 0.75, -1.5), 0.3 * radius, 0.15 * radius), colour)]
    elif subject.style == "curls":
        around = [(math.cos(a), math.sin(a)) for a in np.linspace(-math.pi, 0, 7)]
        balls = [
            (Cone(at(0.86 * c, 0.8 * s, -0.35), at(0.86 * c, 0.8 * s, -0.35), 0.4 * radius, 0.4 * radius), colour)
            for c, s in around
        ]
        balls += [
            (Cone(at(x, 0.35, -0.4), at(x, 0.35, -0.4), 0.4 * radius, 0.4 * radius), colour) for x in (-0.75, 0, 0.75)
        ]
    if balls:
        canvas.limb(balls, sheet.outline)


def _hair(
    canvas: Canvas,
    window: tuple[slice, slice, np.ndarray, np.ndarray],
    ball: tuple[np.ndarray, float],
    body: Body,
    subject: Subject,
    sheet: Sheet,
) -> None:
    rows, columns, x, y = window
    centre, shell = ball
    local, normal = _directions(x, y, centre, shell, body.head_turn)
    across, down, front = local[..., 0], local[..., 1], local[..., 2]
    fringe = {"short": 0.10, "bob": 0.16, "bun": -0.02, "tail": 0.02, "curls": 0.06, "cap": 0.1}[subject.style]
    # High over the forehead, down to the ears at the sides, and to the neck behind.
    line = (
        -0.52 + fringe + 0.5 * soft(front, 0.75, 0.0) + 0.45 * soft(front, 0.1, -0.5) + 0.12 * across * (fringe > 0.05)
    )
    if subject.style == "bob":
        line = line + 0.75 * soft(np.abs(across), 0.62, 0.9) * soft(front, 0.75, 0.5)
    pixel = 1 / shell
    share = soft(down, line + pixel, line - pixel)
    far = np.hypot(x - centre[0], y - centre[1])
    colour = np.asarray(HAIRS[subject.hair], np.float32)
    strands = 0.06 * np.sin(14 * np.arctan2(across, -down + 0.3))
    ink = soft(down, line + pixel + 0.06, line - pixel + 0.06) * covered(far - shell - sheet.outline)
    canvas.over(rows, columns, np.broadcast_to(colour * 0.36, normal.shape), ink)
    canvas.over(
        rows, columns, lit(np.clip(colour * (1 + strands[..., None]), 0, 1), normal), share * covered(far - shell)
    )
    if subject.style == "cap":
        _cap(canvas, window, (centre, 1.04 * shell), body, subject, sheet)


def _cap(
    canvas: Canvas,
    window: tuple[slice, slice, np.ndarray, np.ndarray],
    ball: tuple[np.ndarray, float],
    body: Body,
    subject: Subject,
    sheet: Sheet,
) -> None:
    rows, columns, x, y = window
    centre, shell = ball
    local, normal = _directions(x, y, centre, shell, body.head_turn)
    down, pixel = local[..., 1], 1 / shell
    colour: Colour = CLOTHS[subject.accent]
    far = np.hypot(x - centre[0], y - centre[1])
    ink = soft(down, -0.3 + pixel, -0.3 - pixel) * covered(far - shell - sheet.outline)
    canvas.over(rows, columns, np.broadcast_to(np.asarray(colour) * 0.36, normal.shape), ink)
    cover = soft(down, -0.36 + pixel, -0.36 - pixel) * covered(far - shell)
    band = mixed(colour, darker(colour, 0.8), soft(down, -0.52 - pixel, -0.52 + pixel))
    canvas.over(rows, columns, lit(band, normal), cover)
    if body.head_turn[2, 2] > -0.35:  # The peak, in front.
        right, left = (
            centre[:2] + shell * (body.head_turn @ np.array([side, -0.36, 0.98]))[:2] for side in (-0.5, 0.5)
        )
        canvas.limb([(Cone(right, left, 0.13 * shell, 0.13 * shell), darker(colour, 0.85))], sheet.outline)


def _face(skin: Colour, local: np.ndarray, smile: float, pixel: float) -> np.ndarray:
    """The colours of the ball by direction: cheeks, eyes, brows, a nose and a mouth."""
    x, y, front = local[..., 0], local[..., 1], local[..., 2]
    ahead = front > 0
    flat = np.broadcast_to(np.asarray(skin, np.float32), (*x.shape, 3))

    def put(flat: np.ndarray, colour: Colour | np.ndarray, distance: np.ndarray, strength: float = 1.0) -> np.ndarray:
        return mixed(flat, colour, strength * ahead * np.clip(0.5 - distance / pixel, 0, 1))

    side = np.abs(x)
    blush = np.exp(-(((side - 0.5) / 0.16) ** 2 + ((y - 0.36) / 0.11) ** 2))
    flat = mixed(flat, (0.95, 0.40, 0.40), 0.38 * ahead * blush)
    eye = np.hypot(side - 0.32, (y - 0.06) * 0.72)
    flat = put(flat, _INK, eye - 0.12)
    flat = put(flat, (1.0, 1.0, 1.0), np.hypot(x - np.sign(x) * 0.32 + 0.035, y - 0.005) - 0.036)
    brow = np.hypot(np.maximum(np.abs(side - 0.33) - 0.09, 0), y + 0.2 - 0.25 * (side - 0.33) ** 2)
    flat = put(flat, darker(skin, 0.40), brow - 0.028)
    flat = put(flat, darker(skin, 0.84), np.hypot(x, 1.3 * (y - 0.27)) - 0.05, 0.8)
    bow = 0.17 + 0.06 * smile
    if smile > 0.45:  # An open mouth: half of an ellipse.
        deep = 0.09 + 0.17 * smile
        open_mouth = np.maximum(np.hypot(x, (y - 0.40) * bow / deep) - bow, 0.40 - y)
        flat = put(flat, (0.55, 0.13, 0.17), open_mouth)
        flat = put(flat, (0.95, 0.50, 0.50), np.maximum(open_mouth, 0.40 + 0.68 * deep - y))
        return put(flat, (1.0, 1.0, 1.0), np.maximum(open_mouth + 0.035, y - 0.44))
    arc = np.abs(np.hypot(x, y - 0.18) - 0.31)
    return put(flat, (0.36, 0.10, 0.12), np.maximum(arc - 0.034, side - bow - 0.3 * (0.5 - y)) + 1.0 * (y < 0.3))


def _directions(
    x: np.ndarray, y: np.ndarray, centre: np.ndarray, radius: float, turn: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where a ball shows which of its own directions, and which way they face."""
    aside = np.stack([x - centre[0], y - centre[1]], -1) / radius
    far = np.linalg.norm(aside, axis=-1, keepdims=True)
    aside = aside / np.maximum(far, 1)  # What is beyond the rim is as its rim is.
    depth = np.sqrt(np.clip(1 - (aside**2).sum(-1, keepdims=True), 0, 1))
    normal = np.concatenate([aside, depth], -1).astype(np.float32)
    return normal @ turn.astype(np.float32), normal
