"""Control networks from files: of diffusers, of the original layout of ControlNets, and adapters of Segue."""

from __future__ import annotations

import inspect
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers.models.adapter import T2IAdapter
from diffusers.models.controlnets.controlnet import ControlNetModel

from segue.errors import CheckpointError, ModelError, ModelNotFoundError
from segue.models import kinds
from segue.models.attention import announced
from segue.models.control import ControlNetwork, Residuals, unet_of
from segue.models.control_adapter import KINDS, control_from, is_adapter, learned
from segue.models.families.sdxl import beside_text
from segue.models.hub import download, download_network, parse_repository, stem_of
from segue.models.placement import beside
from segue.models.weights import MISFITS, freeze, quiet, read_header, read_json, read_network, refuse_pickle
from segue.types import Call, Conditioning

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from segue.models.bundle import LatentDiffusion

USUAL: Mapping[str, Mapping[str, str]] = {
    kinds.SD1: {
        "canny": "lllyasviel/control_v11p_sd15_canny",
        "softedge": "lllyasviel/control_v11p_sd15_softedge",
        "lineart": "lllyasviel/control_v11p_sd15_lineart",
        "depth": "lllyasviel/control_v11f1p_sd15_depth",
        "pose": "lllyasviel/control_v11p_sd15_openpose",
        "tile": "lllyasviel/control_v11f1e_sd15_tile",
        "shuffle": "lllyasviel/control_v11e_sd15_shuffle",
    },
    kinds.XL: {
        "canny": "xinsir/controlnet-canny-sdxl-1.0",
        "depth": "xinsir/controlnet-depth-sdxl-1.0",
        "pose": "xinsir/controlnet-openpose-sdxl-1.0",
        "tile": "xinsir/controlnet-tile-sdxl-1.0",
    },
}
"""The hub repository that people mean by a kind of control picture, by family."""

ADAPTER = "adapter.safetensors"
"""What `segue train control` calls its file."""
_SAME = ("block_out_channels", "layers_per_block", "down_block_types", "cross_attention_dim", "addition_embed_type")
_POOLED = "shuffle"
"""What stands in the name of original files whose residuals are pooled: the files themselves do not say it."""
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class ControlNet:
    """A ControlNetwork around a ControlNet of diffusers (Zhang et al. 2023, arXiv:2302.05543).

    Args:
        module: the network.
        scale: pixels per latent, along one side.
        weights: the files that its numbers came from.
        settings: its configuration.
    """

    module: ControlNetModel
    scale: int
    weights: tuple[Path, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def pooled(self) -> bool:
        """Whether it says what is in a picture, and not where."""
        return bool(self.module.config["global_pool_conditions"])

    def __call__(
        self,
        x: Float[Tensor, "b c h w"],
        time: Float[Tensor, " b"],
        cond: Conditioning,
        picture: Float[Tensor, "b 3 H W"],
        call: Call,
    ) -> Residuals:
        """What it adds to every skip connection and to the middle, in its own dtype and on its own device."""
        device, dtype = self.module.device, self.module.dtype
        sized = self.module.config["addition_embed_type"] is not None
        with announced(call):
            down, mid = self.module(
                x.to(device, dtype),
                time.float().to(device),
                encoder_hidden_states=cond.text.to(device, dtype),
                controlnet_cond=picture.to(device, dtype),
                added_cond_kwargs=beside_text(x, cond, self.scale, device, dtype) if sized else None,
                return_dict=False,
            )
        return Residuals(tuple(down), mid)


@dataclass(frozen=True)
class ImageAdapter:
    """A ControlNetwork around a T2I-Adapter of diffusers (Mou et al. 2023, arXiv:2302.08453): small, and blind to time.

    Args:
        module: the network.
        weights: the files that its numbers came from.
        settings: its configuration.
    """

    module: T2IAdapter
    weights: tuple[Path, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    pooled: bool = False

    def __call__(
        self,
        x: Float[Tensor, "b c h w"],
        time: Float[Tensor, " b"],
        cond: Conditioning,
        picture: Float[Tensor, "b 3 H W"],
        call: Call,
    ) -> Residuals:
        """What it adds to each resolution, in its own dtype and on its own device."""
        del x, time, cond, call
        if self.module.config["in_channels"] == 1:
            picture = (picture * picture.new_tensor(_LUMA)[:, None, None]).sum(1, keepdim=True)
        return Residuals(within=tuple(self.module(picture.to(self.module.device, self.module.dtype))))


def load_control(
    source: str | Path, model: LatentDiffusion, *, kind: str | None = None, pooled: bool | None = None
) -> ControlNetwork:
    """A control network for a model, on the same device and kept in the same way. Only safetensors are read.

    Args:
        source: a folder with config.json and weights, as diffusers writes it; a single .safetensors file of either
            layout; the file or the folder of `segue train control`; a hub repository "owner/name", or a file in one;
            or a kind of `USUAL`, such as "canny".
        model: which it is to control.
        kind: of control pictures, which adapters of Segue have to be told; all others know one, and take no notice.
        pooled: whether it says what is in a picture and not where; None is what its configuration says. A single file
            says nothing of it: one with "shuffle" in its name is.

    Raises:
        ModelNotFoundError: nothing is there.
        ModelAccessError: the hub refuses, or cannot be reached.
        UnsafeFileError: a pickle.
        CheckpointError: damaged, of another kind, or made for a model of another family.
        ModelError: the model has no UNet that could be controlled; or an adapter is not told a kind that it knows.
    """
    unet = unet_of(model).unet
    path = _locate(source, model)
    if path.is_dir() and (path / ADAPTER).is_file() and not (path / "config.json").exists():
        path = path / ADAPTER
    if path.is_file() and is_adapter(path):
        return _told(path, kind, model)
    network, files = _from_folder(path, model) if path.is_dir() else _from_file(path, model)
    config = dict(network.config)
    if isinstance(network, ControlNetModel):
        _check_controlnet(config, unet.config, model, str(source))
        told = _POOLED in path.name.lower() if pooled is None and path.is_file() else pooled
        if told is not None and told != config["global_pool_conditions"]:
            network.register_to_config(global_pool_conditions=told)
            config["global_pool_conditions"] = told
    else:
        _check_adapter(config, unet.config, model, str(source))
    beside(network, model)
    if isinstance(network, ControlNetModel):
        return ControlNet(network, model.codec.scale, files, config)
    return ImageAdapter(network, files, config)


def _told(path: Path, kind: str | None, model: LatentDiffusion) -> ControlNetwork:
    if kind is None:
        raise ModelError(
            f"{path} is a control adapter of Segue, one network for many kinds of pictures: say which yours are, one "
            f"of {', '.join(learned(path) or KINDS)}"
        )
    return control_from(path, kind, model)


def _locate(source: str | Path, model: LatentDiffusion) -> Path:
    """The folder or file that is meant, downloaded if need be."""
    path = Path(source).expanduser()
    if path.exists():
        return path
    family = family_of(unet_of(model).unet.config)
    usual = USUAL.get(family, {})
    repository = parse_repository(usual.get(str(source), str(source)))
    if repository is None:
        there = ", ".join(usual) or "none that is usual"
        raise ModelNotFoundError(
            f"there is no control network at {source}: expected a folder with config.json, a .safetensors file, a hub "
            f'repository such as "lllyasviel/control_v11p_sd15_canny", or a kind; for {family}, there are: {there}'
        )
    if repository.file is None:
        return download_network(repository)
    refuse_pickle(Path(repository.file))
    return download(repository)


def _from_folder(folder: Path, model: LatentDiffusion) -> tuple[ControlNetModel | T2IAdapter, tuple[Path, ...]]:
    kinds_: dict[str, type[Any]] = {"ControlNetModel": ControlNetModel, "T2IAdapter": T2IAdapter}
    said = str(read_json(folder / "config.json").get("_class_name"))
    if said not in kinds_:
        raise CheckpointError(f"{folder} holds a {said}; expected a {' or a '.join(kinds_)} of diffusers")
    device = torch.device("cpu") if model.placement.begins_at_home else model.device
    return read_network(kinds_[said], folder, stem_of("network"), device, model.dtype)


def _from_file(path: Path, model: LatentDiffusion) -> tuple[ControlNetModel, tuple[Path, ...]]:
    """A ControlNet in one file, whose configuration is that of the UNet that it was copied from."""
    from diffusers.loaders.single_file_utils import SingleFileComponentError

    header = read_header(path)
    kind = kinds.kind_of(header)
    if kind is None or kind.what != "ControlNet":
        what = f"is {kind}" if kind else "is of an unknown layout"
        raise CheckpointError(f"{path} {what}; expected a ControlNet, or a folder with config.json")
    config = unet_of(model).unet.config
    if kind.family and (family := family_of(config)) in kinds.WIDTHS.values() and kind.family != family:
        raise CheckpointError(_foreign(str(path), kind.family, family, model))
    taken = inspect.signature(ControlNetModel.__init__).parameters
    copied = {key: value for key, value in config.items() if key in taken}
    copied["in_channels"] = model.codec.channels  # also where the UNet is shown a mask besides
    copied["mid_block_type"] = copied.get("mid_block_type") or "UNetMidBlock2DCrossAttn"
    try:
        with tempfile.TemporaryDirectory() as folder, quiet():
            (Path(folder) / "config.json").write_text(json.dumps({**copied, "_class_name": "ControlNetModel"}))
            network: Any = ControlNetModel.from_single_file(
                str(path), config=folder, local_files_only=True, torch_dtype=model.dtype
            )
    except (*MISFITS, SingleFileComponentError) as error:
        why = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{path} is a ControlNet, and none for {model.name}: {why}") from error
    empty = [key for key, value in network.named_parameters() if value.is_meta]
    if empty:
        raise CheckpointError(f"{path} is no whole ControlNet: it lacks {len(empty)} tensors, such as {empty[0]}")
    freeze(network, torch.device("cpu") if model.placement.begins_at_home else model.device, model.dtype)
    return network, (path,)


def family_of(config: Mapping[str, Any]) -> str:
    """What people call the family of a UNet or ControlNet: by the width of the text that it attends to."""
    width = config.get("cross_attention_dim")
    return kinds.WIDTHS.get(width, f"models of text width {width}") if isinstance(width, int) else "unknown models"


def _check_controlnet(config: Mapping[str, Any], unet: Mapping[str, Any], model: LatentDiffusion, source: str) -> None:
    """Raise CheckpointError if a ControlNet was made for another UNet."""
    differing = next((key for key in _SAME if _plain(config[key]) != _plain(unet[key])), None)
    if differing is not None:
        families = family_of(config), family_of(unet)
        if families[0] != families[1]:
            raise CheckpointError(_foreign(source, *families, model))
        raise CheckpointError(
            f"{source} was made for another UNet than that of {model.name}: its {differing} is {config[differing]}, "
            f"the UNet's {unet[differing]}"
        )
    scale = 2 ** (len(config["conditioning_embedding_out_channels"]) - 1)
    taken = config["in_channels"], config["conditioning_channels"], scale
    expected = model.codec.channels, 3, model.codec.scale
    if taken != expected:
        raise CheckpointError(
            f"{source} takes latents of {taken[0]} channels, pictures of {taken[1]} and {taken[2]} pixels per latent; "
            f"{model.name} has {expected[0]}, {expected[1]} and {expected[2]}"
        )


def _check_adapter(config: Mapping[str, Any], unet: Mapping[str, Any], model: LatentDiffusion, source: str) -> None:
    """Raise CheckpointError if a T2I-Adapter was made for another UNet."""
    kind, blocks = str(config["adapter_type"]), _plain(unet["block_out_channels"])
    channels = [*config["channels"], *config["channels"][-1:]] if kind == "light_adapter" else list(config["channels"])
    sized = unet.get("addition_embed_type") == "text_time"
    if kind != "light_adapter" and kind.endswith("_xl") != sized:
        families = (kinds.SD1, family_of(unet)) if sized else (kinds.XL, family_of(unet))
        raise CheckpointError(_foreign(source, *families, model, what="T2I-Adapter"))
    # That of XL has one level more, which is the middle's.
    if channels[: len(blocks)] != blocks:
        raise CheckpointError(
            f"{source} was made for another UNet than that of {model.name}: its levels have {channels} channels, the "
            f"UNet's {blocks}"
        )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value


def _foreign(source: str, theirs: str, ours: str, model: LatentDiffusion, what: str = "ControlNet") -> str:
    return f"{source} is a {what} for {theirs}, and {model.name} is {ours}: take one that was made for it"
