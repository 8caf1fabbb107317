"""What a family file returns: a whole latent diffusion model as one value."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segue.errors import ScheduleError, TaskError
from segue.models.denoiser import NetworkDenoiser
from segue.models.placement import Placement
from segue.types import Codec, Prediction, TextEncoder

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float
    from torch import Tensor

    from segue.diffusion.levels import Levels
    from segue.diffusion.schedule import Schedule
    from segue.models.preview import Preview


@dataclass(frozen=True)
class Defaults:
    """What a model is used with unless somebody says otherwise.

    Args:
        size: (width, height) in pixels.
        steps: of the schedule.
        guidance_scale: 1 is unguided.
        guidance_start: share of the run, in [0, 1), before guidance sets in.
        solver: a name of `segue.diffusion.solvers`.
        picture_scale: guidance towards the picture that a model is shown which follows instructions.
    """

    size: tuple[int, int]
    steps: int = 30
    guidance_scale: float = 7.5
    guidance_start: float = 0.0
    solver: str = "ddim"
    picture_scale: float = 1.5


@dataclass(frozen=True)
class Upscaling:
    """How an upscaler is shown the small picture that it enlarges.

    Args:
        factor: pixels of the result to one of the picture, along a side.
        noising: the scheduler configuration whose trained levels noise the picture.
        max_noise_level: the highest of these that the network was trained on.
        noise_level: the usual one.
        grid: sides of the picture are multiples of it.
    """

    factor: int
    noising: Mapping[str, Any]
    max_noise_level: int = 350
    noise_level: int = 20
    grid: int = 1

    def levels(self) -> Levels:
        """All levels of noise.

        Raises:
            ScheduleError: the configuration makes none.
        """
        from segue.diffusion.betas import training_levels

        return training_levels(self.noising)

    def shown(
        self, pictures: Float[Tensor, "t 3 h w"], noise: Float[Tensor, "3 h w"], level: int
    ) -> Float[Tensor, "t 3 h w"]:
        """Pictures in [0, 1] as the network is shown them: in [-1, 1], noised by one field for all.

        Raises:
            TaskError: the network does not know this level.
        """
        if not 0 <= level <= self.max_noise_level:
            raise TaskError(f"noise_level must be between 0 and {self.max_noise_level} for this upscaler, got {level}")
        levels = self.levels()
        return float(levels.alpha[level]) * (2 * pictures - 1) + float(levels.sigma[level]) * noise


@dataclass(frozen=True)
class Moving:
    """What a model can do whose rows are the frames of a clip, denoised together.

    Args:
        frames: how many it usually makes at once.
        fps: frames per second that it usually makes them for.
        most: the longest clip that it can look at as a whole; None if any can be.
        words: whether it is told in words what to show.
        given: which frames of a clip it can be shown as pictures: "first", "last".
        engine: what people call the way in which it makes frames agree.
        shared_noise: share of the noise's variance that the frames of a clip have in common; see
            `segue.diffusion.starts.from_clip_seed`.
        from_still: whether it sets a picture in motion, so that a clip of words alone begins with one that is drawn.
        strength: of such a model, the share of a run, in (0, 1], in which frames are drawn anew that were carried along
            their way; 1 draws them from noise alone.
        dial: whether each frame can be told how strongly it moves; see `segue.models.clip_rows.DIAL`.
        one_text: whether all frames that are denoised together are told the same words.
    """

    frames: int
    fps: float
    most: int | None = None
    words: bool = True
    given: tuple[str, ...] = ()
    engine: str = ""
    shared_noise: float = 0.0
    from_still: bool = False
    strength: float = 1.0
    dial: bool = False
    one_text: bool = False


@dataclass(frozen=True)
class LatentDiffusion:
    """A latent diffusion model: text in, a denoiser of latents, pictures out.

    Args:
        name: what the user called it: a hub id, a file or folder name, an embedded model.
        text: prompts to conditioning.
        denoiser: latents to x0.
        codec: latents to pictures and back.
        parts: its networks, by the names of the diffusers layout: unet, text_encoder, vae; and control networks.
        scheduler: the checkpoint's scheduler configuration, as diffusers writes it; read, never stepped.
        defaults: size, steps, guidance scale and solver that suit it.
        weights: the files that its numbers came from, each with the scale at which it was merged (1 for the base), or
            the text of the curve that its scale follows.
        device: where its networks live.
        dtype: what its networks compute in.
        loras: the LoRA files among `weights`, with their scales, in the order in which they were added.
        settings: the configurations of its networks, as their files state them.
        prediction: what the network was said to predict when the model was loaded; None if its files decided.
        config: the folder that a single file was read with; None if it came with Segue.
        inpaints: whether it must be shown a picture and a mask; see `segue.models.inpainting`.
        instructs: whether it must be shown the picture that it changes; see `segue.models.instruction`.
        upscaling: how it is shown what it enlarges; None for a model that makes pictures from words.
        moving: what it can do with the frames of a clip together; None for a model of single pictures.
        adapter: the motion adapter that lets it: an absolute path, or a hub repository; None if it has none.
        instruct_adapter: the file by which it follows instructions, an absolute path; None if none was given.
        placement: how its networks are kept and run.
        patch: latents per token along one side, where a transformer reads them as tokens; else 1.
        waiting: the parts that stay in main memory, and come to the device by themselves while they work.
        family: its module of `segue.models.families`; "" if it was put together by hand.
        profile: which of `segue.models.profiles` its defaults are those of; None if they are its family's or a card's.
        preview: a small decoder of its latents; None if nobody asked for one.
        vocabulary: the things that it can draw; empty if nobody knows.
        words: what else it understands, by kind: colours, styles, places.
    """

    name: str
    text: TextEncoder
    denoiser: NetworkDenoiser
    codec: Codec
    parts: Mapping[str, torch.nn.Module]
    scheduler: Mapping[str, Any]
    defaults: Defaults
    weights: tuple[tuple[Path, float | str], ...]
    device: torch.device
    dtype: torch.dtype
    loras: tuple[tuple[Path, float | str], ...] = ()
    settings: tuple[Mapping[str, Any], ...] = ()
    prediction: Prediction | None = None
    config: Path | None = None
    inpaints: bool = False
    instructs: bool = False
    upscaling: Upscaling | None = None
    moving: Moving | None = None
    adapter: str | None = None
    instruct_adapter: str | None = None
    placement: Placement = field(default_factory=Placement)
    patch: int = 1
    waiting: tuple[str, ...] = ()
    family: str = ""
    profile: str | None = None
    preview: Preview | None = None
    vocabulary: tuple[str, ...] = ()
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])

    def schedule(
        self, steps: int, size: tuple[int, int], *, solver: str | None = None, mu: float | None = None
    ) -> Schedule:
        """The noise schedule for `steps` steps of a solver (the model's own if None) on pictures of `size`.

        Args:
            steps: network evaluations.
            size: (width, height) in pixels; families whose noise depends on the size use it.
            solver: a name of `segue.diffusion.solvers`, which decides the times that are visited.
            mu: the shift of flow models that ask for one; None computes it from the size.

        Raises:
            ScheduleError: the settings make no schedule.
        """
        from segue.diffusion.schedule import Schedule, is_flow, resolution_shift
        from segue.diffusion.solvers import find_solver

        grid = find_solver(solver or self.defaults.solver).grid
        try:
            if mu is None and is_flow(self.scheduler) and self.scheduler.get("use_dynamic_shifting"):
                mu = resolution_shift(self.scheduler, (size[0] // self.grid) * (size[1] // self.grid))
            return Schedule.from_config(self.scheduler, steps, grid=grid, mu=mu)
        except TypeError as error:
            raise ScheduleError(f"the scheduler of {self.name} says what cannot be: {error}") from error

    @property
    def grid(self) -> int:
        """Width and height of a picture are multiples of it."""
        return self.codec.scale * self.patch

    @property
    def backbone(self) -> torch.nn.Module | None:
        """The network that denoises, whatever its kind."""
        return self.parts.get("unet") or self.parts.get("transformer")

    def refuse_negative(self, prompts: Sequence[str]) -> None:
        """Raise TaskError if there are negative prompts, and nothing that could hear them."""
        said = next((prompt for prompt in prompts if prompt.strip()), None)
        if said is not None and self.denoiser.embeds_guidance:
            raise TaskError(
                f"{self.name} is told its guidance scale as a number, and never what is not wanted: negative prompts "
                f"have no effect on such a model. Leave {said!r} out"
            )

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over all that its answers depend on; computed when first asked for.

        That is, in this order: the contents and scales of the weight files, what the network predicts, the scheduler's
        configuration, those of the networks, and what weights are stored as, if in fewer bits. Where these lie, and
        which version wrote them, is no part of it.
        """
        digest = hashlib.sha256()
        for path, scale in self.weights:
            with path.open("rb") as file:
                said = repr(scale if isinstance(scale, str) else float(scale))
                digest.update(hashlib.file_digest(file, "sha256").digest() + said.encode())
        digest.update(self.denoiser.prediction.encode())
        for config in (self.scheduler, *self.settings):
            kept = {key: value for key, value in config.items() if key == "_class_name" or not _is_note(key)}
            digest.update(json.dumps(kept, sort_keys=True).encode())
        digest.update((self.placement.storage or "").encode())
        return digest.hexdigest()

    @property
    def lora_curves(self) -> tuple[str, ...]:
        """The curves of those LoRAs whose scale changes over a film; see `segue.models.lora_rows`."""
        return tuple(scale for _, scale in self.loras if isinstance(scale, str))

    def batched(self, max_batch: int, *, deterministic: bool = False) -> LatentDiffusion:
        """The same model with another bound on the network rows of one call.

        Raises:
            TaskError: max_batch is below the rows that the model must see together.
        """
        return replace(self, denoiser=replace(self.denoiser, max_batch=max_batch, deterministic_batch=deterministic))

    def over(self, frames: int) -> LatentDiffusion:
        """The same model, every `frames` consecutive rows of which are one clip; a call takes whole clips.

        Args:
            frames: of a clip; 1 makes single pictures, as the model of these does.

        Raises:
            TaskError: the model makes single pictures only, or cannot look at so many frames at once.
        """
        if frames < 1:
            raise TaskError(f"a clip must have at least one frame, got {frames}")
        if self.moving is None and frames > 1:
            raise TaskError(
                f"{self.name} makes single pictures; expected a model whose frames are denoised together, or one frame"
            )
        if self.moving is not None and self.moving.most is not None and frames > self.moving.most:
            raise TaskError(
                f"{self.name} can look at {self.moving.most} frames at once, got {frames}: make a longer clip in parts"
            )
        most = max(self.denoiser.max_batch, frames)
        return replace(self, denoiser=replace(self.denoiser, group=frames, max_batch=most))


def _is_note(key: str) -> bool:
    """Whether an entry of a configuration says who wrote it, or where it lay."""
    return key.startswith("_") or key == "transformers_version"
