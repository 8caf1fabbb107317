"""Stable Diffusion 1.x and 2.x, and every model of that layout: a UNet, a CLIP text encoder and an autoencoder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from segue.diffusion.schedule import is_flow
from segue.diffusion.solvers import solver_for
from segue.errors import CheckpointError, ModelError, TaskError
from segue.models.attention import announced
from segue.models.bundle import Defaults, LatentDiffusion
from segue.models.codec import AutoencoderCodec, codec_dtype
from segue.models.denoiser import NetworkDenoiser
from segue.models.inpainting import concat_channels
from segue.models.instruction import picture_channels
from segue.models.profiles import find_profile
from segue.models.text import ClipText
from segue.models.weights import quiet, read_json, read_network
from segue.types import Call, Conditioning, Prediction

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor
    from transformers import CLIPTextModelWithProjection

    from segue.models.control import Residuals
    from segue.models.instruct_adapter import BesideUnet

GUIDANCE = "guidance"
"""What `Conditioning.extra` calls the guidance scale of each row; see `NetworkDenoiser.embeds_guidance`."""
AUTOENCODERS = {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny}
_PREDICTIONS: tuple[Prediction, ...] = ("epsilon", "v_prediction", "sample", "flow_prediction")


@dataclass(frozen=True)
class UNetNetwork:
    """A Network around UNet2DConditionModel; its input is scaled as x = alpha x0 + sigma eps.

    Args:
        unet: the network.
        instruct: what is shown the picture of `Conditioning.concat`, and adds to the UNet; None: the UNet itself is.
    """

    unet: UNet2DConditionModel
    instruct: BesideUnet | None = None

    def __call__(
        self,
        x: Float[Tensor, "b c h w"],
        time: Float[Tensor, " b"],
        cond: Conditioning,
        call: Call,
        residuals: Residuals | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """What the UNet predicts, in its own dtype and on its own device.

        Args:
            x: noisy latents.
            time: what the network is told about their noise.
            cond: text, and perhaps concat and label.
            call: who the rows are.
            residuals: what control networks add to it; see `segue.models.control`.

        Raises:
            ValueError: the conditioning has a part that this UNet has no place for.
            TaskError: a model that must be shown something was shown nothing or something else, or another was.
        """
        if self.instruct is not None:
            own, cond = self.instruct.beside(x, time, cond)
            residuals = own if residuals is None else own + residuals
        ignored = [part for part in ("text_mask", "pooled") if getattr(cond, part) is not None]
        ignored += [f"residual_inputs {name}" for name in cond.residual_inputs]
        ignored += [f"extra {name}" for name in sorted(cond.extra.keys() - taken_extra(self.unet))]
        if ignored:
            raise ValueError(f"this network takes text, concat and label; the conditioning also has {ignored[0]}")
        device, dtype = self.unet.device, self.unet.dtype
        latents = x if cond.concat is None else torch.cat([x, cond.concat.to(x)], dim=1)
        check_channels(self.unet, x.shape[1], latents.shape[1] - x.shape[1])
        with announced(call):
            return self.unet(
                latents.to(device, dtype),
                # float32 first: some accelerators have no float64, and the UNet embeds time in float32 anyway.
                time.float().to(device),
                encoder_hidden_states=cond.text.to(device, dtype),
                class_labels=cond.label,
                timestep_cond=guidance_embedding(self.unet, cond),
                return_dict=False,
                **({} if residuals is None else residuals.told(device, dtype)),
            )[0]


def taken_extra(unet: UNet2DConditionModel) -> set[str]:
    """What a UNet can be told in `Conditioning.extra`: its guidance scale, if it was distilled so."""
    return {GUIDANCE} if unet.config.get("time_cond_proj_dim") else set()


def guidance_embedding(unet: UNet2DConditionModel, cond: Conditioning) -> Float[Tensor, "b d"] | None:
    """Guidance scales as a UNet is told them that learned what guidance does; None for any other.

    Waves of the scale, counted from 1 on, as of a time (Meng et al. 2023, arXiv:2210.03142, section 3.1; Luo et al.
    2023, arXiv:2310.04378, section 4.2).

    Raises:
        ValueError: nobody told it.
    """
    width = unet.config.get("time_cond_proj_dim")
    if not width:
        return None
    if GUIDANCE not in cond.extra:
        raise ValueError("this network is told its guidance scale, and the conditioning has none")
    half = width // 2
    rates = torch.exp(torch.arange(half, dtype=torch.float32) * (-math.log(10000) / (half - 1)))
    angles = 1000 * (cond.extra[GUIDANCE].float().cpu() - 1)[:, None] * rates
    waves = torch.cat([angles.sin(), angles.cos(), angles.new_zeros(len(angles), width % 2)], dim=1)
    return waves.to(unet.device, unet.dtype)


def check_channels(unet: UNet2DConditionModel, channels: int, appended: int) -> None:
    """Raise TaskError if a UNet does not take latents of so many channels with so many appended to them."""
    taken = unet.config["in_channels"]
    if channels + appended == taken:
        return
    if taken == channels + picture_channels(channels):
        raise TaskError(
            f"this is an instruction model: it takes {taken} channels, {channels} of them latents, and needs to be "
            "shown the picture that it shall change, and nothing else; give one, or take a model that draws from words"
        )
    if not appended:
        raise TaskError(
            f"this is an inpainting model: it takes {taken} channels, {channels} of them latents, and needs to be "
            "shown a picture and a mask; give both, or take the model that it was made from"
        )
    if appended == picture_channels(channels):
        raise TaskError(
            f"this model takes {taken} channels, and the latents with a picture are {channels + appended}: it is no "
            "instruction model"
        )
    raise TaskError(
        f"this model takes {taken} channels, and the latents with a picture and a mask are {channels + appended}: it "
        "is no inpainting model; masks work with it all the same, as long as these are not appended"
    )


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
        CheckpointError: a file is damaged, or the weights are of another architecture.
    """
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    unet, unet_files = read_network(UNet2DConditionModel, folder / "unet", "diffusion_pytorch_model", device, dtype)
    encoder, text_files = read_network(CLIPTextModel, folder / "text_encoder", "model", device, dtype)
    vae, vae_files = read_autoencoder(folder, device, dtype)
    return assemble(
        unet,
        ClipText(encoder, read_tokenizer(folder / "tokenizer", encoder)),
        vae,
        scheduler,
        name=name,
        weights=(*unet_files, *text_files, *vae_files),
        settings=settings_of(folder),
        prediction=prediction,
    )


def settings_of(
    folder: Path, parts: tuple[str, ...] = ("unet", "text_encoder", "vae")
) -> tuple[Mapping[str, Any], ...]:
    """The configurations of the networks in a folder of the diffusers layout."""
    return tuple(read_json(folder / part / "config.json") for part in parts)


def read_autoencoder(
    folder: Path, device: torch.device, dtype: torch.dtype
) -> tuple[AutoencoderKL | AutoencoderTiny, tuple[Path, ...]]:
    """The autoencoder of a model folder, and its files.

    Raises:
        CheckpointError: of another kind than AutoencoderKL and AutoencoderTiny.
    """
    kind = str(read_json(folder / "model_index.json").get("vae", [None, "AutoencoderKL"])[1])
    if kind not in AUTOENCODERS:
        raise CheckpointError(f"{folder}: expected one of {', '.join(AUTOENCODERS)} as its autoencoder; got {kind}")
    vae_dtype = codec_dtype(read_json(folder / "vae" / "config.json"), dtype)
    return read_network(AUTOENCODERS[kind], folder / "vae", "diffusion_pytorch_model", device, vae_dtype)


def read_tokenizer(folder: Path, encoder: CLIPTextModel | CLIPTextModelWithProjection) -> CLIPTokenizer:
    """The tokenizer of a folder, which must fit its text encoder.

    Raises:
        CheckpointError: no tokenizer can be read, or its tokens are not those of the encoder.
    """
    try:
        with quiet():
            tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{folder} holds no CLIP tokenizer ({' '.join(str(error).split())[:200]})") from error
    known, embedded = len(tokenizer), encoder.config.vocab_size
    # A tokenizer that fails to read its files comes back with two tokens and no complaint.
    if not 2 < known <= embedded:
        raise CheckpointError(f"{folder} knows {known} tokens, its text encoder {embedded}: they are no pair")
    return tokenizer


def assemble(
    unet: UNet2DConditionModel,
    text: ClipText,
    vae: AutoencoderKL | AutoencoderTiny,
    scheduler: Mapping[str, Any],
    *,
    name: str,
    weights: tuple[Path, ...],
    settings: tuple[Mapping[str, Any], ...] = (),
    prediction: Prediction | None = None,
) -> LatentDiffusion:
    """A model from its parts, which must fit each other.

    Raises:
        CheckpointError: they do not.
        ModelError: `prediction` is none that there is.
    """
    scheduler = predicting(scheduler, prediction)
    codec = AutoencoderCodec(vae)
    if unet.config.get("addition_embed_type") is not None:
        raise CheckpointError(f"{name} has the UNet of Stable Diffusion XL, and the rest of 1.x or 2.x")
    width, expected = text.encoder.config.hidden_size, unet.config["cross_attention_dim"]
    if width != expected:
        raise CheckpointError(f"{name}: the UNet expects text of width {expected}, the text encoder gives {width}")
    beside = shown_beside(unet, codec, name)
    side, usual = int(unet.config["sample_size"]) * codec.scale, find_profile("sd")
    return LatentDiffusion(
        name=name,
        text=text,
        denoiser=NetworkDenoiser(
            UNetNetwork(unet), prediction or prediction_of(scheduler, name), embeds_guidance=bool(taken_extra(unet))
        ),
        codec=codec,
        scheduler=scheduler,
        defaults=Defaults((side, side), usual.steps, usual.guidance_scale, solver=solver_for(scheduler)),
        parts={"unet": unet, "text_encoder": text.encoder, "vae": vae},
        weights=tuple((file, 1.0) for file in weights),
        settings=settings,
        prediction=prediction,
        inpaints=beside.inpaints,
        instructs=beside.instructs,
        device=unet.device,
        dtype=unet.dtype,
    )


def predicting(scheduler: Mapping[str, Any], prediction: Prediction | None) -> Mapping[str, Any]:
    """A scheduler configuration that says what a model was said to predict; as it was, if nobody said it.

    Raises:
        ModelError: `prediction` is none that there is.
    """
    if prediction is None:
        return scheduler
    if prediction not in _PREDICTIONS:
        raise ModelError(f"prediction must be one of {', '.join(_PREDICTIONS)}; got {prediction!r}")
    # Schedules are made from the scheduler's configuration, and refuse what cannot be predicted on them.
    return {**scheduler, "prediction_type": prediction}


class Beside(NamedTuple):
    """What a UNet is shown beside the latents: what is kept of a picture and where to paint, or a whole picture."""

    inpaints: bool
    instructs: bool


def shown_beside(unet: UNet2DConditionModel, codec: AutoencoderCodec, name: str) -> Beside:
    """What a UNet must be shown beside the latents.

    Raises:
        CheckpointError: it takes neither as many channels as that, nor those of the latents alone.
    """
    channels, own = unet.config["in_channels"], codec.channels
    inpainted, instructed = own + concat_channels(own), own + picture_channels(own)
    if channels not in (own, inpainted, instructed):
        raise CheckpointError(
            f"{name}: the UNet takes {channels} channels, the autoencoder gives {own}: expected {own} (text to image), "
            f"{inpainted} (inpainting) or {instructed} (instructions)"
        )
    return Beside(channels == inpainted, channels == instructed)


def prediction_of(scheduler: Mapping[str, Any], name: str) -> Prediction:
    """What a model predicts, by its scheduler configuration.

    Raises:
        CheckpointError: it names no kind of prediction that there is, or belongs to a model of other noise levels.
    """
    kind = str(scheduler.get("_class_name", ""))
    if kind.startswith("EDM"):
        raise CheckpointError(
            f"{name} has the scheduler {kind}, whose noise levels (as of Playground 2.5) are not read"
        )
    said = "flow_prediction" if is_flow(scheduler) else str(scheduler.get("prediction_type", "epsilon"))
    if said not in _PREDICTIONS:
        raise CheckpointError(f"{name}: prediction_type must be one of {', '.join(_PREDICTIONS)}; got {said!r}")
    return said
