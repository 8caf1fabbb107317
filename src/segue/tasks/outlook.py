"""What a render will take on this machine, and what to change so that it fits; found without loading the model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from segue.errors import TaskError
from segue.tasks.branching import USUAL_DEPTH
from segue.tasks.sampling import Execution, Sampling
from segue.temporal.curve import Curve

if TYPE_CHECKING:
    import torch

    from segue.models.capacity import Memory
    from segue.models.forecast import Change, Forecast, Render
    from segue.models.placement import Placement
    from segue.models.skeleton import Skeleton

GIB = 1 << 30
_STEPS, _GUIDANCE = 30, 7.5
"""What a model without a card is taken to run with."""


@dataclass(frozen=True)
class Load:
    """How much is to be made, and where.

    Args:
        frames: pictures of the film; 1 is a picture.
        memory: GiB that the device shall be taken to have; left out, what is free on it now.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    frames: int = 1
    memory: float | None = None

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise TaskError(f"frames must be 1 or more, got {self.frames}")
        if self.memory is not None and not self.memory > 0:
            raise TaskError(f"memory must be above 0 GiB, got {self.memory}")


@dataclass(frozen=True)
class Outlook:
    """What a render takes, and whether it fits.

    Args:
        forecast: bytes, operations and seconds.
        memory: of the device.
        changes: what to change, if it does not fit; each on top of those before.
    """

    forecast: Forecast
    memory: Memory
    changes: tuple[Change, ...]

    @property
    def fits(self) -> bool:
        """Whether it fits as it was asked for."""
        return self.forecast.peak <= self.memory.room


@dataclass(frozen=True)
class Asked:
    """Which model, and how it is kept.

    Args:
        source: an embedded model, a folder, a file or a hub repository; None is the usual one.
        device: where it shall run; None takes the fastest that is here.
        dtype: what it shall compute in; None is float32 on the CPU and float16 elsewhere.
        config: a folder whose configurations a single file is read with.
        placement: how networks are kept; None is as they come.
    """

    source: str | Path | None = None
    device: str | None = None
    dtype: str | None = None
    config: Path | None = None
    placement: Placement | None = None


def outlook(
    asked: Asked,
    sampling: Sampling | None = None,
    execution: Execution | None = None,
    load: Load | None = None,
    timed: bool = True,
) -> Outlook:
    """What a render will take, from a model's configurations alone: no weights are read, and none downloaded.

    Args:
        asked: the model.
        sampling: size, steps and guidance.
        execution: its batches.
        load: how many frames, and the memory to fit into.
        timed: whether to measure how fast the device is, which takes two seconds.

    Raises:
        ModelError: the model cannot be found, or its networks are not known.
        TaskError: the size does not fit its grid.
    """
    from segue.models.capacity import Memory, measured_speed, memory_of
    from segue.models.forecast import changes, forecast
    from segue.models.loading import find_device, find_dtype
    from segue.models.skeleton import skeleton
    from segue.zoo.load import default, find_card

    load = load or Load()
    device = find_device(asked.device)
    dtype = find_dtype(asked.dtype, device)
    source = asked.source or default()
    card = find_card(source)
    model = skeleton(card.weights if card else source, dtype, asked.config, str(source))
    wanted = _completed(sampling or Sampling(), model, card)
    memory = memory_of(device)
    if load.memory is not None:
        room = int(load.memory * GIB)
        memory = Memory(room, room, memory.taken)
    render = _render(wanted, execution or Execution(), load, model, device, _settled(asked.placement, model, memory))
    speed = measured_speed(device, dtype) if timed else None
    found = forecast(model, render, speed)
    return Outlook(found, memory, () if found.peak <= memory.room else tuple(changes(model, found, memory)))


def _completed(sampling: Sampling, model: Skeleton, card: Any) -> Sampling:
    """The sampling with a card's values where none are given."""
    said = {name: getattr(card, name, None) for name in ("steps", "guidance_scale", "guidance_start", "size")}
    guidance = sampling.guidance_scale or (said["guidance_scale"] if said["guidance_scale"] is not None else _GUIDANCE,)
    size = sampling.size or said["size"] or model.size
    if any(side % model.codec.scale for side in size):
        raise TaskError(f"size must be a multiple of {model.codec.scale} on both sides; got {size[0]}x{size[1]}")
    began = sampling.guidance_start if sampling.guidance_start is not None else said["guidance_start"]
    return Sampling(sampling.steps or said["steps"] or _STEPS, guidance, began or 0.0, None, size)


def _render(
    sampling: Sampling, execution: Execution, load: Load, model: Skeleton, device: torch.device, placement: Placement
) -> Render:
    from segue.models.forecast import Render

    config: Any = model.parts[model.denoiser].config
    told = bool(config.get("guidance_embeds"))
    highest = max(Curve.of(value).high for value in sampling.guidance_scale)
    guided = highest != 1 and not told
    size = sampling.size or model.size
    return Render(
        size=size,
        steps=sampling.steps or _STEPS,
        device=device,
        pictures=load.frames,
        keys=min(2, load.frames),
        shared=USUAL_DEPTH if load.frames > 1 else 0.0,
        terms=2 if guided else 1,
        max_batch=execution.max_batch,
        together=execution.decoded_on(device.type, size),
        placement=placement,
    )


def _settled(placement: Placement | None, model: Skeleton, memory: Memory) -> Placement:
    """The placement with the tile that loading would choose on a device of that memory."""
    from dataclasses import replace

    from segue.models.decoding import tiled
    from segue.models.placement import Placement

    placement = placement or Placement()
    codec = tiled(model.codec, placement.tile, memory.total)
    return replace(placement, tile=codec.tile * codec.scale)
