"""The values that rooms exchange."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import reduce
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from jaxtyping import Float, Int64
    from torch import Tensor

Prediction = Literal["epsilon", "v_prediction", "sample", "flow_prediction"]
History = tuple["Tensor", ...]
"""What a multistep solver remembers: tensors whose first axis is the row. NaN marks a row that remembers nothing."""


@dataclass(frozen=True)
class RowId:
    """Who a row of a batch is, wherever it is computed: a trajectory, and a frame of it."""

    trajectory: str
    frame: int = 0


def over_rows(values: Float[Tensor, " b"], like: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
    """Shape one number per row so that it multiplies `like`, in the dtype and on the device of `like`."""
    return values.to(device=like.device, dtype=like.dtype).reshape(-1, *[1] * (like.ndim - 1))


@dataclass(frozen=True)
class Point:
    """Where each row of a batch stands on its noise schedule: x = alpha x0 + sigma eps.

    alpha, sigma and time (what the network is told) are float64, on the CPU, one per row.
    """

    index: Int64[Tensor, " b"]
    count: int
    alpha: Float[Tensor, " b"]
    sigma: Float[Tensor, " b"]
    time: Float[Tensor, " b"]
    rows: tuple[RowId, ...] = ()

    @property
    def progress(self) -> Float[Tensor, " b"]:
        """Share of the schedule that lies behind each row: 0 at the start, 1 at the data end."""
        return self.index.double() / self.count

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: Sequence[int]) -> Point:
        pick = list(rows)
        ids = tuple(self.rows[i] for i in pick) if self.rows else ()
        return Point(self.index[pick], self.count, self.alpha[pick], self.sigma[pick], self.time[pick], ids)

    def noised(self, x0: Float[Tensor, "b ..."], eps: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        """x = alpha x0 + sigma eps."""
        return over_rows(self.alpha, x0) * x0 + over_rows(self.sigma, x0) * eps

    def eps(self, x: Float[Tensor, "b ..."], x0: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        """The noise that explains x, given x0. Infinite where sigma is 0."""
        return (x - over_rows(self.alpha, x) * x0) / over_rows(self.sigma, x)

    def v(self, x: Float[Tensor, "b ..."], x0: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        """v = alpha eps - sigma x0 (Salimans & Ho 2022, arXiv:2202.00512, section 4)."""
        return over_rows(self.alpha, x) * self.eps(x, x0) - over_rows(self.sigma, x) * x0


@dataclass(frozen=True)
class State:
    """A batch of trajectories between two steps: a value, never changed in place.

    Args:
        x: noisy latents, float32.
        step: how many steps of the schedule each row has behind it (CPU).
        ids: who the rows are.
        history: what the solver remembers of each row; empty if nothing.
    """

    x: Float[Tensor, "b c h w"]
    step: Int64[Tensor, " b"]
    ids: tuple[RowId, ...]
    history: History = ()

    def __post_init__(self) -> None:
        if not len(self.x) == len(self.step) == len(self.ids):
            raise ValueError(f"rows disagree: {len(self.x)} latents, {len(self.step)} steps, {len(self.ids)} ids")

    def __len__(self) -> int:
        return len(self.ids)

    def fork(self, rows: Sequence[int], ids: Sequence[RowId] | None = None) -> State:
        """The chosen rows (repeats allowed) with all that the solver remembers of them, under new names if given."""
        pick = list(rows)
        kept = tuple(ids) if ids is not None else tuple(self.ids[i] for i in pick)
        return State(self.x[pick], self.step[pick], kept, tuple(part[pick] for part in self.history))

    def advance(self, x: Float[Tensor, "b c h w"], history: History) -> State:
        """The state one step later."""
        return replace(self, x=x, step=self.step + 1, history=history)

    @staticmethod
    def cat(states: Sequence[State]) -> State:
        """One batch of several. Rows without history keep none beside rows that have one."""
        import torch

        longest = max((state.history for state in states), key=len)
        none = [
            tuple(part.new_full((len(state), *part.shape[1:]), float("nan")) for part in longest) for state in states
        ]
        parts = [state.history or blank for state, blank in zip(states, none, strict=True)]
        return State(
            torch.cat([state.x for state in states]),
            torch.cat([state.step for state in states]),
            tuple(row for state in states for row in state.ids),
            tuple(torch.cat(rows) for rows in zip(*parts, strict=True)),
        )


@dataclass(frozen=True)
class Conditioning:
    """What a network is told besides the latents and the time, one row per row of the batch.

    Args:
        text: token embeddings.
        text_mask: which tokens count, if the family masks them.
        pooled: one vector for the whole prompt.
        concat: appended to the latents along channels, unscaled (inpainting, instruct, upscaler, video).
        label: a class label, such as an upscaler's noise level.
        residual_inputs: control pictures at pixel size, by the name of the control; in [0, 1], or bytes.
        extra: micro-conditioning, guidance embedding, image tokens; by name.
    """

    text: Float[Tensor, "b n d"]
    text_mask: Float[Tensor, "b n"] | None = None
    pooled: Float[Tensor, "b p"] | None = None
    concat: Float[Tensor, "b k h w"] | None = None
    label: Int64[Tensor, " b"] | None = None
    residual_inputs: Mapping[str, Tensor] = field(default_factory=dict[str, "Tensor"])
    extra: Mapping[str, Tensor] = field(default_factory=dict[str, "Tensor"])

    def __len__(self) -> int:
        return len(self.text)

    def __getitem__(self, rows: Sequence[int]) -> Conditioning:
        return self._map(lambda part: part[list(rows)])

    def lerp(self, other: Conditioning, weight: Float[Tensor, " b"]) -> Conditioning:
        """Linear mix, row by row: `weight` 0 is self, 1 is `other`. Labels must agree; they cannot be mixed."""
        mine, theirs = (None if part.label is None else part.label.tolist() for part in (self, other))
        if mine != theirs:
            raise ValueError("conditionings with different labels cannot be mixed")

        def mix(a: Tensor, b: Tensor) -> Tensor:
            w = over_rows(weight, a)
            return a * (1 - w) + b * w if a.is_floating_point() else a

        return self._zip(other, mix)

    def crop(self, top: int, left: int, height: int, width: int, whole: tuple[int, int] | None = None) -> Conditioning:
        """For a window of the latents: `concat` is cut, and control pictures at the pixels that lie behind it.

        Args:
            top: where the window begins, in latents.
            left: likewise.
            height: of the window, in latents.
            width: likewise.
            whole: (height, width) of all latents, which tell how many pixels lie behind one of them.

        Raises:
            ValueError: there are control pictures, and `whole` is missing, or does not divide their size.
        """

        def cut(picture: Tensor, tall: int, wide: int) -> Tensor:
            rows = slice(top * tall, (top + height) * tall)
            return picture[..., rows, left * wide : (left + width) * wide]

        pictures = {name: cut(item, *_pixels(name, item, whole)) for name, item in self.residual_inputs.items()}
        concat = None if self.concat is None else cut(self.concat, 1, 1)
        return replace(self, concat=concat, residual_inputs=pictures)

    def to(self, device: Any, dtype: Any = None) -> Conditioning:
        """On another device; floating-point parts in another dtype, if given."""
        return self._map(lambda part: part.to(device=device, dtype=dtype if part.is_floating_point() else None))

    @staticmethod
    def cat(parts: Sequence[Conditioning]) -> Conditioning:
        """One batch of several that are made of the same parts."""
        import torch

        return reduce(lambda merged, part: merged._zip(part, lambda a, b: torch.cat([a, b])), parts)

    def _map(self, f: Callable[[Tensor], Tensor]) -> Conditioning:
        return self._zip(self, lambda a, _: f(a))

    def _zip(self, other: Conditioning, f: Callable[[Tensor, Tensor], Tensor]) -> Conditioning:
        merged: dict[str, Any] = {}
        for item in fields(self):
            a, b = getattr(self, item.name), getattr(other, item.name)
            if item.name in ("residual_inputs", "extra"):
                if a.keys() != b.keys():
                    raise ValueError(f"conditionings differ in {item.name}: {sorted(a)} and {sorted(b)}")
                merged[item.name] = {name: f(a[name], b[name]) for name in a}
            elif (a is None) != (b is None):
                raise ValueError(f"one of two conditionings has no {item.name}")
            else:
                merged[item.name] = None if a is None else f(a, b)
        return Conditioning(**merged)


def _pixels(name: str, picture: Tensor, whole: tuple[int, int] | None) -> tuple[int, int]:
    """Pixels of a control picture behind one latent: down, and across."""
    tall, wide = picture.shape[-2:]
    if whole is None:
        raise ValueError(f"the control picture {name} cannot be cut without the size of all latents")
    if tall % whole[0] or wide % whole[1]:
        raise ValueError(
            f"the control picture {name} is {wide}x{tall}, no multiple of latents of {whole[1]}x{whole[0]}"
        )
    return tall // whole[0], wide // whole[1]


@dataclass(frozen=True)
class Guided:
    """Several conditionings whose answers are summed with weights (one per term and row) that add up to 1.

    Classifier-free guidance of scale g is terms (negative, positive) with weights (1 - g, g)
    (Ho & Salimans 2022, arXiv:2207.12598, eq. 6, in the form where g = 1 is unguided).

    Args:
        rescale: share of the standard-deviation correction of Lin et al. 2023 (arXiv:2305.08891, eq. 15-16),
            applied to the network's own output; the last term is the one whose deviation is kept. 0 is off.
        start: share of the run, in [0, 1), that the last term has alone (Kynkäänniemi et al. 2024, arXiv:2404.07724).
    """

    terms: tuple[Conditioning, ...]
    weights: Float[Tensor, "k b"]
    rescale: float = 0.0
    start: float = 0.0

    def __post_init__(self) -> None:
        if len(self.terms) != len(self.weights):
            raise ValueError(f"{len(self.terms)} terms but {len(self.weights)} rows of weights")
        if not bool(((self.weights.sum(0) - 1).abs() < 1e-5).all()):
            raise ValueError("guidance weights must add up to 1 for every row")

    def __len__(self) -> int:
        return len(self.terms[0])

    def __getitem__(self, rows: Sequence[int]) -> Guided:
        return Guided(tuple(term[rows] for term in self.terms), self.weights[:, list(rows)], self.rescale, self.start)

    def weights_at(self, at: Point) -> Float[Tensor, "k b"]:
        """The weights for rows that stand there: the last term alone, where guidance has not set in."""
        if not self.start:
            return self.weights
        import torch

        alone = torch.zeros_like(self.weights)
        alone[-1] = 1
        return torch.where(at.progress.to(alone.device) < self.start, alone, self.weights)

    @staticmethod
    def cat(parts: Sequence[Guided]) -> Guided:
        """One batch of several that have the same number of terms, and the same rescale and start."""
        import torch

        if len({(len(part.terms), part.rescale, part.start) for part in parts}) > 1:
            raise ValueError("only guidance of the same form can share a batch")
        terms = tuple(Conditioning.cat(rows) for rows in zip(*(part.terms for part in parts), strict=True))
        return Guided(terms, torch.cat([part.weights for part in parts], dim=1), parts[0].rescale, parts[0].start)


Condition = Conditioning | Guided


@dataclass(frozen=True)
class Call:
    """What an attention adapter is told about the network call that it is part of.

    Args:
        at: the noise levels of the call's rows.
        rows: who each network row is; a row appears once per guidance term.
        term: the guidance term of each network row; -1 marks a row that only fills a batch up, whose answer is dropped.
        text_tokens: of each row, where a network attends to text and picture as one sequence; the text goes first.
        terms: how many guidance terms there are in all; the last says what is wanted.
        group: consecutive network rows that are the frames of one clip, in order; 1 where rows are pictures.
    """

    at: Point
    rows: tuple[RowId, ...]
    term: tuple[int, ...]
    text_tokens: int = 0
    terms: int = 1
    group: int = 1
