"""Run by an interpreter that has mediapipe, apart from ours: pictures on its standard input, key points on its output.

Nothing of Segue is imported: that interpreter has no Segue. See `segue.models.annotate.mediapipe`.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from typing import Any

import numpy as np

BODY = (0, -1, 12, 14, 16, 11, 13, 15, 24, 26, 28, 23, 25, 27, 5, 2, 8, 7)
"""OpenPose's 18 among MediaPipe's 33; the neck is between the shoulders."""

JAW = (162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389)
BROWS = (71, 63, 105, 66, 107, 336, 296, 334, 293, 301)
NOSE = (168, 197, 5, 4, 75, 97, 2, 326, 305)
EYES = (33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380)
LIPS = (61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87)
"""iBUG's 68 among the 468 of MediaPipe's face mesh."""


def main() -> None:
    """Answer pictures until the input ends: a line of JSON and bytes for each, 128 times x, y and confidence back."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # What the library says on its standard output is not an answer.
    holistic: Any = import_module("mediapipe").solutions.holistic
    with holistic.Holistic(static_image_mode=True, model_complexity=1, refine_face_landmarks=False) as network:
        answers.write(b"ready\n")
        answers.flush()
        while line := sys.stdin.buffer.readline():
            width, height = json.loads(line)
            data = sys.stdin.buffer.read(width * height * 3)
            picture = np.frombuffer(data, np.uint8).reshape(height, width, 3)
            answers.write(points(network.process(picture), width, height).tobytes())
            answers.flush()


def points(found: Any, width: int, height: int) -> np.ndarray:
    """(128, 3) float32: x and y in pixels from the middle of the first pixel, confidence; NaN and 0 where absent."""
    body = listed(found.pose_landmarks, 33, width, height)
    ours = body[list(BODY)]
    ours[1, :2] = body[11:13, :2].mean(0)
    ours[1, 2] = body[11:13, 2].min()
    hands = [listed(hand, 21, width, height) for hand in (found.right_hand_landmarks, found.left_hand_landmarks)]
    face = listed(found.face_landmarks, 468, width, height)[[*JAW, *BROWS, *NOSE, *EYES, *LIPS]]
    every = np.concatenate([ours, *hands, face]).astype(np.float32)
    every[~(every[:, 2] > 0), :2] = np.nan
    return every


def listed(landmarks: Any, count: int, width: int, height: int) -> np.ndarray:
    """Landmarks in pixels with their visibility, which hands and faces have not: they are there or not."""
    if landmarks is None:
        return np.tile(np.array([np.nan, np.nan, 0.0]), (count, 1))
    whole = count == 33
    return np.array(
        [[m.x * width - 0.5, m.y * height - 0.5, m.visibility if whole else 1.0] for m in landmarks.landmark[:count]]
    )


if __name__ == "__main__":
    main()
