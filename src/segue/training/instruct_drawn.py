"""Pairs of pictures that a model draws itself: two captions that differ in one respect, drawn alike.

Both pictures start from the same noise, and the second attends within itself as the first does for a share of the run
that is drawn anew for each pair (Brooks, Holynski & Efros 2023, arXiv:2211.09800, section 3.1.2: between .1 and .9),
since how much may stay depends on what changes. Several are drawn of each, and of those that a scorer lets through the
one is kept whose change goes furthest in the direction that was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from segue.diffusion.guidance import classifier_free
from segue.diffusion.loop import collect, denoise
from segue.diffusion.solvers import find_solver
from segue.models.attention import attached, sites
from segue.models.attention_maps import MapReader
from segue.temporal.shared_maps import Follows, SharedMaps
from segue.training.captions import TEMPLATES, Concept, article
from segue.training.corpus import COLOURED
from segue.training.instruct_score import Asked, Limits, PairScore, PairScorer
from segue.training.instruct_words import instructions
from segue.training.journal import watched
from segue.training.sampling import decoded, shape_of
from segue.types import RowId, State

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from segue.models.bundle import LatentDiffusion
    from segue.training.instruct_words import Kind

BEFORE, AFTER = "before", "after"
LEAST, MOST = 0.1, 0.9
"""Between which the share of the run lies that is drawn alike."""


@dataclass(frozen=True)
class DrawnPair:
    """A pair that was let through.

    Args:
        asked: what it should show, and does.
        instructions: what may be said.
        pictures: before and after, in [0, 1].
        score: how well it does.
    """

    asked: Asked
    instructions: tuple[str, ...]
    pictures: Float[Tensor, "2 3 h w"]
    score: PairScore


@dataclass(frozen=True)
class Palette:
    """What one thing can be changed to.

    Args:
        concept: the thing.
        colours: those that it is shown in besides its own.
        styles: that there are of it.
    """

    concept: Concept
    colours: tuple[str, ...]
    styles: tuple[str, ...]


def asked_of(kind: Kind, palette: Palette, other: Palette, rng: np.random.Generator) -> Asked | None:
    """Two captions of things that a model knows, of which the second differs in one respect; None if there are none.

    Args:
        kind: colour, style, ground or thing.
        palette: what the first shows.
        other: what the second shows, if the thing is what changes.
        rng: decides.
    """
    noun, drawn = palette.concept.noun, [name for name in palette.styles if name in other.styles]
    style = str(rng.choice(np.array(drawn))) if kind != "style" and rng.random() < 0.25 else "3d"
    ground = str(rng.choice(COLOURED)) if kind != "ground" and rng.random() < 0.3 else ""
    before, after = (noun, style, ground, ""), (other.concept.noun, style, ground, "")
    wanted = other.concept.noun
    if kind == "colour":
        if not palette.colours or style == "line art":
            return None
        wanted = str(rng.choice(np.array(palette.colours)))
        after = (noun, style, ground, wanted)
    elif kind == "style":
        options = [name for name in palette.styles if name != style]
        if not options:
            return None
        wanted = str(rng.choice(np.array(options)))
        after = (noun, wanted, ground, "")
    elif kind == "ground":
        wanted = str(rng.choice(COLOURED))
        before, after = (noun, style, "white", ""), (noun, style, wanted, "")
    return Asked(kind, (_caption(*before), _caption(*after)), wanted, (before[0], after[0]), (before[1], after[1]))


def _caption(noun: str, style: str, ground: str, colour: str) -> str:
    """As the model's own captions have it."""
    thing = f"{colour} {noun}".strip()
    template = "{a} {}" if style == "3d" else TEMPLATES[style][0]
    said = template.format(thing, a=article(thing))
    return f"{said} on {article(ground)} {ground} background" if ground else said


@torch.no_grad()
def drawn_alike(
    model: LatentDiffusion,
    asked: Asked,
    seeds: Sequence[int],
    shares: Sequence[float],
    scales: Sequence[float],
    steps: int,
) -> tuple[Float[Tensor, "n 3 h w"], Float[Tensor, "n 3 h w"]]:
    """Pictures of both captions, a pair for each seed.

    Args:
        model: that draws from words; a UNet.
        asked: has the captions.
        seeds: of the noise that both pictures of a pair start from.
        shares: of the run, in [0, 1], that they are drawn alike.
        scales: of guidance.
        steps: of the run.

    Raises:
        TaskError: the model's attention maps cannot be read.
    """
    count, solver = len(seeds), model.defaults.solver
    schedule = model.schedule(steps, model.defaults.size, solver=solver)
    noise = torch.stack([torch.randn(shape_of(model), generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    ids = tuple(RowId(side, number) for side in (BEFORE, AFTER) for number in range(count))
    begin = (torch.cat([noise, noise]) * schedule.start_scale).to(model.device)
    text = model.text([*asked.captions, ""])
    told = text[[0] * count + [1] * count], text[[2] * (2 * count)]
    cond = classifier_free(*told, [*scales, *scales], start=model.defaults.guidance_start)
    follows = {RowId(AFTER, number): Follows(RowId(BEFORE, number), share) for number, share in enumerate(shares)}
    own = cast("dict[str, Any]", model.parts)["unet"]
    denoiser = replace(model.denoiser, max_batch=max(model.denoiser.max_batch, 4 * count))
    state = State(begin, torch.zeros(2 * count, dtype=torch.int64), ids)
    with attached([site for site in sites(own) if site.kind == "self"], SharedMaps(MapReader(), follows)):
        latents = collect(denoise(denoiser, state, schedule, cond, solver=find_solver(solver).solver), schedule)
    pictures = decoded(model, latents).float().cpu()
    return pictures[:count], pictures[count:]


@dataclass(frozen=True)
class Drawing:
    """Who draws pairs, and how many.

    Args:
        model: that draws from words; a UNet.
        scorer: says how well pairs show what was asked for.
        limits: what is let through.
        wishes: how many pairs are asked for; some are not let through.
        kinds: of changes, each asked for as often.
        samples: pairs that are drawn of each wish.
        steps: of a run.
        guidance: the least and the largest scale.
        seed: of wishes, noises, shares and scales.
    """

    model: LatentDiffusion
    scorer: PairScorer
    limits: Limits
    wishes: int
    kinds: tuple[Kind, ...] = ("thing", "colour", "ground", "style")
    samples: int = 4
    steps: int = 12
    guidance: tuple[float, float] = (2.5, 5.0)
    seed: int = 43

    def pairs(self, palettes: Sequence[Palette]) -> Iterator[DrawnPair]:
        """Of each wish the best pair, where one was let through.

        Args:
            palettes: of things that the model knows.
        """
        with watched("drawing", self.wishes) as tell:
            for number in range(self.wishes):
                rng = np.random.default_rng((self.seed, number))
                asked = self._wish(self.kinds[number % len(self.kinds)], palettes, rng)
                pair = self._drawn(asked, rng) if asked is not None else None
                tell(number + 1)
                if pair is not None:
                    yield pair

    def said(self) -> dict[str, Any]:
        """How, as plain values."""
        return {
            "model": self.model.fingerprint,
            "scorer": self.scorer.name,
            "limits": asdict(self.limits),
            **{name: getattr(self, name) for name in ("wishes", "kinds", "samples", "steps", "guidance", "seed")},
        }

    def _wish(self, kind: Kind, palettes: Sequence[Palette], rng: np.random.Generator) -> Asked | None:
        first, second = rng.choice(len(palettes), 2, replace=False).tolist()
        return asked_of(kind, palettes[first], palettes[second if kind == "thing" else first], rng)

    def _drawn(self, asked: Asked, rng: np.random.Generator) -> DrawnPair | None:
        seeds = rng.integers(2**31, size=self.samples).tolist()
        shares, scales = (rng.uniform(*span, self.samples).tolist() for span in ((LEAST, MOST), self.guidance))
        before, after = drawn_alike(self.model, asked, seeds, shares, scales, self.steps)
        scores = self.scorer(before, after, [asked] * self.samples)
        kept = [place for place, score in enumerate(scores) if self.limits.keeps(score)]
        if not kept:
            return None
        best = max(kept, key=lambda place: scores[place].direction)
        said = tuple(dict.fromkeys(instructions(asked.kind, asked.wanted, (asked.nouns[0],))))
        return DrawnPair(asked, said, torch.stack([before[best], after[best]]), scores[best])
