"""What every task that samples from a model has in common, and how it is run."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from segue.errors import TaskError
from segue.temporal.curve import Value, is_curve, value_of

if TYPE_CHECKING:
    from segue.models.bundle import LatentDiffusion

T = TypeVar("T")
MAX_SIDE = 8192
DECODED = 1024 * 1024
"""Pixels that an accelerator decodes together at most; a picture of more is decoded alone."""


@dataclass(frozen=True)
class Sampling:
    """How a model is sampled. What is left out is the model's own default.

    Args:
        steps: network evaluations per picture, 1 or more.
        guidance_scale: how strongly prompts are followed, 0 or more; 1 is unguided. One value, one per key, or a curve
            over the film ("0s:3, 2s:5").
        guidance_start: share of the run, in [0, 1), before guidance sets in; what is decided there is left to the seed.
        solver: ddim, euler, euler_ancestral, dpmpp_2m, dpmpp_2m_sde or lcm.
        size: (width, height) in pixels, multiples of the model's grid (8 for Stable Diffusion).
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    steps: int | None = None
    guidance_scale: tuple[Value, ...] = ()
    guidance_start: float | None = None
    solver: str | None = None
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "size", "guidance_start"):
            value: Any = getattr(self, name)
            if isinstance(value, str) and is_curve(value):
                raise TaskError(
                    f"{name} must be the same for the whole film, whose frames are drawn in common batches; "
                    f"got the curve {value!r}"
                )
        if self.steps is not None and self.steps < 1:
            raise TaskError(f"steps must be 1 or more, got {self.steps}")
        if self.guidance_start is not None and not 0 <= self.guidance_start < 1:
            raise TaskError(f"guidance_start must be in [0, 1), got {self.guidance_start}")
        scale: Any = self.guidance_scale
        given = (scale,) if isinstance(scale, int | float | str) else tuple(scale)
        scales = tuple(value_of(value, "guidance_scale", 0, 1000) for value in given)
        object.__setattr__(self, "guidance_scale", scales)
        if len(scales) > 1 and any(isinstance(value, str) for value in scales):
            raise TaskError(f"guidance_scale is one curve, or numbers, one per key; got {list(scales)}")
        if self.size is not None:
            object.__setattr__(self, "size", tuple(self.size))
            if len(self.size) != 2 or not all(0 < side <= MAX_SIDE for side in self.size):
                raise TaskError(f"size must be width and height in pixels, up to {MAX_SIDE} each; got {self.size}")

    def resolve(self, model: LatentDiffusion, keys: int) -> Resolved:
        """Every value as it will be used with a model that makes pictures from words.

        Raises:
            TaskError: if it makes none; if the size does not fit the model's grid, or the guidance scales the number of
                keys.
            ScheduleError: for an unknown solver.
        """
        from segue.diffusion.solvers import find_solver

        if model.upscaling is not None:
            raise TaskError(
                f"{model.name} is an upscaler: it enlarges pictures (segue upscale PICTURE) and makes none from words; "
                "take another model"
            )
        defaults = model.defaults
        width, height = self.size or defaults.size
        grid = model.grid
        if width % grid or height % grid:
            low, high = (
                (width // grid * grid, height // grid * grid),
                (-(-width // grid) * grid, -(-height // grid) * grid),
            )
            raise TaskError(
                f"size must be a multiple of {grid} on both sides for this model, got {width}x{height}; "
                f"the nearest are {max(low[0], grid)}x{max(low[1], grid)} and {high[0]}x{high[1]}"
            )
        solver = find_solver(self.solver or defaults.solver).name
        scales = per_key(self.guidance_scale or (defaults.guidance_scale,), keys, "guidance_scale")
        if keys == 1 and isinstance(scales[0], str):
            raise TaskError(f"guidance_scale of a picture must be a number, since it has no time; got {scales[0]!r}")
        began = defaults.guidance_start if self.guidance_start is None else self.guidance_start
        return Resolved(self.steps or defaults.steps, scales, float(began), solver, (width, height))


@dataclass(frozen=True)
class Resolved:
    """Sampling settings with nothing left open.

    Args:
        steps: network evaluations per picture.
        guidance_scale: one per key; the same curve for each, if it is one.
        guidance_start: share of the run before it sets in.
        solver: its name.
        size: (width, height) in pixels.
    """

    steps: int
    guidance_scale: tuple[Value, ...]
    guidance_start: float
    solver: str
    size: tuple[int, int]

    @property
    def is_curved(self) -> bool:
        """Whether guidance follows a curve."""
        return isinstance(self.guidance_scale[0], str)

    def latent_shape(self, model: LatentDiffusion) -> tuple[int, int, int]:
        """(channels, height, width) of the latents."""
        width, height = self.size
        return model.codec.channels, height // model.codec.scale, width // model.codec.scale

    def pinned(self) -> Sampling:
        """The same values as a request, for a record that must not depend on a model's defaults."""
        scales = self.guidance_scale[:1] if self.is_curved else self.guidance_scale
        return Sampling(self.steps, scales, self.guidance_start, self.solver, self.size)


@dataclass(frozen=True)
class Execution:
    """How the work is done; none of it changes what is made beyond the last digits.

    Args:
        max_batch: the most network rows in one call (a picture counts once per guidance term).
        deterministic_batch: fill every call up to one number of rows (the largest multiple of 4 up to `max_batch`) and
            decode picture by picture, so that a picture's bits do not depend on its companions.
        threads: CPU threads; None leaves what is set.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    max_batch: int = 16
    deterministic_batch: bool = False
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.max_batch < 1:
            raise TaskError(f"max_batch must be 1 or more, got {self.max_batch}")
        if self.threads is not None and self.threads < 1:
            raise TaskError(f"threads must be 1 or more, got {self.threads}")

    @contextmanager
    def applied(self, model: LatentDiffusion) -> Generator[LatentDiffusion]:
        """The model as it is to be run, without gradients and with the asked number of threads, until the end.

        Raises:
            TaskError: its kernels are to be recorded, and calls may have any number of rows.
        """
        import torch

        if model.placement.compile == "graphs" and not self.deterministic_batch:
            raise TaskError(
                'compile "graphs" records kernels for one number of rows: add --deterministic-batch, or take "blocks"'
            )
        with with_threads(self.threads), torch.no_grad():
            yield model.batched(self.max_batch, deterministic=self.deterministic_batch)

    def decoded_at_once(self, model: LatentDiffusion, size: tuple[int, int]) -> int:
        """How many pictures are decoded together: on a CPU one by one is as fast, or faster (docs/speed.md)."""
        return self.decoded_on(model.device.type, size)

    def decoded_on(self, device: str, size: tuple[int, int]) -> int:
        """The same for a kind of device."""
        if self.deterministic_batch or device == "cpu":
            return 1
        return max(1, min(DECODED // (size[0] * size[1]), self.max_batch // 2))

    def pinned(self) -> Execution:
        """With the number of threads that is in force, for a record."""
        import torch

        return replace(self, threads=self.threads or torch.get_num_threads())


@contextmanager
def with_threads(count: int | None) -> Generator[None]:
    """So many CPU threads for the length of a block; None leaves what is set."""
    import torch

    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def per_key(values: Sequence[T], keys: int, name: str) -> tuple[T, ...]:
    """One value per key: one value serves all.

    Raises:
        TaskError: if there are neither one nor as many as keys.
    """
    if len(values) == 1:
        return tuple(values) * keys
    if len(values) != keys:
        raise TaskError(f"{name} must be given once, or once per key picture ({keys}); got {len(values)} values")
    return tuple(values)


def checked_prompt(text: Any, name: str = "prompt") -> str:
    """A prompt that is not empty.

    Raises:
        TaskError: if it is.
    """
    if not isinstance(text, str) or not text.strip():
        raise TaskError(f"{name} must be words that describe a picture, got {text!r}")
    return text


def checked_seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    """Seeds that a random generator takes.

    Raises:
        TaskError: if there are none, or one is negative or beyond 63 bits.
    """
    if not seeds:
        raise TaskError("seeds must be at least one number")
    for seed in seeds:
        if not 0 <= seed < 2**63:
            raise TaskError(f"a seed must be a whole number from 0 to 2^63 - 1, got {seed}")
    return tuple(seeds)
