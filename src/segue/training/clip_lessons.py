"""Clips as what an image model sees of them: the latents of all their frames, encoded once."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from segue.errors import TrainingError
from segue.models.bundle import LatentDiffusion
from segue.training.clips import Clips, Taken
from segue.training.latents import latents_of


@dataclass(frozen=True)
class Lessons:
    """Clips with the latents of their frames.

    Args:
        clips: with what may be said of them.
        latents: of all frames of all clips, also of those that were kept back.
    """

    clips: Clips
    latents: Float[Tensor, "n t c h w"]

    def x0(self, taken: list[Taken]) -> Float[Tensor, "b c h w"]:
        """The latents of clips as they are played, frame by frame."""
        return torch.cat([self.latents[one.row][torch.from_numpy(one.frames)] for one in taken]).float()


def lessons(
    folder: Path, every: int, image: LatentDiffusion, out: Path, precision: torch.autocast
) -> tuple[Lessons, Lessons]:
    """What is learned from, and what is kept back.

    Args:
        folder: of clips.
        every: one of so many clips is kept back.
        image: the model whose latents they are.
        out: where latents are kept for the next sitting.
        precision: what its codec computes in.

    Raises:
        TrainingError: the clips have frames of another size than the model's, or are too few.
    """
    clips = Clips.load(folder)
    (width, height), own = clips.size, "x".join(map(str, image.defaults.size))
    if clips.size != image.defaults.size:
        raise TrainingError(f"{folder} has clips of {width}x{height}, and {image.name} draws {own}")
    if len(clips) < every:
        raise TrainingError(
            f"{folder} has {len(clips)} clips, too few to keep back every {every}th; make more, or set validation_every"
        )
    shown = json.loads((folder / "sources.json").read_text("utf-8"))["frames_sha256"]
    key = hashlib.sha256(f"{shown} {image.fingerprint}".encode()).hexdigest()
    flat = clips.frames.reshape(-1, height, width, 3)
    latents = latents_of(flat, image.codec, out / "latents.safetensors", key, precision)
    latents = latents.unflatten(0, (len(clips), clips.length))
    training, validation = (Lessons(part, latents) for part in clips.split(every))
    return training, validation
