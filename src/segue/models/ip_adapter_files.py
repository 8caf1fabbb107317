"""IP-Adapters from files of diffusers' layout, with the encoders of pictures that they were made for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers.models.embeddings import ImageProjection, IPAdapterFullImageProjection, IPAdapterPlusImageProjection
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPVisionModelWithProjection

from segue.errors import CheckpointError, ModelNotFoundError
from segue.models import kinds
from segue.models.control import unet_of
from segue.models.control_files import family_of
from segue.models.hub import Repository, download, download_network, parse_repository
from segue.models.ip_adapter import IpAdapter, cross_sites
from segue.models.perceptual.clip import Sight
from segue.models.weights import freeze, read_header, read_network, refuse_pickle

if TYPE_CHECKING:
    from torch import Tensor

    from segue.models.bundle import LatentDiffusion

USUAL: Mapping[str, str] = {
    kinds.SD1: "h94/IP-Adapter/models/ip-adapter_sd15.safetensors",
    kinds.XL: "h94/IP-Adapter/sdxl_models/ip-adapter_sdxl.safetensors",
}
"""The adapter that is meant if none is named, by family; its encoder lies beside it."""
ENCODER = "image_encoder"
STEM = "model"
_HEAD = 64
_LAYER = re.compile(r"layers\.(\d+)\.(\d)\.(.+)")
_PLUS = {"0.norm1": "ln0", "0.norm2": "ln1", "1.0": "ff.0", "1.1": "ff.1.net.0.proj", "1.3": "ff.1.net.2"}


def load_ip_adapter(
    source: str | Path | None, model: LatentDiffusion, *, encoder: str | Path | None = None
) -> IpAdapter:
    """An IP-Adapter for a model, on the same device. Only safetensors are read.

    Args:
        source: a .safetensors file, or one in a hub repository, "owner/name/path/file.safetensors"; None is the usual
            one of the model's family.
        model: of Stable Diffusion 1.x, 2.x or XL.
        encoder: the encoder of pictures: a folder, a repository, or model.safetensors in one. None is the folder
            image_encoder beside the adapter.

    Raises:
        ModelNotFoundError: nothing is there.
        ModelAccessError: the hub refuses, or cannot be reached.
        UnsafeFileError: a pickle.
        CheckpointError: damaged, no IP-Adapter, or made for another family or another encoder.
        ModelError: the model has no UNet that attends to text as these do.
    """
    unet = unet_of(model).unet
    family = family_of(unet.config)
    wanted = source if source is not None else USUAL.get(family)
    if wanted is None:
        raise ModelNotFoundError(f"no IP-Adapter is usual with {family}: give the file of one")
    path, repository = _locate(wanted)
    header = read_header(path)
    kind = kinds.kind_of(header)
    if kind is None or kind.what != "IP-Adapter":
        raise CheckpointError(f"{path} is {kind or 'of an unknown layout'}; expected an IP-Adapter")
    tensors = load_file(path)
    projection = _projection(path, _under("image_proj.", tensors))
    layers = _layers(path, _under("ip_adapter.", tensors), model)
    for network in (projection, *layers):
        freeze(network, model.device, model.dtype)
    # Not before: it is large, and an adapter of another model needs none. It waits in main memory.
    folder = _beside(path, repository) if encoder is None else _encoder(encoder)
    home = torch.device("cpu")
    network, files = read_network(CLIPVisionModelWithProjection, folder, STEM, home, model.dtype)
    pooled = isinstance(projection, ImageProjection)
    _check_encoder(path, folder, projection, network.config)
    sight = Sight.read(folder, int(network.config.image_size))
    return IpAdapter(projection, *layers, network, sight, pooled, (path, *files))


def _locate(source: str | Path) -> tuple[Path, Repository | None]:
    """The adapter's file, downloaded if need be, and where it is on the hub."""
    path = Path(source).expanduser()
    repository = None if path.exists() else parse_repository(str(source))
    if repository is not None and repository.file is not None:
        refuse_pickle(Path(repository.file))
        return download(repository), repository
    if not path.is_file():
        raise ModelNotFoundError(
            f"there is no IP-Adapter at {source}: expected a .safetensors file, or one in a hub repository such as "
            f"{USUAL[kinds.SD1]}"
        )
    return path, None


def _beside(path: Path, repository: Repository | None) -> Path:
    """The folder of the encoder that lies beside an adapter."""
    if repository is None or repository.file is None:
        return _encoder(path.parent / ENCODER)
    folder = Path(repository.file).parent / ENCODER
    return _downloaded(replace(repository, file=f"{folder.as_posix()}/{STEM}.safetensors"))


def _encoder(source: str | Path) -> Path:
    path = Path(source).expanduser()
    if path.exists():
        return path.parent if path.is_file() else path
    repository = parse_repository(str(source)) if isinstance(source, str) else None
    if repository is None:
        raise ModelNotFoundError(
            f"there is no encoder of pictures at {source}: expected a folder with config.json and {STEM}.safetensors, "
            "or a hub repository; an IP-Adapter is of no use without the one that it was made for"
        )
    if repository.file is None:
        return download_network(repository, STEM, ("preprocessor_config.json",))
    return _downloaded(repository)


def _downloaded(repository: Repository) -> Path:
    """The folder of an encoder that is one of several things in a repository."""
    assert repository.file is not None
    config = download(replace(repository, file=str(Path(repository.file).with_name("config.json"))))
    download(repository)
    return config.parent


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _projection(path: Path, tensors: Mapping[str, Tensor]) -> nn.Module:
    """What makes tokens of what the encoder says: of the plain adapter, of "plus", or of "full"."""
    try:
        if "proj.weight" in tensors:
            width = tensors["norm.weight"].shape[0]
            wide, given = tensors["proj.weight"].shape
            made: nn.Module = ImageProjection(given, width, wide // width)
            named = {key.replace("proj", "image_embeds"): value for key, value in tensors.items()}
        elif "latents" in tensors:
            made = _resampler(tensors)
            named = dict(_plus_names(tensors))
        elif "proj.3.weight" in tensors:
            made = IPAdapterFullImageProjection(tensors["proj.0.weight"].shape[1], tensors["proj.3.weight"].shape[0])
            names = {"proj.0": "ff.net.0.proj", "proj.2": "ff.net.2", "proj.3": "norm"}
            named = {names[key[:6]] + key[6:]: value for key, value in tensors.items()}
        else:
            raise CheckpointError(
                f"{path} is an IP-Adapter that is told of faces by a recogniser, which Segue does not read; expected a "
                'plain one, "plus" or "full"'
            )
        made.load_state_dict(named)
    except (RuntimeError, LookupError, ValueError) as error:
        raise CheckpointError(f"{path} is a damaged IP-Adapter: {' '.join(str(error).split())[:200]}") from error
    return made


def _resampler(tensors: Mapping[str, Tensor]) -> nn.Module:
    depth = 1 + max(int(match[1]) for key in tensors if (match := _LAYER.fullmatch(key)))
    hidden, width = tensors["proj_in.weight"].shape
    return IPAdapterPlusImageProjection(
        embed_dims=width,
        output_dims=tensors["proj_out.weight"].shape[0],
        hidden_dims=hidden,
        depth=depth,
        dim_head=_HEAD,
        heads=tensors["layers.0.0.to_q.weight"].shape[0] // _HEAD,
        num_queries=tensors["latents"].shape[1],
        ffn_ratio=tensors["layers.0.1.1.weight"].shape[0] / hidden,
    )


def _plus_names(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Tensors under the names that diffusers has for them; keys and values come as one."""
    for key, value in tensors.items():
        match = _LAYER.fullmatch(key)
        if match is None:
            yield key, value
            continue
        layer, rest = f"layers.{match[1]}", f"{match[2]}.{match[3]}"
        if rest == "0.to_kv.weight":
            for name, half in zip("kv", value.chunk(2), strict=True):
                yield f"{layer}.attn.to_{name}.weight", half
        elif rest == "0.to_q.weight":
            yield f"{layer}.attn.to_q.weight", value
        elif rest == "0.to_out.weight":
            yield f"{layer}.attn.to_out.0.weight", value
        else:
            place, _, end = rest.rpartition(".")
            yield f"{layer}.{_PLUS[place]}.{end}", value


def _layers(path: Path, tensors: Mapping[str, Tensor], model: LatentDiffusion) -> tuple[nn.ModuleList, nn.ModuleList]:
    """A layer for keys and one for values of each place that attends to the text. Files number all places, also those
    that attend within the picture, which come in turn with these."""
    places = cross_sites(unet_of(model).unet)
    found = nn.ModuleList(), nn.ModuleList()
    for number, site in enumerate(places):
        module: Any = site.module
        for kind, layers in zip("kv", found, strict=True):
            weight = tensors.get(f"{2 * number + 1}.to_{kind}_ip.weight")
            expected = tuple(getattr(module, f"to_{kind}").weight.shape)
            if weight is None or tuple(weight.shape) != expected:
                got = "nothing" if weight is None else str(tuple(weight.shape))
                raise CheckpointError(
                    f"{path} is no IP-Adapter for {model.name}, which is of {family_of(unet_of(model).unet.config)}: "
                    f"for {site.name} it has {got}, expected {expected}. Take one that was made for it"
                )
            layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
            layer.load_state_dict({"weight": weight})
            layers.append(layer)
    if len(tensors) != 2 * len(places):
        raise CheckpointError(
            f"{path} has {len(tensors) // 2} places that attend to pictures, and the UNet of {model.name} "
            f"{len(places)}: it was made for another"
        )
    return found


def _check_encoder(path: Path, folder: Path, projection: Any, config: Any) -> None:
    """Raise CheckpointError if the encoder of pictures says less or more than the adapter takes."""
    if isinstance(projection, ImageProjection):
        taken, given = projection.image_embeds.in_features, config.projection_dim
    else:
        first: Any = projection.proj_in if hasattr(projection, "proj_in") else projection.ff.net[0].proj
        taken, given = first.in_features, config.hidden_size
    if taken != given:
        raise CheckpointError(
            f"{path} takes {taken} numbers from its encoder of pictures, and that of {folder} says {given}: give the "
            "encoder that it was made with"
        )
