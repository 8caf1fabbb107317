"""What a render will take on this machine, and what to change so that it fits; found without loading the model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from segue.errors import TaskError
from segue.tasks.branching import USUAL_DEPTH
from segue.tasks.sampling import Execution, Resolved, Sampling, with_threads
from segue.tasks.upscale import DEPTH, EVERY
from segue.temporal.curve import Curve

if TYPE_CHECKING:
    import torch

    from segue.models.capacity import Memory
    from segue.models.forecast import Change, Forecast, Render
    from segue.models.placement import Placement
    from segue.models.skeleton import Skeleton
    from segue.types import Prediction
    from segue.zoo.cards import ModelCard

GIB = 1 << 30
_MOST = 1 << 20


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
        if self.memory is not None and not 0 < self.memory <= _MOST:
            raise TaskError(f"memory must be above 0 GiB, and {_MOST} at most; got {self.memory}")


@dataclass(frozen=True)
class Outlook:
    """What a render takes, and whether it fits.

    Args:
        forecast: bytes, operations and seconds.
        memory: of the device.
        changes: what to change, if it does not fit; each on top of those before.
        main: main memory, where weights are loaded, or wait, before they come to the device.
        made: what the forecast is of, in words.
        dtype: what networks compute in.
    """

    forecast: Forecast
    memory: Memory
    changes: tuple[Change, ...]
    main: Memory
    made: str
    dtype: torch.dtype

    @property
    def fits(self) -> bool:
        """Whether it fits as it was asked for."""
        return self.forecast.peak <= self.memory.room and self.fits_at_home

    @property
    def fits_at_home(self) -> bool:
        """Whether main memory holds what is loaded there first, or waits there, for a device with its own."""
        return self.forecast.home <= self.main.room


@dataclass(frozen=True)
class Asked:
    """Which model, and how it is kept.

    Args:
        source: an embedded model, a folder, a file or a hub repository; None is the usual one.
        device: where it shall run; None takes the fastest that is here.
        dtype: what it shall compute in; None is float32 on the CPU, and elsewhere what its family computes in.
        config: a folder whose configurations a single file is read with.
        placement: how networks are kept; None is as they come.
        profile: what it is used with, as `segue.load` takes it.
        prediction: what its network is said to predict.
    """

    source: str | Path | None = None
    device: str | None = None
    dtype: str | None = None
    config: Path | None = None
    placement: Placement | None = None
    profile: str | None = None
    prediction: Prediction | None = None


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
        ModelError: the model cannot be found, or its networks are not known; a profile, a prediction or a placement
            that does not suit it, which loading would refuse as well.
        TaskError: the size does not fit its grid.
        ScheduleError: there is no such solver.
    """
    import torch

    from segue.models.capacity import Memory, measured_speed, memory_of
    from segue.models.forecast import changes, forecast
    from segue.models.loading import dtype_of, find_device
    from segue.models.placement import Placement
    from segue.models.skeleton import located, skeleton
    from segue.zoo.load import default, find_card

    load, execution, placement = load or Load(), execution or Execution(), asked.placement or Placement()
    device = find_device(asked.device)
    placement.check(device)
    source = asked.source or default()
    card = find_card(source)
    path = located(card.weights if card else source)
    dtype = dtype_of(path, device, asked.dtype)
    model = _added(skeleton(path, dtype, asked.config, str(source), card.words_from if card else None), card)
    placement.check_waiting(model.name, model.waiting)
    wanted = _completed(sampling or Sampling(), model, asked, card)
    memory = memory_of(device)
    if load.memory is not None:
        room = int(load.memory * GIB)
        memory = Memory(room, room, memory.taken)
    render = _render(wanted, execution, load, model, device, _settled(placement, model, memory))
    speed = None
    if timed:
        with with_threads(execution.threads):
            speed = measured_speed(device, dtype)
    found = forecast(model, render, speed)
    advice = () if found.peak <= memory.room else tuple(changes(model, found, memory))
    return Outlook(found, memory, advice, memory_of(torch.device("cpu")), _made(model, render), dtype)


def _added(model: Skeleton, card: ModelCard | None) -> Skeleton:
    """The networks with what a card adds to those of its base."""
    from segue.models.skeleton_added import with_instruct_added, with_time_added

    if card is not None and card.time is not None:
        model = with_time_added(model, card.folder / card.time)
    if card is not None and card.instruct is not None:
        model = with_instruct_added(model, card.folder / card.instruct)
    return model


def _made(model: Skeleton, render: Render) -> str:
    one = render.pictures == 1
    if model.family == "upscaler":
        what = "a picture" if one else f"{render.pictures} frames"
        return f"{what} enlarged in one window (segue upscale cuts larger ones into several)"
    return "a picture" if one else f"a film of {render.pictures} frames"


def _completed(sampling: Sampling, model: Skeleton, asked: Asked, card: ModelCard | None) -> Resolved:
    """The sampling with what the model is used with where nothing is given: the order is that of `segue.load`."""
    from segue.diffusion.solvers import find_solver
    from segue.models.profiles import profile_for
    from segue.models.usual import usual
    from segue.zoo.load import stated_by

    usually = usual(model, asked.prediction, None if card else asked.profile)
    if card is not None:
        usually = replace(usually, **stated_by(card))
        profile = profile_for(asked.profile, model.family, model.scheduler, model.name) if asked.profile else None
        usually = profile.over(usually, told=model.told_guidance, stated=True) if profile else usually
    size, grid = sampling.size or usually.size, model.grid
    if any(side % grid for side in size):
        raise TaskError(f"size must be a multiple of {grid} on both sides; got {size[0]}x{size[1]}")
    return Resolved(
        sampling.steps or usually.steps,
        sampling.guidance_scale or (usually.guidance_scale,),
        usually.guidance_start if sampling.guidance_start is None else sampling.guidance_start,
        find_solver(sampling.solver or usually.solver).name,
        size,
    )


def _render(
    sampling: Resolved, execution: Execution, load: Load, model: Skeleton, device: torch.device, placement: Placement
) -> Render:
    from segue.models.forecast import Render

    highest = max(Curve.of(value).high for value in sampling.guidance_scale)
    guided = highest != 1 and not model.told_guidance
    keys, shared = min(2, load.frames), USUAL_DEPTH
    if model.family == "upscaler":
        keys, shared = 1 - (1 - load.frames) // EVERY, int(DEPTH * sampling.steps) / sampling.steps
    return Render(
        size=sampling.size,
        steps=sampling.steps,
        device=device,
        pictures=load.frames,
        keys=keys,
        shared=shared if load.frames > 1 else 0.0,
        terms=2 if guided else 1,
        began=sampling.guidance_start,
        max_batch=execution.max_batch,
        together=execution.decoded_on(device.type, sampling.size),
        placement=placement,
    )


def _settled(placement: Placement, model: Skeleton, memory: Memory) -> Placement:
    """The placement with the tile that loading would choose on a device of that memory."""
    from segue.models.decoding import tiled

    codec = tiled(model.codec, placement.tile, memory.total)
    return replace(placement, tile=codec.tile * codec.scale)
