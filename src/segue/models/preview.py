"""Small decoders beside a model's own: quick pictures of the same latents, to look at, to measure, or for all frames.

They have the layout of AutoencoderTiny, which is that of TAESD (https://github.com/madebyollin/taesd); of their files
only the decoder is read. Latents are scaled by the small decoder's own configuration, not by that of the model's: TAESD
takes them as the denoiser leaves them, and says so with a scaling_factor of 1 and a shift_factor of 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from safetensors.torch import load_file

from segue.errors import CheckpointError, ModelError
from segue.models.capacity import memory_of
from segue.models.codec import AutoencoderCodec, codec_dtype
from segue.models.decoding import tiled
from segue.models.families import FAMILIES
from segue.models.hub import download_network, parse_repository, place_of_network
from segue.models.weights import MISFITS, freeze, quiet, read_json, weight_files

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from segue.models.bundle import LatentDiffusion
    from segue.types import Codec

AUTO = "auto"
"""The small decoder that comes with a model, or else the one that is published for its family."""

Use = Literal["shown", "measured", "frames"]


@dataclass(frozen=True)
class Preview:
    """A model's small decoder.

    Args:
        source: as the user gave it; local paths are absolute.
        codec: decodes, and cannot encode.
        use: what it is used for. "shown": pictures that are looked at before, or beside, those of the film; "measured":
            these, and those by which a tree grows; "frames": every picture.
    """

    source: str
    codec: Codec
    use: Use


@dataclass(frozen=True)
class QuickCodec:
    """A model's own encoder, and a small decoder in place of its own.

    Args:
        own: the model's.
        quick: the small one, of the same latents.
    """

    own: Codec
    quick: Codec

    @property
    def scale(self) -> int:
        """Pixels per latent, along one side."""
        return self.own.scale

    @property
    def channels(self) -> int:
        """Channels of the latents."""
        return self.own.channels

    def encode(self, frames: Float[Tensor, "t 3 h w"]) -> Float[Tensor, "t c h/s w/s"]:
        """As the model's own."""
        return self.own.encode(frames)

    def decode(self, latents: Float[Tensor, "t c h/s w/s"]) -> Float[Tensor, "t 3 h w"]:
        """Latents to pictures in [0, 1], float32, by the small decoder."""
        return self.quick.decode(latents)


def with_preview(
    model: LatentDiffusion, source: str | Path, use: Use = "shown", *, tile: int | None = None
) -> LatentDiffusion:
    """The model with a small decoder for its latents, on its device.

    Args:
        model: placed already.
        source: a folder, or a hub repository, of the layout of AutoencoderTiny; "auto" is that of the model's family.
        use: what it is for; see `Preview`.
        tile: side in pixels of the largest picture that it decodes in one piece; None chooses it by prediction.

    Raises:
        ModelError: it is made for other latents, there is none for this model, or `use` is none that there is.
        ModelNotFoundError: nothing is there.
        ModelAccessError: the hub refuses, or cannot be reached.
        UnsafeFileError: a pickle.
        CheckpointError: damaged, or of another layout.
    """
    if use not in get_args(Use):
        raise ModelError(f"preview_for must be one of {', '.join(get_args(Use))}; got {use!r}")
    found = _published(model) if str(source) == AUTO else source
    _check_family(model, str(found))
    folder = _located(found)
    config = read_json(folder / "config.json")
    codec, files = read_preview(folder, model.device, codec_dtype(config, model.dtype))
    _check_latents(model, codec, str(source))
    codec = tiled(codec, tile, memory_of(model.device).total)
    here = Path(found).expanduser()
    preview = Preview(str(here.absolute()) if here.exists() else str(found), codec, use)
    if use != "frames":
        return replace(model, preview=preview)
    return replace(
        model,
        preview=preview,
        codec=QuickCodec(model.codec, codec),
        weights=(*model.weights, *((file, 1.0) for file in files)),
        settings=(*model.settings, config),
    )


def read_preview(folder: Path, device: torch.device, dtype: torch.dtype) -> tuple[AutoencoderCodec, tuple[Path, ...]]:
    """A codec that decodes, from the folder of an AutoencoderTiny, and its files. An encoder in them is not read.

    Raises:
        ModelNotFoundError: there is no such folder, or it has no weights.
        UnsafeFileError: it has pickles only.
        CheckpointError: it is of another layout, or damaged.
    """
    config = read_json(folder / "config.json")
    if (kind := config.get("_class_name")) != AutoencoderTiny.__name__:
        raise CheckpointError(f"{folder} is no small decoder: expected an AutoencoderTiny, got {kind}")
    _, files = weight_files(folder, "diffusion_pytorch_model", dtype)
    tensors = {name: value for file in files for name, value in load_file(file).items() if name.startswith("decoder.")}
    try:
        vae = decoder_alone(config)
        _check_scale(vae.config)
        vae.load_state_dict(tensors)
    except MISFITS as error:
        raise CheckpointError(
            f"{folder} does not hold the decoder that its config.json describes: {' '.join(str(error).split())[:300]}"
        ) from error
    freeze(vae, device, dtype)
    return AutoencoderCodec(vae), files


def _check_scale(config: Mapping[str, Any]) -> None:
    """Of its latents: nothing else reads these two numbers before pictures are decoded.

    Raises:
        ValueError: the scale is no number above 0, or there is a shift that is none; or they are not finite.
    """
    most = torch.finfo(torch.float32).max
    values = {"scaling_factor": (config["scaling_factor"], 0.0), "shift_factor": (config["shift_factor"] or 0, -most)}
    for name, (value, least) in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not least < value < most:
            raise ValueError(f"{name} must be a finite number{'' if least else ' above 0'}, got {value!r}")


def decoder_alone(config: Mapping[str, Any]) -> AutoencoderTiny:
    """An untrained AutoencoderTiny of that configuration, without its encoder."""
    with quiet():
        vae: Any = AutoencoderTiny.from_config(dict(config))
    vae.encoder = torch.nn.Identity()
    return vae


def published() -> dict[str, str]:
    """Families that small decoders are published for, by the hub repository of these."""
    return {family.preview: family.name for family in FAMILIES if family.preview}


def _published(model: LatentDiffusion) -> str:
    found = next((family.preview for family in FAMILIES if family.module == model.family), "")
    if not found:
        raise ModelError(
            f"there is no small decoder for the latents of {model.name}: name one, or train it (segue train preview)"
        )
    return found


def _check_family(model: LatentDiffusion, source: str) -> None:
    """Four channels say nothing about whose latents these are; what is published is known by its name."""
    repository = parse_repository(source)
    made_for = published().get(repository.id) if repository and not Path(source).expanduser().exists() else None
    family = next((family for family in FAMILIES if family.module == model.family), None)
    if made_for is not None and family is not None and made_for != family.name:
        other = f"take {family.preview}" if family.preview else "none is published for it"
        raise ModelError(f"{source} decodes latents of {made_for}, and {model.name} is {family.name}: {other}")


def _check_latents(model: LatentDiffusion, codec: AutoencoderCodec, source: str) -> None:
    own = model.codec
    if (codec.channels, codec.scale) != (own.channels, own.scale):
        raise ModelError(
            f"{source} decodes latents of {codec.channels} channels, each of {codec.scale}x{codec.scale} pixels; those "
            f"of {model.name} have {own.channels}, and are {own.scale}x{own.scale}. It is made for another family"
        )


def _located(source: str | Path) -> Path:
    expected = "a folder with config.json and diffusion_pytorch_model.safetensors, or a hub repository such as"
    found = place_of_network(source, f'small decoder at {{}}: expected {expected} "madebyollin/taesd"')
    return found if isinstance(found, Path) else download_network(found)
