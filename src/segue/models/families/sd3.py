"""Stable Diffusion 3 and 3.5: a transformer told by two CLIP text encoders and, if it is there, T5."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from torch.nn.functional import pad
from transformers import CLIPTextModelWithProjection

from segue.errors import CheckpointError, TaskError
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

T5 = "text_encoder_3"
LENGTH = 256
"""Tokens of T5."""


@dataclass(frozen=True)
class Sd3Text:
    """A TextEncoder of two CLIP text models and T5 (Esser et al. 2024, arXiv:2403.03206, section 5.1.2 and figure 2).

    The tokens of both CLIP models lie side by side, filled up with zeros to the width of T5, and go before its own; the
    pooled vectors lie side by side, too.

    Args:
        first: usually CLIP ViT-L.
        second: usually OpenCLIP ViT-bigG.
        t5: None is zeros, as the model was trained to do without.
        width: of a token.
    """

    first: ClipText
    second: ClipText
    t5: T5Text | None
    width: int

    def __call__(self, prompts: Sequence[str]) -> Conditioning:
        """One row per prompt, float32.

        Raises:
            TaskError: no prompts, or one is too long for T5.
        """
        count = max(encoder.count(prompts) for encoder in (self.first, self.second))
        first, second = (encoder.read(prompts, count) for encoder in (self.first, self.second))
        tokens = torch.cat([first.tokens, second.tokens.to(first.tokens)], dim=-1)
        further = tokens.new_zeros(len(prompts), LENGTH, self.width) if self.t5 is None else self.t5(prompts).to(tokens)
        text = torch.cat([pad(tokens, (0, self.width - tokens.shape[-1])), further], dim=1)
        return Conditioning(text, pooled=torch.cat([first.pooled, second.pooled.to(first.pooled)], dim=-1))


@dataclass(frozen=True)
class Sd3Network:
    """A Network around SD3Transformer2DModel.

    Args:
        transformer: which knows the places of a square of tokens.
        scale: pixels per latent, along one side.
    """

    transformer: SD3Transformer2DModel
    scale: int

    def __call__(
        self, x: Float[Tensor, "b c h w"], time: Float[Tensor, " b"], cond: Conditioning, call: Call
    ) -> Float[Tensor, "b c h w"]:
        """The velocity, in the transformer's own dtype and on its own device.

        Raises:
            ValueError: the conditioning lacks a part, or has one that this transformer has no place for.
            TaskError: the picture is larger than it can be.
        """
        check_told(cond)
        assert cond.pooled is not None
        patch, most = (int(self.transformer.config[key]) for key in ("patch_size", "pos_embed_max_size"))
        height, width = x.shape[-2:]
        if max(height, width) > patch * most:
            raise TaskError(
                f"width and height must be at most {patch * most * self.scale} for this model, "
                f"got {width * self.scale}x{height * self.scale}"
            )
        device, dtype = self.transformer.device, self.transformer.dtype
        with announced(replace(call, text_tokens=cond.text.shape[1])):
            return self.transformer(
                x.to(device, dtype),
                encoder_hidden_states=cond.text.to(device, dtype),
                pooled_projections=cond.pooled.to(device, dtype),
                timestep=time.float().to(device),
                return_dict=False,
            )[0]


def from_folder(
    folder: Path, *, name: str, device: torch.device, dtype: torch.dtype, prediction: Prediction | None = None
) -> LatentDiffusion:
    """A model from a local folder of the diffusers layout; its T5 encoder, if it has one, waits in main memory.

    Args:
        folder: holds model_index.json and one folder per part; text_encoder_3 may be left out.
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
    transformer, files = read_transformer(SD3Transformer2DModel, folder, device, dtype)
    clips = tuple(_read_clip(folder, number, device, dtype) for number in ("", "_2"))
    named = (read_json(folder / "model_index.json").get(T5) or (None, None))[1] is not None
    there = named and (folder / T5).is_dir()
    t5, t5_files = read_t5(folder, T5, LENGTH, device, dtype) if there else (None, ())
    vae, vae_files = sd.read_autoencoder(folder, device, dtype)
    text = Sd3Text(clips[0][0], clips[1][0], t5, int(transformer.config["joint_attention_dim"]))
    codec = AutoencoderCodec(vae)
    check_parts(transformer, text, codec.channels, name)
    encoders = {"text_encoder": text.first.encoder, "text_encoder_2": text.second.encoder}
    parts = {"transformer": transformer, **encoders, **({T5: t5.encoder} if t5 else {}), "vae": vae}
    side = int(transformer.config["sample_size"]) * codec.scale
    return LatentDiffusion(
        name=name,
        text=text,
        denoiser=NetworkDenoiser(Sd3Network(transformer, codec.scale), "flow_prediction"),
        codec=codec,
        scheduler=scheduler,
        defaults=defaults(side),
        parts=parts,
        weights=tuple((file, 1.0) for file in (*files, *clips[0][1], *clips[1][1], *t5_files, *vae_files)),
        settings=sd.settings_of(folder, tuple(parts)),
        prediction=prediction,
        device=device,
        dtype=dtype,
        patch=int(transformer.config["patch_size"]),
        waiting=(T5,) if t5 else (),
    )


def _read_clip(
    folder: Path, number: str, device: torch.device, dtype: torch.dtype
) -> tuple[ClipText, tuple[Path, ...]]:
    """One of the CLIP encoders, read one layer before the last, without its norm."""
    part = folder / f"text_encoder{number}"
    encoder, files = read_network(CLIPTextModelWithProjection, part, "model", device, dtype)
    return ClipText(encoder, sd.read_tokenizer(folder / f"tokenizer{number}", encoder), 1, normed=False), files


def defaults(side: int) -> Defaults:
    """What models of so many pixels a side are used with."""
    return Defaults(size=(side, side), steps=28, guidance_scale=7.0, solver="euler")


def check_parts(transformer: SD3Transformer2DModel, text: Sd3Text, channels: int, name: str) -> None:
    """Raise CheckpointError if a transformer is not for these latents, tokens and pooled vectors."""
    clips = [clip.encoder.config for clip in (text.first, text.second)]
    side_by_side = sum(int(config.hidden_size) for config in clips)
    pairs = [
        ("latents of as many channels as", int(transformer.config["in_channels"]), channels),
        ("pooled vectors of the width", int(transformer.config["pooled_projection_dim"]), sum(map(_pooled, clips))),
        ("tokens of the width", text.width, text.width if text.t5 is None else text.t5.width),
        ("tokens of CLIP no wider than", text.width, max(side_by_side, text.width)),
    ]
    for what, wanted, given in pairs:
        if wanted != given:
            raise CheckpointError(f"{name}: the transformer expects {what} {wanted}; its other parts give {given}")


def _pooled(config: object) -> int:
    return int(getattr(config, "projection_dim", 0))
