"""Segue: temporally coherent video from latent diffusion models.

Names are loaded on first use: importing the package imports no torch, and does nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segue import errors
    from segue.media import Clip, read
    from segue.models.placement import Placement
    from segue.tasks.animate import Animate
    from segue.tasks.branching import Branching
    from segue.tasks.deflicker import Deflicker
    from segue.tasks.edit import Edit
    from segue.tasks.image import Image
    from segue.tasks.live import Live
    from segue.tasks.rerun import Rerun
    from segue.tasks.sampling import Execution, Sampling
    from segue.tasks.stylize import Stylize
    from segue.tasks.transition import Transition
    from segue.tasks.upscale import Upscale
    from segue.zoo import ModelCard, load, load_control

__version__ = "0.1.0"
_TASKS = (
    "Animate",
    "Branching",
    "Deflicker",
    "Edit",
    "Image",
    "Live",
    "Rerun",
    "Sampling",
    "Stylize",
    "Transition",
    "Upscale",
)
_HOME = {name: f"segue.tasks.{name.lower()}" for name in _TASKS}
_HOME.update(Clip="segue.media", read="segue.media", Execution="segue.tasks.sampling")
_HOME.update(ModelCard="segue.zoo", load="segue.zoo", load_control="segue.zoo", Placement="segue.models.placement")

__all__ = [
    "Animate",
    "Branching",
    "Clip",
    "Deflicker",
    "Edit",
    "Execution",
    "Image",
    "Live",
    "ModelCard",
    "Placement",
    "Rerun",
]
__all__ += ["Sampling", "Stylize", "Transition", "Upscale", "__version__", "errors", "load", "load_control", "read"]


def __getattr__(name: str) -> Any:
    if name == "errors":
        return import_module("segue.errors")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
