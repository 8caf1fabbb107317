"""Stable Diffusion XL and every model of its layout: a UNet told sizes, two CLIP text encoders, an autoencoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from segue.diffusion.solvers import solver_for
from segue.errors import CheckpointError
from segue.models.attention import announced
from segue.models.bundle import Defaults, LatentDiffusion
from segue.models.codec import AutoencoderCodec
from segue.models.denoiser import NetworkDenoiser
from segue.models.families import sd
from segue.models.profiles import find_profile
from segue.models.text import ClipPair, ClipText
from segue.models.weights import read_json, read_network
from segue.types import Call, Conditioning, Prediction

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
    from jaxtyping import Float
    from torch import Tensor
    from transformers import CLIPTokenizer

    from segue.models.control import Residuals
    from segue.models.instruct_adapter import BesideUnet

TIME_IDS = "time_ids"
"""What `Conditioning.extra` calls the sizes that the UNet is told."""
SIZES = 6
PARTS = ("unet", "text_encoder", "text_encoder_2", "vae")


@dataclass(frozen=True)
class XlNetwork:
    """A Network around the UNet of Stable Diffusion XL.

    It is told the size of the picture before training cut it, where it was cut, and the size that is wanted
    (Podell et al. 2023, arXiv:2307.01952, section 2.2): six numbers in pixels, height and top first. A row's own stand
    in `Conditioning.extra` under TIME_IDS; without them, the picture was never larger than these latents, nor cut.

    Args:
        unet: with text_time embeddings.
        scale: pixels per latent, along one side.
        instruct: what is shown the picture of `Conditioning.concat`, and adds to the UNet; None: the UNet itself is.
    """

    unet: UNet2DConditionModel
    scale: int
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
            cond: text and pooled, and perhaps sizes.
            call: who the rows are.
            residuals: what control networks add to it; see `segue.models.control`.

        Raises:
            ValueError: the conditioning lacks its pooled vector, or has a part that this UNet has no place for.
            TaskError: a model that must be shown something was shown nothing or something else, or another was.
        """
        if self.instruct is not None:
            own, cond = self.instruct.beside(x, time, cond)
            residuals = own if residuals is None else own + residuals
        ignored = [part for part in ("text_mask", "label") if getattr(cond, part) is not None]
        ignored += [f"residual_inputs {name}" for name in cond.residual_inputs]
        ignored += [f"extra {name}" for name in sorted(cond.extra.keys() - {TIME_IDS} - sd.taken_extra(self.unet))]
        if ignored or cond.pooled is None:
            raise ValueError(
                f"this network takes text, pooled, concat and {TIME_IDS}; the conditioning "
                + (f"also has {ignored[0]}" if ignored else "has no pooled")
            )
        device, dtype = self.unet.device, self.unet.dtype
        latents = x if cond.concat is None else torch.cat([x, cond.concat.to(x)], dim=1)
        sd.check_channels(self.unet, x.shape[1], latents.shape[1] - x.shape[1])
        with announced(call):
            return self.unet(
                latents.to(device, dtype),
                time.float().to(device),
                encoder_hidden_states=cond.text.to(device, dtype),
                added_cond_kwargs=beside_text(x, cond, self.scale, device, dtype),
                timestep_cond=sd.guidance_embedding(self.unet, cond),
                return_dict=False,
                **({} if residuals is None else residuals.told(device, dtype)),
            )[0]


def beside_text(
    x: Float[Tensor, "b c h w"], cond: Conditioning, scale: int, device: torch.device, dtype: torch.dtype
) -> dict[str, Tensor]:
    """What a network of this family is told beside the text: the pooled vector, and sizes; see `XlNetwork`.

    Raises:
        ValueError: the conditioning has no pooled vector, or other numbers than six sizes for each row.
    """
    if cond.pooled is None:
        raise ValueError("this network takes a pooled vector, and the conditioning has none")
    height, width = (scale * side for side in x.shape[-2:])
    sizes = cond.extra.get(TIME_IDS)
    if sizes is None:
        sizes = torch.tensor([[height, width, 0, 0, height, width]]).expand(len(x), SIZES)
    if sizes.shape != (len(x), SIZES):
        raise ValueError(f"{TIME_IDS} must be {SIZES} numbers for each of {len(x)} rows; got {tuple(sizes.shape)}")
    return {"text_embeds": cond.pooled.to(device, dtype), "time_ids": sizes.float().to(device)}


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
        CheckpointError: a refiner, a damaged file, or weights of another architecture.
    """
    index = read_json(folder / "model_index.json")
    refuse_refiner(index, str(folder))
    refuse_cosxl(index, str(folder))
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    unet, unet_files = read_network(UNet2DConditionModel, folder / "unet", "diffusion_pytorch_model", device, dtype)
    first, first_files = read_network(CLIPTextModel, folder / "text_encoder", "model", device, dtype)
    second, second_files = read_network(CLIPTextModelWithProjection, folder / "text_encoder_2", "model", device, dtype)
    vae, vae_files = sd.read_autoencoder(folder, device, dtype)
    tokenizers = sd.read_tokenizer(folder / "tokenizer", first), sd.read_tokenizer(folder / "tokenizer_2", second)
    return assemble(
        unet,
        text_of(first, second, tokenizers, index),
        vae,
        scheduler,
        name=name,
        weights=(*unet_files, *first_files, *second_files, *vae_files),
        settings=sd.settings_of(folder, PARTS),
        prediction=prediction,
    )


def refuse_refiner(index: Mapping[str, Any], name: str) -> None:
    """Raise CheckpointError if the index of a folder belongs to the second stage of Stable Diffusion XL."""
    if index.get("requires_aesthetics_score") or index.get("text_encoder", True) == [None, None]:
        raise CheckpointError(
            f"{name} is the refiner of Stable Diffusion XL, which only finishes pictures that the base model began; "
            "load the base model"
        )


def refuse_cosxl(index: Mapping[str, Any], name: str) -> None:
    """Raise CheckpointError if the index of a folder belongs to CosXL Edit, which sees pictures at another scale."""
    if index.get("is_cosxl_edit"):
        raise CheckpointError(
            f"{name} is CosXL Edit, whose noise levels and scale of the picture are its own and are not read; load an "
            "instruction model of the usual kind, such as diffusers/sdxl-instructpix2pix-768"
        )


def text_of(
    first: CLIPTextModel,
    second: CLIPTextModelWithProjection,
    tokenizers: tuple[CLIPTokenizer, CLIPTokenizer],
    index: Mapping[str, Any],
) -> ClipPair:
    """Both encoders, read where the model was taught to: one layer before the last, without its norm."""
    if first.config.max_position_embeddings != second.config.max_position_embeddings:
        raise CheckpointError("the two text encoders see prompts of different lengths: they are no pair")
    pair = (ClipText(first, tokenizers[0], 1, normed=False), ClipText(second, tokenizers[1], 1, normed=False))
    return ClipPair(*pair, empty_is_zero=bool(index.get("force_zeros_for_empty_prompt", True)))


def assemble(
    unet: UNet2DConditionModel,
    text: ClipPair,
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
    scheduler = sd.predicting(scheduler, prediction)
    codec = AutoencoderCodec(vae)
    _check_fit(unet, text, name)
    side, usual = int(unet.config["sample_size"]) * codec.scale, find_profile("sdxl")
    first, second = text.first.encoder, text.second.encoder
    beside = sd.shown_beside(unet, codec, name)
    return LatentDiffusion(
        name=name,
        text=text,
        denoiser=NetworkDenoiser(
            XlNetwork(unet, codec.scale),
            prediction or sd.prediction_of(scheduler, name),
            embeds_guidance=bool(sd.taken_extra(unet)),
        ),
        codec=codec,
        scheduler=scheduler,
        defaults=Defaults((side, side), usual.steps, usual.guidance_scale, solver=solver_for(scheduler)),
        parts={"unet": unet, "text_encoder": first, "text_encoder_2": second, "vae": vae},
        weights=tuple((file, 1.0) for file in weights),
        # What an empty prompt means is a setting as well, though none of a network.
        settings=(*settings, {"force_zeros_for_empty_prompt": text.empty_is_zero}),
        prediction=prediction,
        inpaints=beside.inpaints,
        instructs=beside.instructs,
        device=unet.device,
        dtype=unet.dtype,
    )


def _check_fit(unet: UNet2DConditionModel, text: ClipPair, name: str) -> None:
    if unet.config.get("addition_embed_type") != "text_time":
        raise CheckpointError(f"{name} has no UNet of Stable Diffusion XL: it takes no sizes and no pooled text")
    first, second = text.first.encoder.config, text.second.encoder.config
    width, expected = first.hidden_size + second.hidden_size, unet.config["cross_attention_dim"]
    if width != expected:
        raise CheckpointError(f"{name}: the UNet expects text of width {expected}, the text encoders give {width}")
    taken = int(unet.config["projection_class_embeddings_input_dim"])
    numbers = (taken - int(second.projection_dim or 0)) / unet.config["addition_time_embed_dim"]
    if numbers != SIZES:
        raise CheckpointError(f"{name}: the UNet is told {numbers:g} numbers beside the text; expected {SIZES} sizes")
