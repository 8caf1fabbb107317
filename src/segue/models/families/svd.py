"""Stable Video Diffusion: a picture becomes a clip, whose frames one network denoises together.

Blattmann et al. 2023, arXiv:2311.15127. The network is preconditioned as by Karras et al. 2022 (arXiv:2206.00364),
which in our coordinates is a prediction of v (see `segue.diffusion.schedule.is_continuous`): the first-order solver and
the loop are those of all families. It is told the picture twice: by its embedding, in place of words, and by its
latents beside those of every frame.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import AutoencoderKLTemporalDecoder
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel
from transformers import CLIPVisionModelWithProjection

from segue.diffusion.guidance import classifier_free
from segue.diffusion.solvers import solver_for
from segue.errors import CheckpointError, TaskError
from segue.models.attention import announced
from segue.models.bundle import Defaults, LatentDiffusion, Moving
from segue.models.clip_rows import of_clips
from segue.models.codec import AutoencoderCodec, codec_dtype
from segue.models.denoiser import NetworkDenoiser
from segue.models.families.sd import predicting, prediction_of, settings_of
from segue.models.image_embedding import ImageEmbedding, Squeeze
from segue.models.temporal_codec import TemporalCodec
from segue.models.weights import read_json, read_network
from segue.types import Call, Conditioning, Guided, Prediction

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

TIME_IDS = "time_ids"
"""What `Conditioning.extra` calls what each row is told in numbers: frames per second less 1, how much moves, and by
how much the picture is noised."""
STEPS, GUIDANCE_SCALE, LEAST_SCALE = 25, 3.0, 1.0
"""What the published models are used with: the scale rises from the first frame to the last."""
FPS, BUCKET, AUGMENTATION = 7.0, 127, 0.02
PUBLISHED_SIDE, PUBLISHED_SIZE = 96, (1024, 576)
"""All published models state the side, in latents, and were trained last at the size, in pixels."""
PARTS = ("unet", "image_encoder", "vae")


@dataclass(frozen=True)
class FramesNetwork:
    """A Network around UNetSpatioTemporalConditionModel: consecutive rows, as many as the call says, are one clip."""

    unet: UNetSpatioTemporalConditionModel

    def __call__(
        self, x: Float[Tensor, "b c h w"], time: Float[Tensor, " b"], cond: Conditioning, call: Call
    ) -> Float[Tensor, "b c h w"]:
        """What the UNet predicts, in its own dtype and on its own device.

        Args:
            x: noisy latents, divided by sqrt(1 + s^2).
            time: a quarter of the logarithm of s; one for all frames of a clip.
            cond: an embedding of the picture, one for all frames of a clip; its latents; and TIME_IDS.
            call: who the rows are, and how many make a clip.

        Raises:
            ValueError: frames of a clip are told different times or pictures, or something has no place here.
            TaskError: nobody showed it a picture.
        """
        ignored = [part for part in ("text_mask", "pooled", "label") if getattr(cond, part) is not None]
        ignored += [*cond.residual_inputs, *sorted(cond.extra.keys() - {TIME_IDS})]
        if ignored:
            raise ValueError(f"this network takes text, concat and {TIME_IDS}; the conditioning also has {ignored[0]}")
        if cond.concat is None or TIME_IDS not in cond.extra:
            raise TaskError(
                "this model makes clips of pictures and was shown none: see segue.models.families.svd.shown"
            )
        device, dtype = self.unet.device, self.unet.dtype
        frames = call.group
        latents = torch.cat([x, cond.concat.to(x)], dim=1).to(device, dtype)
        with announced(call):
            unet: Any = self.unet
            raw = unet(
                latents.unflatten(0, (-1, frames)),
                of_clips(time.float(), frames, "time").to(device),
                encoder_hidden_states=of_clips(cond.text, frames, "text").to(device, dtype),
                added_time_ids=of_clips(cond.extra[TIME_IDS], frames, TIME_IDS).to(device, dtype),
                return_dict=False,
            )[0]
        return raw.flatten(0, 1)


def shown(
    model: LatentDiffusion,
    picture: Float[Tensor, "3 h w"],
    frames: int,
    *,
    noise: Float[Tensor, "3 h w"],
    fps: float = FPS,
    bucket: int = BUCKET,
    augmentation: float = AUGMENTATION,
) -> Conditioning:
    """What all frames of a clip are told that begins with a picture.

    Args:
        model: of this family.
        picture: in [0, 1], of the size of the clip.
        frames: of the clip.
        noise: standard noise, which is added to the picture before its latents are taken.
        fps: frames per second, 5 to 30 in training.
        bucket: how much moves, 1 to 255 in training.
        augmentation: standard deviation of the noise, where the picture's colours go from -1 to 1: the more, the freer
            is the network to change the picture.

    Raises:
        TaskError: the size is no multiple of the codec's scale, or a number is outside of its range.
    """
    embedding, codec = model.text, model.codec
    if not isinstance(embedding, ImageEmbedding) or not isinstance(codec, AutoencoderCodec):
        raise TaskError(f"{model.name} is not of the layout of Stable Video Diffusion, which makes clips of pictures")
    if not math.isfinite(fps) or fps < 1:
        raise TaskError(f"fps must be 1 or more, got {fps:g}")
    if not 0 <= bucket <= 255:
        raise TaskError(f"the motion bucket must be from 0 to 255, got {bucket}")
    if not math.isfinite(augmentation) or augmentation < 0:
        raise TaskError(f"the noise on the picture must be 0 or more, got {augmentation:g}")
    said = embedding.shown(picture[None])
    latents = codec.unscaled(codec.encode((picture + augmentation / 2 * noise.to(picture))[None]).float())
    numbers = torch.tensor([[fps - 1, float(bucket), augmentation]], dtype=torch.float32, device=said.text.device)
    told = replace(said, concat=latents.to(said.text.device), extra={TIME_IDS: numbers})
    return told[[0] * frames]


def blank(told: Conditioning) -> Conditioning:
    """The same frames, shown no picture: zeros in the place of its embedding and of its latents."""
    assert told.concat is not None
    return replace(told, text=torch.zeros_like(told.text), concat=torch.zeros_like(told.concat))


def guided(
    model: LatentDiffusion,
    picture: Float[Tensor, "3 h w"],
    frames: int,
    *,
    noise: Float[Tensor, "3 h w"],
    scales: Float[Tensor, " t"],
    fps: float = FPS,
    bucket: int = BUCKET,
    augmentation: float = AUGMENTATION,
) -> Guided:
    """All frames of a clip that begins with a picture, guided towards it; see `shown`.

    Args:
        model: of this family.
        picture: in [0, 1], of the size of the clip.
        frames: of the clip.
        noise: standard noise, which is added to the picture.
        scales: of guidance, one for each frame; see `segue.diffusion.frame_guidance`.
        fps: frames per second.
        bucket: how much moves.
        augmentation: standard deviation of the noise.

    Raises:
        TaskError: as `shown`.
    """
    told = shown(model, picture, frames, noise=noise, fps=fps, bucket=bucket, augmentation=augmentation)
    return classifier_free(told, blank(told), scales)


def bucket_of(motion: float) -> int:
    """The motion bucket for a dial on which 1 is as much as usual, and 0 nothing.

    Raises:
        TaskError: the dial has no such place.
    """
    if not 0 <= motion <= 2:
        raise TaskError(f"motion must be from 0 to 2 for this model, got {motion:g}; 1 is as much as usual")
    return min(255, round(BUCKET * motion))


def from_folder(
    folder: Path, *, name: str, device: torch.device, dtype: torch.dtype, prediction: Prediction | None = None
) -> LatentDiffusion:
    """A model from a local folder of the diffusers layout: SVD, SVD-XT, or either's version 1.1.

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
    kind = UNetSpatioTemporalConditionModel
    unet, unet_files = read_network(kind, folder / "unet", "diffusion_pytorch_model", device, dtype)
    encoder, seen = read_network(CLIPVisionModelWithProjection, folder / "image_encoder", "model", device, dtype)
    precise = codec_dtype(read_json(folder / "vae" / "config.json"), dtype)
    stem = "diffusion_pytorch_model"
    vae, vae_files = read_network(AutoencoderKLTemporalDecoder, folder / "vae", stem, device, precise)
    squeeze = Squeeze.read(folder / "feature_extractor", encoder.config.image_size)
    model = assemble(unet, ImageEmbedding(encoder, squeeze, device), vae, scheduler, name=name)
    return replace(
        model,
        weights=tuple((file, 1.0) for file in (*unet_files, *seen, *vae_files)),
        settings=settings_of(folder, PARTS),
        prediction=prediction,
    )


def assemble(
    unet: UNetSpatioTemporalConditionModel,
    embedding: ImageEmbedding,
    vae: AutoencoderKLTemporalDecoder,
    scheduler: Mapping[str, Any],
    *,
    name: str,
) -> LatentDiffusion:
    """A model from its parts.

    Raises:
        CheckpointError: they do not fit each other.
    """
    codec, config = TemporalCodec(vae), unet.config
    own, taken = codec.channels, int(config["in_channels"])
    if taken == 2 * own + 1:
        raise CheckpointError(
            f"{name} takes {taken} channels: latents, a picture's, and a mask of the frames that are given. Models "
            f"that fill in between two frames are not read; expected {2 * own} channels, which can be given both ends"
        )
    if taken != 2 * own:
        raise CheckpointError(f"{name}: the UNet takes {taken} channels; expected {own} latents and as many shown")
    if config["cross_attention_dim"] != embedding.width:
        raise CheckpointError(
            f"{name}: the UNet expects embeddings of width {config['cross_attention_dim']}, the image encoder gives "
            f"{embedding.width}"
        )
    side = int(config.get("sample_size") or PUBLISHED_SIDE)
    size = PUBLISHED_SIZE if side == PUBLISHED_SIDE else (side * codec.scale, side * codec.scale)
    return LatentDiffusion(
        name=name,
        text=embedding,
        denoiser=NetworkDenoiser(FramesNetwork(unet), prediction_of(scheduler, name)),
        codec=codec,
        scheduler=scheduler,
        defaults=Defaults(size, STEPS, GUIDANCE_SCALE, solver=solver_for(scheduler)),
        parts={"unet": unet, "image_encoder": embedding.encoder, "vae": vae},
        weights=(),
        moving=Moving(
            frames=int(config["num_frames"]),
            fps=FPS,
            words=False,
            given=("first", "last"),
            engine="frames denoised together from a picture (Stable Video Diffusion)",
        ),
        device=unet.device,
        dtype=unet.dtype,
    )
