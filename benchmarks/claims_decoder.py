"""The decoder along time of `claims.py`: taught as by `segue train time_decoder`, and measured on clips kept back.

Three ways, and the decoder as it is:

    decoder: image      that of `emoji`, frame by frame
    decoder: frames     the same layers, taught as long on the same frames, each of which is a clip of its own
    decoder: clips      they see the frames before and after
    decoder: against    and a discriminator of patches of clips joins in half-way

The second has learned what sprites look like, and knows nothing of time: only what the third is better by is time's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from claims_data import Data
from jaxtyping import Float
from sprites import FRAMES, errors, pictures
from torch import Tensor

from segue.evaluation.frechet_video import frechet_video_distance
from segue.media.clip import TensorFrames
from segue.models.codec import AutoencoderCodec
from segue.models.perceptual import EfficientNetFeatures
from segue.models.time_decoder import TimeCodec, with_time_decoder
from segue.training.adversary_time import ClipDiscriminator
from segue.training.checkpoint import Learner
from segue.training.data import step_generator, step_rng
from segue.training.losses import psnr
from segue.training.ranks import Ranks
from segue.training.rates import set_rate, trapezoid
from segue.training.recipes.time_decoder import flicker, learn

DECODED = "decoder"
CLIPS, JUDGED, BATCH, NOISE = 192, 64, 2, 0.05
LOUD, CHANGES = 0.3, 1.0


def decoder_run(data: Data, features: EfficientNetFeatures, seed: int, steps: int) -> dict[str, Any]:
    """What is measured of every way, by its name."""
    codec = data.codec
    assert isinstance(codec, AutoencoderCodec)
    codec.vae.requires_grad_(False)
    shots = data.shots("kept").first(JUDGED)
    real, latents = pictures(shots), data.part("kept").latents[: len(shots)].float()
    velocities = shots.velocities()

    def measured(made: Sequence[Tensor]) -> dict[str, float]:
        clips = torch.stack(list(made))
        films = [[TensorFrames.rounded(clip) for clip in each] for each in (clips, real)]
        return {
            "psnr": psnr(clips.flatten(0, 1), real.flatten(0, 1)),
            "flicker": flicker(clips, real),
            "motion": float(errors(clips, velocities).mean()),
            "distance": frechet_video_distance(films[0], films[1], features, length=FRAMES).value,
        }

    with torch.no_grad():
        ways = {f"{DECODED}: image": measured([codec.decode(clip) for clip in latents])}
    seen = taught_on(data)
    for name, frames, rival in (("frames", 1, False), ("clips", FRAMES, False), ("against", FRAMES, True)):
        made = taught(codec, seen, data, seed, steps, frames, rival)
        with torch.no_grad():
            decoded = [made.learning(clip, frames).clamp(0, 1) for clip in latents]
        ways[f"{DECODED}: {name}"] = measured(decoded)
    return {"ways": ways}


def taught_on(data: Data) -> Float[Tensor, "n t 3 h w"]:
    """The frames of the first of many clips."""
    shots = data.shots("plenty")
    return pictures(shots.first(min(CLIPS, len(shots))))


def taught(
    codec: AutoencoderCodec, seen: Float[Tensor, "n t 3 h w"], data: Data, seed: int, steps: int, frames: int,
    adversarial: bool,
) -> TimeCodec:  # fmt: skip
    """A codec whose layers along time learned from clips of so many frames each."""
    torch.manual_seed(seed)
    made = with_time_decoder(codec)
    made.layers.requires_grad_(True)
    parameters = list(made.layers.parameters())
    optimizer = torch.optim.AdamW(parameters, 2e-3, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    rival, latents = opponent() if adversarial else None, data.part("plenty").latents
    for step in range(steps):
        rows = torch.from_numpy(step_rng(seed, step).integers(len(seen), size=BATCH))
        x0 = latents[rows].float()
        x0 = x0 + NOISE * torch.randn(x0.shape, generator=step_generator(seed, step))
        set_rate(optimizer, 2e-3 * trapezoid(step, steps, min(50, steps), max(1, steps // 3)))
        loud = LOUD * min(1.0, max(0.0, (step - steps / 2) / 50))
        plain = torch.autocast("cpu", enabled=False)
        learn(made, rival, seen[rows], x0, loud, CHANGES, plain, Ranks.start("cpu"), frames)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    made.layers.requires_grad_(False)
    return made


def opponent() -> Learner:
    """A discriminator that knows nothing yet."""
    rival = ClipDiscriminator(16)
    return Learner(rival, torch.optim.AdamW(rival.parameters(), 1e-3, betas=(0.5, 0.9), weight_decay=0.0, fused=True))
