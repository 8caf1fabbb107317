"""A figure's key points, exactly: body, hands and face, as they are ordered in `segue.types.keypoints`."""

from __future__ import annotations

import math

import numpy as np

from segue.training.figure_motion import Body

FINGERS = 5
_SPREAD = (52.0, 17.0, 3.0, -11.0, -26.0)  # degrees of fingers from the palm's axis, thumb first
_LENGTH = (0.034, 0.038, 0.042, 0.038, 0.03)  # from root to tip, in heights
_ROOT = (0.012, 0.034, 0.036, 0.034, 0.030)  # from the wrist to the root
_ROWS = ("shoulder", "elbow", "wrist"), ("hip", "knee", "ankle")
_SEEN = 0.05  # How far a point of the head faces who looks, that it is seen; ears stand out and are seen from behind.


def world_points(body: Body) -> np.ndarray:
    """(128, 3), in heights; NaN where the head hides its own."""
    head, radius = body.joints["head"], body.build.head

    def on_head(direction: tuple[float, float, float] | np.ndarray, least: float = _SEEN) -> np.ndarray:
        turned = body.head_turn @ np.asarray(direction, np.float64)
        return head + radius * turned if turned[2] > least else np.full(3, np.nan)

    limbs = [body.joints[f"{side}_{name}"] for row in _ROWS for side in ("right", "left") for name in row]
    eyes = [on_head(_ball(sign * 0.32, 0.06)) for sign in (-1, 1)]
    ears = [on_head((sign * 0.99, 0.1, -0.05), -0.3) for sign in (-1, 1)]
    points = [on_head(_ball(0.0, 0.27)), body.joints["neck"], *limbs, *eyes, *ears]
    hands = [finger_joints(body, side) for side in ("right", "left")]
    face = [on_head(_ball(x, y)) for x, y in _face()]
    return np.concatenate([np.stack(points), *hands, np.stack(face)])


def finger_joints(body: Body, side: str) -> np.ndarray:
    """(21, 3): the wrist, and of each finger four points from the palm to the tip."""
    elbow, wrist = body.joints[f"{side}_elbow"], body.joints[f"{side}_wrist"]
    sign = -1.0 if side == "right" else 1.0
    along = (wrist - elbow) / np.linalg.norm(wrist - elbow)
    # A hand that hangs shows its edge, thumb forwards; one that is raised shows its palm, thumb to the head.
    raised = math.radians(min(max(getattr(body.posture, f"{side}_arm").open, 0.0), 90.0))
    thumb = body.torso_turn @ np.array([-sign * (math.sin(raised) + 0.3), 0, math.cos(raised)])
    thumb = thumb - along * (thumb @ along)
    thumb = thumb / max(float(np.linalg.norm(thumb)), 1e-6)
    points = [wrist]
    for angle, length, root in zip(map(math.radians, _SPREAD), _LENGTH, _ROOT, strict=True):
        way = math.cos(angle) * along + math.sin(angle) * thumb
        start = wrist + root * (math.cos(0.7 * angle) * along + math.sin(0.7 * angle) * thumb)
        points += [start + way * length * share for share in (0.0, 0.45, 0.75, 1.0)]
    return np.stack(points)


def _ball(x: float, y: float) -> np.ndarray:
    return np.array([x, y, math.sqrt(max(0.0, 1 - x * x - y * y))])


def _face() -> list[tuple[float, float]]:
    """The 68 points on the ball's front: x to the picture's right, y down."""
    jaw = [(-0.93 * math.cos(a), 0.1 + 0.78 * math.sin(a)) for a in np.linspace(0, math.pi, 17)]
    arch = [(0.16, -0.18), (0.24, -0.21), (0.33, -0.22), (0.42, -0.21), (0.5, -0.17)]
    brows = [(-x, y) for x, y in reversed(arch)] + arch
    nose = [(0.0, y) for y in (0.02, 0.1, 0.18, 0.27)] + [(x, 0.32) for x in (-0.1, -0.05, 0.0, 0.05, 0.1)]
    eye = [(-0.1, 0.0), (-0.05, -0.12), (0.05, -0.12), (0.1, 0.0), (0.05, 0.12), (-0.05, 0.12)]
    eyes = [(side + x, 0.06 + y) for side in (-0.32, 0.32) for x, y in eye]
    outer = [(-0.2 * math.cos(a), 0.45 - 0.06 * math.sin(a)) for a in np.linspace(0, 2 * math.pi, 12, endpoint=False)]
    inner = [(-0.14 * math.cos(a), 0.45 - 0.03 * math.sin(a)) for a in np.linspace(0, 2 * math.pi, 8, endpoint=False)]
    return jaw + brows + nose + eyes + outer + inner
