"""How a figure moves: the angles of its joints over time, and where its joints then are, in three dimensions.

Lengths are in heights of the figure; x goes to the picture's right, y down, z towards who looks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from segue.errors import TrainingError


@dataclass(frozen=True)
class Build:
    """Proportions, in heights of the figure.

    Args:
        head: radius of the head.
        shoulders: from the middle to a shoulder.
        hips: from the middle to a hip.
        torso: from the hips to the neck.
        arm: from shoulder to wrist.
        thick: how thick limbs are, 1 for most.
    """

    head: float = 0.115
    shoulders: float = 0.105
    hips: float = 0.055
    torso: float = 0.29
    arm: float = 0.29
    thick: float = 1.0

    @property
    def leg(self) -> float:
        """From hip to ankle: what is left of the height above the sole and below the head."""
        return 1 - 2.08 * self.head - self.torso - 0.05


@dataclass(frozen=True)
class Limb:
    """How a limb hangs: the upper part and the lower one, in degrees from straight down.

    Args:
        swing: of the upper part, forwards.
        spread: of the upper part, away from the body.
        bend: of the lower part, forwards; a knee's is negative.
        open: of the lower part, away from the body.
    """

    swing: float = 0.0
    spread: float = 0.0
    bend: float = 0.0
    open: float = 0.0


@dataclass(frozen=True)
class Posture:
    """A figure's joints.

    Args:
        right_arm, left_arm, right_leg, left_leg: the person's own right and left.
        yaw: degrees by which it turns to the picture's right.
        lean: degrees by which the body leans to the picture's right.
        nod: degrees by which the head leans to the picture's right.
        look: degrees by which the head turns to the picture's right, besides the body.
        lift: how far the lower foot is above the ground, in heights.
        smile: how wide the mouth is open, in [0, 1].
    """

    right_arm: Limb
    left_arm: Limb
    right_leg: Limb
    left_leg: Limb
    yaw: float = 0.0
    lean: float = 0.0
    nod: float = 0.0
    look: float = 0.0
    lift: float = 0.0
    smile: float = 0.0


@dataclass(frozen=True)
class Body:
    """Where the joints of a figure are, the middle of whose soles is at the origin; (3,) each.

    Args:
        joints: by name: pelvis, neck, head, and of each side ("right_", "left_") shoulder, elbow, wrist, hip, knee,
            ankle, toe.
        head_turn: the head's own directions in the world, as columns: to its left (the picture's right), down,
            forwards.
        torso_turn: the same of the torso.
        build: proportions.
        posture: angles.
    """

    joints: dict[str, np.ndarray]
    head_turn: np.ndarray
    torso_turn: np.ndarray
    build: Build
    posture: Posture


def placed(build: Build, posture: Posture) -> Body:
    """The joints of a posture; the lower foot stands on the ground, or above it by the posture's lift."""
    turn = _yaw(posture.yaw) @ _roll(posture.lean)
    pelvis = np.zeros(3)
    neck = pelvis + turn @ np.array([0, -build.torso, 0])
    head_turn = turn @ _roll(posture.nod) @ _yaw(posture.look)
    joints = {"pelvis": pelvis, "neck": neck, "head": neck + head_turn @ np.array([0, -0.02 - 0.95 * build.head, 0.01])}
    for side, sign in (("right", -1.0), ("left", 1.0)):
        arm: Limb = getattr(posture, f"{side}_arm")
        leg: Limb = getattr(posture, f"{side}_leg")
        shoulder = neck + turn @ np.array([sign * build.shoulders, 0.035, 0])
        elbow = shoulder + turn @ _hanging(sign, arm.swing, arm.spread) * build.arm * 0.5
        wrist = elbow + turn @ _hanging(sign, arm.bend, arm.open) * build.arm * 0.5
        hip = pelvis + turn @ np.array([sign * build.hips, 0.02, 0])
        upright = _yaw(posture.yaw)  # Legs stay under a body that leans.
        knee = hip + upright @ _hanging(sign, leg.swing, leg.spread) * build.leg * 0.5
        ankle = knee + upright @ _hanging(sign, leg.bend, leg.open) * build.leg * 0.5
        toe = ankle + upright @ np.array([sign * 0.022, 0.028, 0.065])
        arm_joints = zip(("shoulder", "elbow", "wrist"), (shoulder, elbow, wrist), strict=True)
        leg_joints = zip(("hip", "knee", "ankle", "toe"), (hip, knee, ankle, toe), strict=True)
        joints |= {f"{side}_{name}": place for name, place in (*arm_joints, *leg_joints)}
    low = max(joints["right_ankle"][1], joints["left_ankle"][1]) + 0.045
    middle = (joints["right_ankle"] + joints["left_ankle"]) * np.array([0.5, 0, 0.5])
    shift = np.array([-0.5 * middle[0], -low - posture.lift, -middle[2]])
    return Body({name: place + shift for name, place in joints.items()}, head_turn, turn, build, posture)


def posture_at(motion: str, phase: float, *, yaw: float = 0.0, energy: float = 1.0) -> Posture:
    """The posture of a motion at a share of its period.

    Args:
        motion: one of MOTIONS.
        phase: which share; whole numbers are the beginning.
        yaw: degrees by which the figure is turned besides.
        energy: how far limbs go, 1 for most.

    Raises:
        TrainingError: there is no such motion.
    """
    if motion not in MOTIONS:
        raise TrainingError(f'a figure knows no motion "{motion}"; expected one of {", ".join(MOTIONS)}')
    found = MOTIONS[motion](phase % 1.0)
    limbs = ("right_arm", "left_arm", "right_leg", "left_leg")
    rest = Posture(*_REST)
    calm = {name: _between(getattr(rest, name), getattr(found, name), energy) for name in limbs}
    return replace(found, yaw=found.yaw + yaw, lift=found.lift * energy, lean=found.lean * energy, **calm)


def _between(a: Limb, b: Limb, share: float) -> Limb:
    names = ("swing", "spread", "bend", "open")
    return Limb(*((1 - share) * getattr(a, name) + share * getattr(b, name) for name in names))


_REST = (Limb(0, 12, 8, 8), Limb(0, 12, 8, 8), Limb(0, 4, 0, 2), Limb(0, 4, 0, 2))


def _wave(phase: float, shift: float = 0.0, times: float = 1.0) -> float:
    return math.sin(2 * math.pi * (times * phase + shift))


def _walk(phase: float) -> Posture:
    def leg(shift: float) -> Limb:
        swing = 27 * _wave(phase, shift)
        bent = 8 + 42 * max(0.0, _wave(phase, shift + 0.22)) ** 1.5  # The knee bends while the leg comes forwards.
        return Limb(swing, 2, swing - bent, 2)

    def arm(shift: float) -> Limb:
        swing = 28 * _wave(phase, shift)
        return Limb(swing, 9, swing + 22 + 8 * _wave(phase, shift), 6)

    lean = 1.5 * _wave(phase, 0.25)
    return Posture(arm(0.5), arm(0.0), leg(0.0), leg(0.5), yaw=58, lean=lean, nod=-lean, look=-18, smile=0.2)


def _waving(phase: float) -> Posture:
    hand = _wave(phase, times=2)
    sway = _wave(phase)
    arm = Limb(10, 112, 8, 158 + 26 * hand)
    legs = Limb(0, 4 + sway, 0, 2 + sway), Limb(0, 4 - sway, 0, 2 - sway)
    return Posture(arm, Limb(-4, 14, 10, 10 + 3 * sway), *legs, lean=2.5 * sway, nod=6 * _wave(phase, 0.1), smile=0.7)


def _dance(phase: float) -> Posture:
    beat = _wave(phase, times=2)
    side = _wave(phase)
    up, down = 0.5 + 0.5 * side, 0.5 - 0.5 * side
    dip = 10 * (1 - beat)
    return Posture(
        Limb(15, 50 + 85 * up, 30, 70 + 95 * up + 14 * beat),
        Limb(15, 50 + 85 * down, 30, 70 + 95 * down + 14 * beat),
        Limb(1.2 * dip, 9 + 7 * side, -0.9 * dip, 2 + 6 * side),
        Limb(1.2 * dip, 9 - 7 * side, -0.9 * dip, 2 - 6 * side),
        yaw=16 * _wave(phase, 0.12),
        lean=9 * side,
        nod=-8 * side,
        look=10 * _wave(phase, 0.3),
        smile=0.55 + 0.3 * beat,
    )


def _jump(phase: float) -> Posture:
    flight = max(0.0, _wave((phase - 0.3) / 0.9)) if 0.3 <= phase < 0.75 else 0.0
    crouch = math.exp(-(((phase - 0.18) / 0.09) ** 2)) + 0.8 * math.exp(-(((phase - 0.84) / 0.07) ** 2))
    rise = _smooth((phase - 0.2) / 0.18) * (1 - _smooth((phase - 0.66) / 0.2))
    arms = Limb(-35 * crouch + 15 * rise, 14 + 132 * rise, -25 * crouch + 10 * rise, 12 + 146 * rise)
    tuck = 25 * flight
    legs = Limb(48 * crouch + tuck, 5 + 10 * flight, -44 * crouch - 1.6 * tuck, 4 + 10 * flight)
    return Posture(arms, arms, legs, legs, yaw=20, lift=0.17 * flight, smile=0.3 + 0.7 * flight)


def _turn(phase: float) -> Posture:
    bob = _wave(phase, times=4)
    arm = Limb(0, 34 + 5 * bob, 8, 46 + 5 * bob)
    right, left = (Limb(9 * max(0.0, way * bob), 5, -26 * max(0.0, way * bob), 3) for way in (1, -1))
    return Posture(arm, arm, right, left, yaw=360 * phase, smile=0.4)


def _stretch(phase: float) -> Posture:
    wide = 0.5 - 0.5 * math.cos(2 * math.pi * phase)
    arm = Limb(5, 12 + 148 * wide, 8, 10 + 158 * wide)
    leg = Limb(0, 3 + 20 * wide, 0, 2 + 20 * wide)
    return Posture(arm, arm, leg, leg, lift=0.05 * math.sin(2 * math.pi * phase) ** 2, smile=0.3 + 0.4 * wide)


MOTIONS: dict[str, Callable[[float], Posture]] = {
    "walk": _walk,
    "wave": _waving,
    "dance": _dance,
    "jump": _jump,
    "turn": _turn,
    "stretch": _stretch,
}
"""What a figure can do: its posture at a share of the period, which begins again at 1."""


def _smooth(share: float) -> float:
    share = min(max(share, 0.0), 1.0)
    return share * share * (3 - 2 * share)


def _hanging(sign: float, swing: float, spread: float) -> np.ndarray:
    """The direction of a part that hangs down, swings forwards and is spread from the body."""
    forwards, aside = math.radians(swing), math.radians(spread)
    down = math.cos(aside)
    return np.array([sign * math.sin(aside), down * math.cos(forwards), abs(down) * math.sin(forwards)])


def _yaw(degrees: float) -> np.ndarray:
    angle = math.radians(degrees)
    return np.array([[math.cos(angle), 0, math.sin(angle)], [0, 1, 0], [-math.sin(angle), 0, math.cos(angle)]])


def _roll(degrees: float) -> np.ndarray:
    angle = math.radians(degrees)
    return np.array([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]])
