"""The values and protocols that rooms exchange. No room is imported here, and torch only for the type checker."""

from segue.types.keypoints import KeyPoints
from segue.types.protocols import (
    Codec,
    Denoiser,
    Frames,
    Kick,
    Network,
    Operator,
    Perceptual,
    Progress,
    Solver,
    TextEncoder,
    silent,
)
from segue.types.values import (
    Call,
    Condition,
    Conditioning,
    Guided,
    History,
    Point,
    Prediction,
    RowId,
    State,
    over_rows,
)

__all__ = [
    "Call",
    "Codec",
    "Condition",
    "Conditioning",
    "Denoiser",
    "Frames",
    "Guided",
    "History",
    "KeyPoints",
    "Kick",
    "Network",
    "Operator",
    "Perceptual",
    "Point",
    "Prediction",
    "Progress",
    "RowId",
    "Solver",
    "State",
    "TextEncoder",
    "over_rows",
    "silent",
]
