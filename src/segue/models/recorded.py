"""Runs of a model in files: the latents of every step, with all that tells which run it was."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from segue.errors import CheckpointError
from segue.models.labelled import read_labelled, write_labelled

if TYPE_CHECKING:
    from jaxtyping import Float, Float64
    from torch import Tensor

    from segue.diffusion.schedule import Schedule

FORMAT = "segue trajectory 1"
NAMES = ("latents", "alphas", "sigmas")
_WANTED = 'a trajectory is what "segue image ... --trajectory FILE" writes'


@dataclass(frozen=True)
class Origin:
    """What a run was of.

    Args:
        model: its name.
        sha256: its fingerprint.
        solver: how it stepped.
        prompt: what was wanted.
        negative: what was not.
        guidance_scale: how strongly prompts were followed.
        guidance_start: share of the run before that set in.
        seed: of the noise.
    """

    model: str
    sha256: str
    solver: str
    prompt: str
    negative: str
    guidance_scale: float
    guidance_start: float
    seed: int


@dataclass(frozen=True)
class Recorded:
    """One run, from its noise to the clean latents.

    Args:
        latents: with 0, 1, ... and all steps behind them, float32.
        alphas: what multiplies the picture in each of these.
        sigmas: what multiplies the noise.
        origin: what it was of.
    """

    latents: Float[Tensor, "steps+1 c h w"]
    alphas: Float64[Tensor, " steps+1"]
    sigmas: Float64[Tensor, " steps+1"]
    origin: Origin

    @property
    def steps(self) -> int:
        """How many steps the run had."""
        return len(self.latents) - 1

    def fits(self, schedule: Schedule) -> bool:
        """Whether its latents have the noise levels of a schedule, to six digits."""
        if self.steps != len(schedule):
            return False
        pairs = zip((self.alphas, self.sigmas), levels(schedule), strict=True)
        return all(torch.allclose(own, other, rtol=1e-6, atol=1e-6) for own, other in pairs)

    def save(self, path: Path) -> None:
        """Write it to a safetensors file, which is whole or not there.

        Raises:
            DiskError: the file system refuses.
        """
        tensors = {name: getattr(self, name) for name in NAMES}
        write_labelled(path, tensors, kind=FORMAT, label="origin", said=asdict(self.origin))

    @staticmethod
    def read(path: Path) -> Recorded:
        """From a file.

        Raises:
            ModelNotFoundError: there is none.
            UnsafeFileError: it could run code.
            CheckpointError: it is damaged, or no trajectory.
        """
        tensors, said = read_labelled(path, kind=FORMAT, label="origin", wanted=_WANTED)
        if set(tensors) != set(NAMES):
            raise CheckpointError(f"{path} is no trajectory of this version of Segue: {_WANTED}")
        latents, alphas, sigmas = (tensors[name] for name in NAMES)
        try:
            origin = Origin(**said)
        except TypeError:
            raise CheckpointError(f"{path} does not say what run it is of: {_WANTED}") from None
        if latents.ndim != 4 or not len(latents) == len(alphas) == len(sigmas) > 1 or not latents.isfinite().all():
            raise CheckpointError(f"{path} is damaged: its latents, of shape {tuple(latents.shape)}, are no whole run")
        return Recorded(latents.float(), alphas.double(), sigmas.double(), origin)


def levels(schedule: Schedule) -> tuple[Float64[Tensor, " steps+1"], Float64[Tensor, " steps+1"]]:
    """The alphas and sigmas of the latents of a run, from its first noise on."""
    now, then = schedule.now, schedule.then
    return torch.cat([now.alpha[:1], then.alpha]).double(), torch.cat([now.sigma[:1], then.sigma]).double()
