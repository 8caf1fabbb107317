"""FLUX and every model of its layout: a transformer over packed latents, told by T5 what and by CLIP roughly what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from transformers import CLIPTextModel

from segue.errors import CheckpointError
from segue.models.attention import announced
from segue.models.bundle import Defaults, LatentDiffusion
from segue.models.codec import AutoencoderCodec
from segue.models.denoiser import NetworkDenoiser
from segue.models.families import sd
from segue.models.text import ClipText
from segue.models.text_t5 import T5Text, read_t5
from segue.models.transformer import check_flow, check_told, read_transformer
from segue.models.weights import read_json, read_network
from segue.types import Call, Conditioning, Prediction

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

PATCH = 2
PARTS = ("transformer", "text_encoder", "text_encoder_2", "vae")
LENGTHS = {True: 512, False: 256}
"""Tokens of T5, for networks that are told their guidance scale (dev) and others (schnell)."""


def packed(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n 4c"]:
    """Latents as tokens, one for each patch of 2x2."""
    rows, channels, height, width = x.shape
    patches = x.reshape(rows, channels, height // PATCH, PATCH, width // PATCH, PATCH)
    return patches.permute(0, 2, 4, 1, 3, 5).reshape(rows, -1, channels * PATCH**2)


def unpacked(tokens: Float[Tensor, "b n 4c"], height: int, width: int) -> Float[Tensor, "b c h w"]:
    """The latents that tokens were made of."""
    patches = tokens.reshape(len(tokens), height // PATCH, width // PATCH, -1, PATCH, PATCH)
    return patches.permute(0, 3, 1, 4, 2, 5).reshape(len(tokens), -1, height, width)


@dataclass(frozen=True)
class FluxText:
    """A TextEncoder of T5's tokens and CLIP's pooled vector.

    Of a prompt beyond CLIP's 77 tokens, the pooled vector tells the beginning; T5 reads all of it. Weights act on T5.

    Args:
        clip: the pooled vector is all that is used.
        t5: the tokens.
    """

    clip: ClipText
    t5: T5Text

    def __call__(self, prompts: Sequence[str]) -> Conditioning:
        """One row per prompt, float32.

        Raises:
            TaskError: no prompts, or one is too long for T5.
        """
        return Conditioning(self.t5(prompts), pooled=self.clip.read(prompts).pooled)


@dataclass(frozen=True)
class FluxNetwork:
    """A Network around FluxTransformer2DModel: latents are packed, and places numbered, in here."""

    transformer: FluxTransformer2DModel

    def __call__(
        self, x: Float[Tensor, "b c h w"], time: Float[Tensor, " b"], cond: Conditioning, call: Call
    ) -> Float[Tensor, "b c h w"]:
        """The velocity, in the transformer's own dtype and on its own device. Sides of `x` must be even.

        Raises:
            ValueError: the conditioning lacks a part, or has one that this transformer has no place for.
        """
        embeds = bool(self.transformer.config["guidance_embeds"])
        check_told(cond, frozenset({"guidance"} if embeds else ()))
        assert cond.pooled is not None
        device, dtype = self.transformer.device, self.transformer.dtype
        height, width = x.shape[-2:]
        words = cond.text.shape[1]
        with announced(replace(call, text_tokens=words)):
            tokens = self.transformer(
                packed(x).to(device, dtype),
                encoder_hidden_states=cond.text.to(device, dtype),
                pooled_projections=cond.pooled.to(device, dtype),
                # The transformer multiplies both by 1000 again.
                timestep=time.float().to(device) / 1000,
                guidance=cond.extra["guidance"].float().to(device) if embeds else None,
                img_ids=_places(height // PATCH, width // PATCH).to(device, dtype),
                txt_ids=torch.zeros(words, 3, device=device, dtype=dtype),
                return_dict=False,
            )[0]
        return unpacked(tokens, height, width)


def _places(height: int, width: int) -> Float[Tensor, "n 3"]:
    """Row and column of each token of a picture, after a number that is always 0."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).reshape(-1, 3).float()


def from_folder(
    folder: Path, *, name: str, device: torch.device, dtype: torch.dtype, prediction: Prediction | None = None
) -> LatentDiffusion:
    """A model from a local folder of the diffusers layout; its T5 encoder waits in main memory.

    Args:
        folder: holds model_index.json and one folder per part.
        name: what to call the model.
        device: where its networks work.
        dtype: what they compute in; T5 in bfloat16, if that is half precision.
        prediction: can only be "flow_prediction".

    Raises:
        ModelNotFoundError: a part is missing.
        UnsafeFileError: a part comes as a pickle only.
        CheckpointError: a file is damaged, or the weights are of another architecture.
        ModelError: another prediction was asked for.
    """
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    check_flow(prediction, scheduler, name)
    transformer, files = read_transformer(FluxTransformer2DModel, folder, device, dtype)
    embeds = bool(transformer.config["guidance_embeds"])
    clip, clip_files = read_network(CLIPTextModel, folder / "text_encoder", "model", device, dtype)
    t5, t5_files = read_t5(folder, "text_encoder_2", LENGTHS[embeds], device, dtype)
    vae, vae_files = sd.read_autoencoder(folder, device, dtype)
    codec = AutoencoderCodec(vae)
    check_parts(transformer.config, codec.channels, t5.width, int(clip.config.hidden_size), name)
    return LatentDiffusion(
        name=name,
        text=FluxText(ClipText(clip, sd.read_tokenizer(folder / "tokenizer", clip)), t5),
        denoiser=NetworkDenoiser(FluxNetwork(transformer), "flow_prediction", embeds_guidance=embeds),
        codec=codec,
        # Its pipelines go in equal steps to the data, whatever the configuration says.
        scheduler={**scheduler, "timestep_spacing": "trailing"},
        defaults=defaults(embeds, scheduler, int(vae.config["sample_size"])),
        parts={"transformer": transformer, "text_encoder": clip, "text_encoder_2": t5.encoder, "vae": vae},
        weights=tuple((file, 1.0) for file in (*files, *clip_files, *t5_files, *vae_files)),
        settings=sd.settings_of(folder, PARTS),
        prediction=prediction,
        device=device,
        dtype=dtype,
        patch=PATCH,
        waiting=("text_encoder_2",),
    )


def defaults(embeds: bool, scheduler: Mapping[str, Any], side: int) -> Defaults:
    """A schedule that is never shifted is that of a model distilled to few steps without guidance (schnell)."""
    if not embeds and not scheduler.get("use_dynamic_shifting"):
        return Defaults(size=(side, side), steps=4, guidance_scale=1.0, solver="euler")
    return Defaults(size=(side, side), steps=28, guidance_scale=3.5, solver="euler")


def check_parts(config: Mapping[str, Any], channels: int, width: int, pooled: int, name: str) -> None:
    """Raise CheckpointError if a transformer is not for these latents, tokens and pooled vectors."""
    taken = int(config["in_channels"])
    if taken != channels * PATCH**2:
        raise CheckpointError(
            f"{name}: the transformer takes {taken} channels, the autoencoder gives {channels} in patches of {PATCH}x"
            f"{PATCH}: expected {channels * PATCH**2}. FLUX Fill, Control and Redux are not read; take the model that "
            "makes pictures from words alone"
        )
    for what, wanted, given in (
        ("tokens of T5", int(config["joint_attention_dim"]), width),
        ("a pooled vector", int(config["pooled_projection_dim"]), pooled),
    ):
        if wanted != given:
            raise CheckpointError(
                f"{name}: the transformer expects {what} of width {wanted}; its encoder gives {given}"
            )
