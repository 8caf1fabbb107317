"""A model without its weights: networks of the right shapes on the meta device, made from configurations alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from segue.errors import CheckpointError, ModelNotFoundError, SegueError
from segue.models.codec import AutoencoderCodec, codec_dtype
from segue.models.families import find_family
from segue.models.families.flux import PATCH
from segue.models.hub import configurations, parse_repository
from segue.models.rehearsal import Work, rehearsed, weights_of
from segue.models.single_file import INPAINTING, SD2, find_config
from segue.models.temporal_codec import codec_of
from segue.models.weights import MISFITS, quiet, read_header, read_json, refuse_pickle

if TYPE_CHECKING:
    from torch import Tensor, nn

META = torch.device("meta")
DENOISERS = ("unet", "transformer")
ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
CODEC = "vae"
INSTRUCT = "instruct"
"""An adapter beside the UNet (`segue.models.instruct_adapter`)."""
VISITORS = ("T5EncoderModel",)
"""Kinds of text encoders that wait in main memory even where nothing is offloaded: large, and done with at once."""

_CLIP, _LONG, _LONGEST = 77, 256, 512
"""Tokens of a prompt: CLIP's, T5's as transformers are told it, and T5's for those that are told their guidance."""

_FIRST_LAYER = "model.diffusion_model.input_blocks.0.0.weight"


@dataclass(frozen=True, eq=False)
class Skeleton:
    """A model's networks, with shapes and no numbers. What was rehearsed once is remembered.

    Args:
        name: of the model.
        parts: its networks on the meta device, by their folders.
        dtype: what the denoiser and the text encoders compute in.
        family: its module of `segue.models.families`.
        scheduler: the configuration of its scheduler, as its files state it.
        configs: the folder that its configurations were read from.
        stated: whether they are its own, or the user named them, and not those that come with Segue for single files.
    """

    name: str
    parts: Mapping[str, nn.Module]
    dtype: torch.dtype
    family: str
    scheduler: Mapping[str, Any]
    configs: Path
    stated: bool = True
    _known: dict[tuple[Any, ...], Work] = field(default_factory=dict[tuple[Any, ...], Work], repr=False)

    @property
    def denoiser(self) -> str:
        """The part that denoises."""
        return next(name for name in DENOISERS if name in self.parts)

    @property
    def encoders(self) -> tuple[str, ...]:
        """The parts that read prompts."""
        return tuple(name for name in ENCODERS if name in self.parts)

    @property
    def waiting(self) -> tuple[str, ...]:
        """The parts that are on the device only while they work."""
        return tuple(name for name in self.encoders if type(self.parts[name]).__name__ in VISITORS)

    @property
    def codec(self) -> AutoencoderCodec:
        """The part that makes pictures of latents."""
        return codec_of(self.parts[CODEC])

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels that the denoiser's configuration states, as far as it does."""
        config: Any = self.parts[self.denoiser].config
        side = config.get("sample_size") or 128
        height, width = (side, side) if isinstance(side, int) else side
        return int(width) * self.codec.scale, int(height) * self.codec.scale

    @property
    def told_guidance(self) -> bool:
        """Whether the denoiser is told its guidance scale as a number, and so needs one row where others need two."""
        config: Any = self.parts[self.denoiser].config
        return bool(config.get("guidance_embeds") or config.get("time_cond_proj_dim"))

    @property
    def grid(self) -> int:
        """Width and height of a picture are multiples of it."""
        config: Any = self.parts[self.denoiser].config
        patch = {"flux": PATCH, "sd3": int(config.get("patch_size") or 1)}.get(self.family, 1)
        return self.codec.scale * patch

    def reading(self, part: str) -> Work:
        """What it takes to encode one chunk of a prompt."""
        encoder: Any = self.parts[part]

        def run() -> Any:
            return encoder(torch.zeros(1, self._tokens(part), dtype=torch.long, device=META))

        return self._once(("reading", part), run, encoder)

    def call(self, rows: int, size: tuple[int, int]) -> Work:
        """What one call of the denoiser takes.

        Args:
            rows: of its batch.
            size: (width, height) in pixels.

        Raises:
            CheckpointError: Segue does not know what this network is given.
        """
        network: Any = self.parts[self.denoiser]
        kind = type(network).__name__
        inputs = _INPUTS.get(kind)
        if inputs is None:
            raise CheckpointError(f"{self.name} denoises with {kind}; known are {', '.join(_INPUTS)}")
        side = (rows, size[1] // self.codec.scale, size[0] // self.codec.scale)
        tokens = self._context()

        beside: Any = self.parts.get(INSTRUCT)

        def run() -> Any:
            given = inputs(network.config, side, tokens, self.dtype)
            if beside is not None:
                shown = given["sample"], given["timestep"], given["encoder_hidden_states"], given["sample"]
                given |= beside(*shown)[0].told(META, self.dtype)
            return network(**given, return_dict=False)

        return self._once(("call", side), run, network)

    def decoding(self, pictures: int, size: tuple[int, int], tile: int | None) -> Work:
        """What it takes to decode pictures that are handed over together; tiles are in pixels, None is the usual."""
        codec = self.codec
        sides = (size[1] // codec.scale, size[0] // codec.scale)
        if tile is not None:
            codec = replace(codec, tile=max(1, tile // codec.scale))
        shape = (pictures, codec.channels, *sides)

        def run() -> Any:
            return codec.decode(torch.empty(shape, device=META))

        return self._once(("decoding", shape, codec.tile), run, codec.vae)

    def _once(self, key: tuple[Any, ...], run: Callable[[], Any], network: nn.Module) -> Work:
        if key not in self._known:
            try:
                self._known[key] = rehearsed(run, weights_of(network))
            except SegueError:
                raise
            except MISFITS as error:
                why = " ".join(str(error).split())[:200]
                raise CheckpointError(
                    f"{self.name}: its parts do not fit each other, or this size; {key[0]} fails with {why}"
                ) from error
        return self._known[key]

    def _tokens(self, part: str) -> int:
        """Tokens of one chunk of a prompt. T5 has no limit of its own: each family was trained with some number."""
        if type(self.parts[part]).__name__ in VISITORS:
            config: Any = self.parts[self.denoiser].config
            return _LONGEST if config.get("guidance_embeds") else _LONG
        return int(getattr(self.parts[part].config, "max_position_embeddings", _CLIP))

    def _context(self) -> int:
        """Tokens that the denoiser sees of one prompt."""
        if type(self.parts[self.denoiser]).__name__ == "SD3Transformer2DModel":
            return _CLIP + _LONG  # T5's stand behind CLIP's; without a T5 they are zeros
        return max((self._tokens(part) for part in self.encoders), default=_CLIP)


def skeleton(
    source: str | Path,
    dtype: torch.dtype,
    config: Path | None = None,
    name: str | None = None,
    text_from: Path | None = None,
) -> Skeleton:
    """The networks of a model, from what its files state about them. No weights are read, and none downloaded.

    Args:
        source: a folder of the diffusers layout, a .safetensors file, or a hub repository.
        dtype: what it shall compute in.
        config: a folder whose configurations a single file is read with.
        name: what to call it; by default, the source.
        text_from: the folder of the model whose text encoder an upscaler shares, if it has none itself.

    Raises:
        ModelNotFoundError: nothing is there.
        ModelAccessError: the hub refuses, or cannot be reached.
        CheckpointError: damaged, or of networks that the installed libraries do not have.
    """
    path = located(source)
    changes, stated, channels = dict[str, Any](), path.is_dir() or config is not None, None
    if path.is_file():
        header = read_header(path)
        path = find_config(path, header, config)
        channels = header[_FIRST_LAYER].shape[1] if _FIRST_LAYER in header else None
        changes = _marked(header, path, channels)
    index = read_json(path / "model_index.json")
    family = find_family(index, str(path))
    parts: dict[str, nn.Module] = {}
    for part in (*DENOISERS, *ENCODERS, CODEC):
        library, kind = _entry(index, part, path)
        folder = (text_from or path if part in ENCODERS else path) / part
        if library is None or kind is None or (part in family.optional and not folder.is_dir()):
            continue
        settings = read_json(folder / "config.json")
        if part == "unet" and channels is not None:
            settings["in_channels"] = channels
        precision = codec_dtype(settings, dtype) if part == CODEC else dtype
        parts[part] = _without_weights(str(library), str(kind), settings, folder, precision)
    if CODEC not in parts or not any(part in parts for part in DENOISERS):
        raise CheckpointError(f"{path} is no whole model: expected a unet or a transformer, and a vae")
    scheduler = {**read_json(path / "scheduler" / "scheduler_config.json"), **changes}
    return Skeleton(name or str(source), parts, dtype, family.module, scheduler, path, stated)


def _entry(index: Mapping[str, Any], part: str, path: Path) -> tuple[Any, Any]:
    """(library, class) of a part, both None if the model has none such."""
    said = index.get(part) or (None, None)
    if not isinstance(said, list | tuple) or len(said) != 2:
        raise CheckpointError(
            f"{path / 'model_index.json'} should say a library and a class of {part}, such as "
            f'["diffusers", "UNet2DConditionModel"]; it says {said!r}'
        )
    return said[0], said[1]


def _marked(header: Mapping[str, Any], configs: Path, channels: int | None) -> dict[str, Any]:
    """What a single file's marks and channels say about the scheduler: see `segue.models.single_file.from_file`."""
    if "v_pred" in header:
        return {"prediction_type": "v_prediction", **({"rescale_betas_zero_snr": True} if "ztsnr" in header else {})}
    return {"prediction_type": "epsilon"} if configs == SD2 and channels == INPAINTING else {}


def located(source: str | Path) -> Path:
    """The folder of a model's configurations, or the file that it is; of a hub repository, these are downloaded.

    Raises:
        ModelNotFoundError: nothing is there.
        ModelAccessError: the hub refuses, or cannot be reached.
    """
    path = Path(source).expanduser()
    if path.exists():
        return path
    repository = parse_repository(str(source))
    if repository is None:
        raise ModelNotFoundError(
            f"there is no model at {source}: expected a folder, a .safetensors file, or a hub repository owner/name"
        )
    if repository.file is not None:
        refuse_pickle(Path(repository.file))
    return configurations(repository)


def _without_weights(
    library: str, kind: str, settings: Mapping[str, Any], folder: Path, dtype: torch.dtype
) -> nn.Module:
    """A network of diffusers or transformers, on the meta device. Other libraries' code is never run."""
    import diffusers
    import transformers

    families: dict[str, Any] = {"diffusers": diffusers, "transformers": transformers}
    made: Any = getattr(families.get(library), kind, None)
    if not isinstance(made, type) or not issubclass(made, torch.nn.Module):
        raise CheckpointError(f"{folder} is for {library}.{kind}, which is no network of the installed libraries")
    source: Any = made
    try:
        with quiet(), META:
            if library == "diffusers":
                network = source.from_config(dict(settings))
            else:
                network = source(source.config_class.from_dict(dict(settings)))
            # Some constructors fill tensors with numbers, which come to be in main memory.
            return network.to(META, dtype).eval().requires_grad_(False)
    except MISFITS as error:
        why = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{folder / 'config.json'} describes no {kind} that can be built: {why}") from error


_Inputs = Callable[[Any, tuple[int, int, int], int, torch.dtype], dict[str, Any]]


def _unet(config: Any, side: tuple[int, int, int], tokens: int, dtype: torch.dtype) -> dict[str, Any]:
    rows, height, width = side
    inputs: dict[str, Any] = {
        "sample": _empty(dtype, rows, config["in_channels"], height, width),
        "timestep": _empty(torch.float32, rows),
        "encoder_hidden_states": _empty(dtype, rows, tokens, config["cross_attention_dim"]),
    }
    if config.get("time_cond_proj_dim"):
        inputs["timestep_cond"] = _empty(dtype, rows, config["time_cond_proj_dim"])
    if config.get("num_class_embeds"):
        inputs["class_labels"] = torch.zeros(rows, dtype=torch.long, device=META)
    if config.get("addition_embed_type") == "text_time":
        times = 6  # original size, crop and target size, two numbers each
        pooled = config["projection_class_embeddings_input_dim"] - times * config["addition_time_embed_dim"]
        inputs["added_cond_kwargs"] = {
            "text_embeds": _empty(dtype, rows, pooled),
            "time_ids": _empty(dtype, rows, times),
        }
    return inputs


def _clip_of_picture(config: Any, side: tuple[int, int, int], tokens: int, dtype: torch.dtype) -> dict[str, Any]:
    """Rows are the frames of one clip, which is shown one picture: an embedding of one token."""
    rows, height, width = side
    del tokens
    return {
        "sample": _empty(dtype, 1, rows, config["in_channels"], height, width),
        "timestep": _empty(torch.float32, 1),
        "encoder_hidden_states": _empty(dtype, 1, 1, config["cross_attention_dim"]),
        "added_time_ids": _empty(dtype, 1, 3),
    }


def _clip_of_words(config: Any, side: tuple[int, int, int], tokens: int, dtype: torch.dtype) -> dict[str, Any]:
    """Rows are the frames of one clip, which is told one text."""
    rows, height, width = side
    return {
        "sample": _empty(dtype, 1, config["in_channels"], rows, height, width),
        "timestep": _empty(torch.float32, 1),
        "encoder_hidden_states": _empty(dtype, 1, tokens, config["cross_attention_dim"]),
    }


def _sd3(config: Any, side: tuple[int, int, int], tokens: int, dtype: torch.dtype) -> dict[str, Any]:
    rows, height, width = side
    return {
        "hidden_states": _empty(dtype, rows, config["in_channels"], height, width),
        "timestep": _empty(torch.float32, rows),
        "encoder_hidden_states": _empty(dtype, rows, tokens, config["joint_attention_dim"]),
        "pooled_projections": _empty(dtype, rows, config["pooled_projection_dim"]),
    }


def _flux(config: Any, side: tuple[int, int, int], tokens: int, dtype: torch.dtype) -> dict[str, Any]:
    rows, height, width = side
    squares = (height // 2) * (width // 2)
    axes = len(config["axes_dims_rope"])
    return {
        "hidden_states": _empty(dtype, rows, squares, config["in_channels"]),
        "timestep": _empty(dtype, rows),
        "encoder_hidden_states": _empty(dtype, rows, tokens, config["joint_attention_dim"]),
        "pooled_projections": _empty(dtype, rows, config["pooled_projection_dim"]),
        "img_ids": _empty(dtype, squares, axes),
        "txt_ids": _empty(dtype, tokens, axes),
        "guidance": _empty(dtype, rows) if config.get("guidance_embeds") else None,
    }


_INPUTS: dict[str, _Inputs] = {
    "UNet2DConditionModel": _unet,
    "UNetSpatioTemporalConditionModel": _clip_of_picture,
    "UNet3DConditionModel": _clip_of_words,
    "SD3Transformer2DModel": _sd3,
    "FluxTransformer2DModel": _flux,
}


def _empty(dtype: torch.dtype, *shape: int) -> Tensor:
    return torch.empty(*shape, dtype=dtype, device=META)
