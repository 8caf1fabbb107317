"""Text-to-video models of the layout of ModelScope's: a UNet that convolves and attends along time, told in words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers.models.unets.unet_3d_condition import UNet3DConditionModel
from transformers import CLIPTextModel

from segue.diffusion.solvers import solver_for
from segue.errors import CheckpointError
from segue.models.attention import announced
from segue.models.bundle import Defaults, LatentDiffusion, Moving
from segue.models.clip_rows import of_clips
from segue.models.codec import AutoencoderCodec
from segue.models.denoiser import NetworkDenoiser
from segue.models.families.sd import predicting, prediction_of, read_autoencoder, read_tokenizer, settings_of
from segue.models.text import ClipText
from segue.models.weights import read_json, read_network
from segue.types import Call, Conditioning, Prediction

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

STEPS, GUIDANCE_SCALE, FRAMES, FPS = 50, 9.0, 16, 8.0
"""What the published models are used with."""


@dataclass(frozen=True)
class VolumeNetwork:
    """A Network around UNet3DConditionModel: consecutive rows, as many as the call says, are one clip."""

    unet: UNet3DConditionModel

    def __call__(
        self, x: Float[Tensor, "b c h w"], time: Float[Tensor, " b"], cond: Conditioning, call: Call
    ) -> Float[Tensor, "b c h w"]:
        """What the UNet predicts, in its own dtype and on its own device.

        Raises:
            ValueError: frames of a clip are told different times or texts, or something has no place here.
        """
        ignored = [part for part in ("text_mask", "pooled", "concat", "label") if getattr(cond, part) is not None]
        ignored += [*cond.residual_inputs, *sorted(cond.extra)]
        if ignored:
            raise ValueError(f"this network takes text alone; the conditioning also has {ignored[0]}")
        unet: Any = self.unet
        device, dtype, frames = unet.device, unet.dtype, call.group
        with announced(call):
            raw = unet(
                x.to(device, dtype).unflatten(0, (-1, frames)).transpose(1, 2),
                of_clips(time.float(), frames, "time").to(device),
                encoder_hidden_states=of_clips(cond.text, frames, "text").to(device, dtype),
                return_dict=False,
            )[0]
        return raw.transpose(1, 2).flatten(0, 1)


def from_folder(
    folder: Path, *, name: str, device: torch.device, dtype: torch.dtype, prediction: Prediction | None = None
) -> LatentDiffusion:
    """A model from a local folder of the diffusers layout.

    Args:
        folder: holds model_index.json and one folder per part.
        name: what to call the model.
        device: where its networks live.
        dtype: what they compute in.
        prediction: what the UNet predicts, if the scheduler configuration is wrong about it.

    Raises:
        ModelNotFoundError: a part is missing.
        UnsafeFileError: a part comes as a pickle only.
        CheckpointError: a file is damaged, or the parts do not fit each other.
    """
    scheduler = predicting(read_json(folder / "scheduler" / "scheduler_config.json"), prediction)
    unet, unet_files = read_network(UNet3DConditionModel, folder / "unet", "diffusion_pytorch_model", device, dtype)
    encoder, text_files = read_network(CLIPTextModel, folder / "text_encoder", "model", device, dtype)
    vae, vae_files = read_autoencoder(folder, device, dtype)
    text, codec = ClipText(encoder, read_tokenizer(folder / "tokenizer", encoder)), AutoencoderCodec(vae)
    width, expected = encoder.config.hidden_size, unet.config["cross_attention_dim"]
    if width != expected:
        raise CheckpointError(f"{name}: the UNet expects text of width {expected}, the text encoder gives {width}")
    if unet.config["in_channels"] != codec.channels:
        raise CheckpointError(
            f"{name}: the UNet takes {unet.config['in_channels']} channels, the autoencoder gives {codec.channels}"
        )
    side = int(unet.config.get("sample_size") or 32) * codec.scale
    return LatentDiffusion(
        name=name,
        text=text,
        denoiser=NetworkDenoiser(VolumeNetwork(unet), prediction or prediction_of(scheduler, name)),
        codec=codec,
        scheduler=scheduler,
        defaults=Defaults((side, side), STEPS, GUIDANCE_SCALE, solver=solver_for(scheduler)),
        parts={"unet": unet, "text_encoder": encoder, "vae": vae},
        weights=tuple((file, 1.0) for file in (*unet_files, *text_files, *vae_files)),
        settings=settings_of(folder),
        prediction=prediction,
        moving=Moving(frames=FRAMES, fps=FPS, engine="frames denoised together from words (UNet3D)", one_text=True),
        device=unet.device,
        dtype=unet.dtype,
    )
