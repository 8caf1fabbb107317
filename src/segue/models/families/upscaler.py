"""Upscalers of the x4-upscaler layout: a UNet that is shown a small picture, noised by so much, beside the latents.

The picture is three more channels of the network's input, in [-1, 1]. In training it was noised at random, and the
level of the noise is a class label (conditioning augmentation: Ho et al. 2021, "Cascaded Diffusion Models",
arXiv:2106.15282, section 4). One latent stands for as many pixels a side as the factor, so that the picture has a pixel
for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from transformers import CLIPTextModel

from segue.diffusion.solvers import solver_for
from segue.errors import CheckpointError, ScheduleError
from segue.models.bundle import Defaults, LatentDiffusion, Upscaling
from segue.models.codec import AutoencoderCodec
from segue.models.denoiser import NetworkDenoiser
from segue.models.families.sd import UNetNetwork, predicting, prediction_of, read_autoencoder, read_tokenizer
from segue.models.text import ClipText
from segue.models.weights import read_json, read_network
from segue.types import Prediction

STEPS, GUIDANCE_SCALE = 75, 9.0
"""What the published upscaler is used with."""


def from_folder(
    folder: Path,
    *,
    name: str,
    device: torch.device,
    dtype: torch.dtype,
    prediction: Prediction | None = None,
    text_from: Path | None = None,
) -> LatentDiffusion:
    """An upscaler from a local folder of the diffusers layout.

    Args:
        folder: holds model_index.json and one folder per part.
        name: what to call the model.
        device: where its networks live.
        dtype: what they compute in.
        prediction: what the UNet predicts, if the scheduler configuration is wrong about it.
        text_from: the folder of the model whose text encoder and tokenizer it shares; None if it has its own.

    Raises:
        ModelNotFoundError: a part is missing.
        UnsafeFileError: a part comes as a pickle only.
        CheckpointError: a file is damaged, or the parts do not make an upscaler.
        ModelError: `prediction` is none that there is.
    """
    index, words = read_json(folder / "model_index.json"), text_from or folder
    scheduler = predicting(read_json(folder / "scheduler" / "scheduler_config.json"), prediction)
    noising = read_json(folder / "low_res_scheduler" / "scheduler_config.json")
    unet, unet_files = read_network(UNet2DConditionModel, folder / "unet", "diffusion_pytorch_model", device, dtype)
    encoder, text_files = read_network(CLIPTextModel, words / "text_encoder", "model", device, dtype)
    vae, vae_files = read_autoencoder(folder, device, dtype)
    upscaling = upscaling_of(unet, AutoencoderCodec(vae), noising, index, name)
    codec, text = AutoencoderCodec(vae), ClipText(encoder, read_tokenizer(words / "tokenizer", encoder))
    width, expected = encoder.config.hidden_size, unet.config["cross_attention_dim"]
    if width != expected:
        raise CheckpointError(f"{name}: the UNet expects text of width {expected}, the text encoder gives {width}")
    side = int(unet.config["sample_size"]) * codec.scale
    configs = (folder / "unet", words / "text_encoder", folder / "vae")
    return LatentDiffusion(
        name=name,
        text=text,
        denoiser=NetworkDenoiser(UNetNetwork(unet), prediction or prediction_of(scheduler, name)),
        codec=codec,
        scheduler=scheduler,
        defaults=Defaults((side, side), STEPS, GUIDANCE_SCALE, solver=solver_for(scheduler)),
        parts={"unet": unet, "text_encoder": encoder, "vae": vae},
        weights=tuple((file, 1.0) for file in (*unet_files, *text_files, *vae_files)),
        settings=(*(read_json(part / "config.json") for part in configs), noising),
        prediction=prediction,
        upscaling=upscaling,
        device=unet.device,
        dtype=unet.dtype,
    )


def upscaling_of(
    unet: UNet2DConditionModel,
    codec: AutoencoderCodec,
    noising: Mapping[str, Any],
    index: Mapping[str, Any],
    name: str,
) -> Upscaling:
    """How the parts enlarge, if they fit each other.

    Raises:
        CheckpointError: they do not.
    """
    channels, colours = int(unet.config["in_channels"]), 3
    if channels != codec.channels + colours:
        raise CheckpointError(
            f"{name}: an upscaler takes its {codec.channels} latents and a picture of {colours} channels, "
            f"{codec.channels + colours} in all; this UNet takes {channels}"
        )
    levels = unet.config.get("num_class_embeds")
    if not levels:
        raise CheckpointError(
            f"{name}: an upscaler is told by how much its picture is noised, and this UNet has no class embedding "
            "(num_class_embeds) for it"
        )
    trained = min(int(levels), int(noising.get("num_train_timesteps", 1000)))
    found = Upscaling(
        factor=codec.scale,
        noising=noising,
        max_noise_level=min(trained - 1, int(index.get("max_noise_level") or trained - 1)),
        # Each of its resolutions halves the one before; sides that divide need no rounding on the way back.
        grid=2 ** (len(unet.config["block_out_channels"]) - 1),
    )
    try:
        found.levels()
    except ScheduleError as error:
        raise CheckpointError(f"{name}: its low_res_scheduler makes no noise levels: {error}") from error
    return replace(found, noise_level=min(found.noise_level, found.max_noise_level))
