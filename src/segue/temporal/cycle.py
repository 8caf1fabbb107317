"""CycleDiffusion: the noise that a picture is made of for one prompt, replayed for another.

DPM-Encoder of Wu & De la Torre 2022 (arXiv:2210.05559, algorithm 1): a path from noise to the picture is drawn from
the posterior q(x_{t-1} | x_t, x_0), and z_t = (x_{t-1} - mu(x_t)) / sigma_t is the noise by which the model would have
gone along it. Here the noise is kept as what is added to a step (x_{t-1} - mu(x_t), an increment), never divided: so
nothing is lost where sigma_t is small, and the step onto the picture itself, which has none, is no special case.

Both ways are the one loop. On the way in, a solver (`Posterior`) steps with the picture in place of what the model
believes, and lays the increment down in its memory; on the way out, a kick hands it to the same solver. The posterior
of every solver here that adds noise is that solver's own step with the picture as x0, so that one formula serves DDIM
with any eta, DPM-Solver++ SDE and consistency sampling, and all families. Told the same and with the same attached on
both ways, a model returns the picture, whatever its weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from segue.diffusion.loop import denoise
from segue.diffusion.noise import NamedNoise, no_noise
from segue.diffusion.schedule import Schedule
from segue.diffusion.solvers import Ancestral
from segue.diffusion.starts import from_latents
from segue.errors import ScheduleError
from segue.temporal.increments import Increments
from segue.types import Condition, Denoiser, History, Kick, Operator, Point, Progress, RowId, Solver, State, silent

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

ETA = 0.1
"""What the authors' text edits have, and diffusers' pipeline too."""
POSTERIOR = NamedNoise(name="posterior")


@dataclass(frozen=True)
class Encoding:
    """Pictures as the noise that they are made of.

    Args:
        state: where a run begins that returns them.
        kick: adds the increments of its rows again.
        latents: the path itself, by the number of steps behind it, from the first to the pictures.
        solver: by which both ways are stepped.
    """

    state: State
    kick: Increments
    latents: Mapping[int, Float[Tensor, "t c h w"]]
    solver: Solver

    @property
    def ids(self) -> tuple[RowId, ...]:
        """Who the rows are."""
        return self.state.ids

    @property
    def nbytes(self) -> int:
        """Memory that increments and path take."""
        return self.kick.nbytes + sum(part.nbytes for part in self.latents.values())

    def at(self, step: int) -> Float[Tensor, "t c h w"]:
        """The path of all rows, with `step` steps behind it.

        Raises:
            KeyError: it does not reach so far into noise.
        """
        return self.latents[step]

    def renamed(self, ids: Sequence[RowId]) -> Encoding:
        """The same for rows of other names, one for one."""
        state = self.state.fork(range(len(self.state)), ids)
        return replace(self, state=state, kick=self.kick.renamed(ids))


def eta_solver(eta: float) -> Ancestral:
    """DDIM's step with a share `eta` of the noise of DDPM (Song et al. 2021, arXiv:2010.02502, eq. 16).

    The smaller it is, the less an edit changes: with little fresh noise the path stays near that of the source.

    Raises:
        ScheduleError: eta is not above 0 and at most 1.
    """
    if not 0 < eta <= 1:
        raise ScheduleError(
            f"eta must be above 0 and at most 1, got {eta:g}: CycleDiffusion keeps a picture in the noise of its "
            "steps, and with eta 0 there is none (DDIB is the method without)"
        )
    return Ancestral(float(eta))


@dataclass(frozen=True)
class Posterior:
    """A solver that steps along the way of known pictures, and remembers by what a model would have missed it.

    Its memory is that of the inner solver along the way, then that of what the model believed, then the increment.

    Args:
        solver: whose way it is.
        clean: the pictures.
        ids: whose they are.
    """

    solver: Solver
    clean: Float[Tensor, "t c h w"]
    ids: tuple[RowId, ...]

    def __call__(
        self,
        x: Float[Tensor, "b c h w"],
        x0: Float[Tensor, "b c h w"],
        now: Point,
        then: Point,
        history: History,
        kick: Kick,
    ) -> tuple[Float[Tensor, "b c h w"], History]:
        """One step along the way, which ends in the picture whatever the schedule's last level is.

        Raises:
            ScheduleError: the solver adds no noise.
        """
        half = len(history) // 2
        places = {row: place for place, row in enumerate(self.ids)}
        known = self.clean[[places[row] for row in now.rows]].to(x)
        asked = _Asked(kick)
        there, seen = self.solver(x, known, now, then, history[:half], asked)
        if not asked.noisy and bool((then.sigma > 0).any()):
            raise ScheduleError(
                "CycleDiffusion keeps a picture in the noise of its steps, and this solver adds none; take ddim with "
                "eta above 0, euler_ancestral, dpmpp_2m_sde or lcm"
            )
        for place in (then.index >= now.count).nonzero()[:, 0].tolist():
            there[place] = known[place]
        mean, believed = self.solver(x, x0, now, then, history[half : 2 * half], no_noise)
        return there, (*seen, *believed, there - mean)


def encoded(
    denoiser: Denoiser,
    x0: Float[Tensor, "t c h w"],
    schedule: Schedule,
    source: Condition,
    ids: Sequence[RowId],
    *,
    noise: Float[Tensor, "t c h w"],
    strength: float = 1.0,
    solver: Solver | None = None,
    kick: Kick = POSTERIOR,
    operators: Sequence[Operator] = (),
    progress: Progress = silent,
) -> Encoding:
    """The DPM-Encoder; see this module's text. One evaluation of the network per step and term of guidance.

    Frames of a film that share `noise` and `kick` (see `segue.temporal.moved_noise`) have increments that differ only
    as far as the frames do, and what is done with them differs as little.

    Args:
        denoiser: the model, with all that is attached to it on the way out.
        x0: clean latents.
        schedule: that of the run.
        source: what the pictures show, one row per row; guided, if so wanted, independently of the way out.
        ids: who the rows are, on both ways.
        noise: standard noise of the start, one per row.
        strength: in (0, 1]: the share of the steps that is run, as in `starts.from_latents`.
        solver: that of the way out, which must add noise; left out, DDIM with eta 0.1.
        kick: noise of the posterior.
        operators: those of the way out.
        progress: told of each step.

    Raises:
        ScheduleError: the solver adds no noise.
        ValueError: strength is out of its range.
    """
    if not 0 < strength <= 1:
        raise ValueError(f"strength must be in (0, 1], got {strength}")
    own = solver or Ancestral(ETA)
    begin = state = from_latents(x0, noise, schedule, strength, ids)
    first, latents, increments = int(begin.step[0]), dict[int, "Tensor"](), dict[int, "Tensor"]()
    inner = Posterior(own, x0, begin.ids)
    for state in denoise(denoiser, begin, schedule, source, solver=inner, operators=operators, kick=kick):
        step = int(state.step[0])
        latents[step] = state.x
        if step > first:
            increments[step - 1] = state.history[-1]
            progress("encoding", step - first, len(schedule) - first)
    return Encoding(begin, Increments(increments, begin.ids), latents, own)


@dataclass
class _Asked:
    """A kick that remembers whether anybody wanted noise."""

    kick: Kick
    noisy: bool = False

    def __call__(self, like: Tensor, now: Point, then: Point, std: Tensor) -> Tensor:
        self.noisy = self.noisy or bool((std > 0).any())
        return self.kick(like, now, then, std)
