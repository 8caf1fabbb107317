"""How a model's networks are kept and run: what their weights are stored as, and where they wait until they work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

from segue.errors import MissingExtraError, ModelError
from segue.models.capacity import memory_of
from segue.models.codec import AutoencoderCodec
from segue.models.compiling import Compile, check_compiler, compiled
from segue.models.decoding import tiled

if TYPE_CHECKING:
    from torch import nn

    from segue.models.bundle import LatentDiffusion

Storage = Literal["float8", "int8"]
Offload = Literal["model", "sequential"]
SHARED = ("cpu", "mps")
"""Devices that compute in main memory, which nothing can be taken off."""

_EXACT = ("norm", "pos_embed", "patch_embed", "embed")
"""Names of layers that keep their precision: small ones, on which much depends."""


@dataclass(frozen=True)
class Placement:
    """How networks are kept and run. Storage and tiles change pictures a little, the rest leaves them as they are.

    Args:
        storage: what the weights of the denoiser and of the text encoders are stored as between uses, each layer being
            brought to the model's dtype when it works: "float8" (e4m3) or "int8"; None stores them in that dtype.
        offload: which networks leave the device when they do not work: "model" has one whole network there at a time,
            "sequential" one layer, which is slow and needs the least; None keeps all of them there.
        tile: side in pixels of the largest picture that is decoded in one piece; larger ones are cut into overlapping
            tiles. None chooses it by prediction: decoding takes a quarter of the device's memory at most.
        compile: what of the denoiser's network is compiled: "blocks", those that repeat in it, or "graphs", all of it,
            with its kernels recorded; None compiles nothing. See `segue.models.compiling`.
    """

    storage: Storage | None = None
    offload: Offload | None = None
    tile: int | None = None
    compile: Compile | None = None

    def __post_init__(self) -> None:
        for name, known in (("storage", Storage), ("offload", Offload), ("compile", Compile)):
            value = getattr(self, name)
            if value is not None and value not in get_args(known):
                raise ModelError(f"{name} must be {' or '.join(get_args(known))}, or left out; got {value!r}")
        if self.storage == "int8" and self.offload is not None:
            raise ModelError("weights in int8 stay on the device: leave offload out, or take storage float8")
        if self.compile is not None and self.begins_at_home:
            raise ModelError(
                "what is compiled needs its weights as they are, and in place: leave storage and offload out"
            )

    @property
    def begins_at_home(self) -> bool:
        """Whether a model is better loaded into main memory first: its device may not hold it as it comes."""
        return self.storage is not None or self.offload is not None

    def check(self, device: torch.device) -> None:
        """Refuse what a device cannot do.

        Raises:
            ModelError: networks are to leave a device that has no memory of its own, or nothing can compile for it.
        """
        if self.compile is not None:
            check_compiler(self.compile, device)
        if self.offload is not None and device.type in SHARED:
            raise ModelError(
                f'offload "{self.offload}" makes room on a graphics card, and {device.type} computes in main memory, '
                "where the weights lie anyway: leave it out; storage float8 makes them smaller"
            )

    def check_waiting(self, model: str, waiting: Sequence[str]) -> None:
        """Refuse what a model cannot do some of whose networks wait in main memory by themselves.

        Args:
            model: its name.
            waiting: the names of these networks.

        Raises:
            ModelError: they are to be stored as int8, which stays on the device.
        """
        if self.storage == "int8" and waiting:
            raise ModelError(
                f"weights in int8 stay on the device, and {', '.join(waiting)} of {model} waits in main memory: "
                "take storage float8"
            )


def placed(model: LatentDiffusion, placement: Placement, device: torch.device) -> LatentDiffusion:
    """The model as it is to be kept and run; its own networks are changed. LoRAs are merged before.

    Args:
        model: in main memory, or on the device.
        placement: how.
        device: where it shall compute.

    Raises:
        ModelError: the device cannot do it, or has not enough memory.
        MissingExtraError: int8 storage needs a package that is not installed.
    """
    placement.check(device)
    if model.placement.begins_at_home:
        raise ModelError(f"{model.name} is stored and placed already: load it anew to place it otherwise")
    placement.check_waiting(model.name, model.waiting)
    if placement.storage is not None:
        for name, network in model.parts.items():
            if not is_codec(name):
                store(network, placement.storage, next(network.parameters()).dtype)
    text = _addressed(model.text, device, visits=placement.offload is None)
    if placement.offload is None:
        for name, network in model.parts.items():
            if name not in model.waiting or device.type in SHARED:
                _move(network, device)
    elif placement.offload == "model":
        Residence(dict(model.parts), device).guard()
    else:
        for network in model.parts.values():
            _offload_layers(network, device)
    codec = model.codec
    if isinstance(codec, AutoencoderCodec):
        codec = tiled(codec, placement.tile, memory_of(device).total)
        placement = replace(placement, tile=codec.tile * codec.scale)
    model = replace(model, placement=placement, text=text, codec=codec, device=device)
    return model if placement.compile is None else compiled(model, placement.compile)


def beside(network: nn.Module, model: LatentDiffusion) -> None:
    """Keep a network as a model keeps its denoiser, at whose side it works; the network is changed.

    Its weights are stored alike. It stays on the device where whole networks take turns there, as it works in every
    step, and comes layer by layer where those do.

    Args:
        network: in main memory, or on the device.
        model: placed already.

    Raises:
        ModelError: the device has not enough memory.
        MissingExtraError: int8 storage needs a package that is not installed.
    """
    placement = model.placement
    if placement.storage is not None:
        store(network, placement.storage, next(network.parameters()).dtype)
    if placement.offload == "sequential":
        _offload_layers(network, model.device)
    else:
        _move(network, model.device)


def _addressed(text: Any, device: torch.device, *, visits: bool) -> Any:
    """A text encoder that hands its embeddings to a device, and so do those that it is made of.

    Args:
        text: any.
        device: where embeddings go.
        visits: whether networks that wait come there by themselves; nothing else may move them then.
    """
    said = {"device": device, "visits": visits}
    changed: dict[str, Any] = {}
    for item in fields(text) if is_dataclass(text) else ():
        value = getattr(text, item.name)
        if item.name in said:
            changed[item.name] = said[item.name]
        elif item.init and is_dataclass(value) and (told := _addressed(value, device, visits=visits)) is not value:
            changed[item.name] = told
    whole: Any = text
    return replace(whole, **changed) if changed else text


def is_codec(part: str) -> bool:
    """Whether a part of a diffusers folder is an autoencoder: small, and what it loses is seen at once."""
    return part.startswith(("vae", "vqvae", "image_decoder"))


def store(network: nn.Module, storage: Storage, compute: torch.dtype) -> None:
    """Store a network's weights in fewer bits; layers compute as before.

    Raises:
        MissingExtraError: int8 needs torchao.
    """
    if storage == "int8":
        _quantize(network)
        return
    from diffusers.hooks.layerwise_casting import apply_layerwise_casting_hook

    for layer in stored_layers(network):
        apply_layerwise_casting_hook(layer, torch.float8_e4m3fn, compute, non_blocking=False)


def _quantize(network: nn.Module) -> None:
    """Products in int8, one scale per output; convolutions stay as they are."""
    try:
        torchao: Any = import_module("torchao.quantization")
    except ImportError as error:
        raise MissingExtraError('storage int8 needs torchao: pip install "segue[int8]"; float8 needs none') from error
    chosen = {id(layer) for layer in stored_layers(network) if isinstance(layer, torch.nn.Linear)}

    def is_chosen(layer: nn.Module, name: str) -> bool:
        return id(layer) in chosen

    torchao.quantize_(network, torchao.Int8WeightOnlyConfig(), filter_fn=is_chosen)


def stored_layers(network: nn.Module) -> list[nn.Linear | nn.Conv2d]:
    """The layers whose weights can be stored in fewer bits: products and convolutions, but for those that a class asks
    to keep exact."""
    kept: tuple[str, ...] = _EXACT
    for listed in ("_keep_in_fp32_modules", "_skip_layerwise_casting_patterns"):
        kept += tuple(getattr(network, listed, None) or ())
    return [
        module
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d) and not any(part in name for part in kept)
    ]


class Residence:
    """Networks that share a device, on which one of them is at a time.

    A network comes when it is called and stays until another is called. Weights do not change, so what waits in main
    memory stays there, and leaving copies nothing.

    Args:
        networks: by name.
        device: which they share.
    """

    def __init__(self, networks: dict[str, nn.Module], device: torch.device) -> None:
        self.networks = networks
        self.device = device
        self.inside: str | None = None
        self._home: dict[str, list[torch.Tensor]] = {}

    def guard(self) -> None:
        """From now on, each network comes when it is called, and finds its inputs there."""
        for name, network in self.networks.items():
            self._home[name] = [tensor.data for tensor in _tensors(network)]
            network.register_forward_pre_hook(self._before(name), with_kwargs=True)
            for method in ("encode", "decode"):
                if hasattr(network, method):
                    setattr(network, method, self._visiting(name, getattr(network, method)))

    def enter(self, name: str) -> None:
        """Bring a network to the device, and send away the one that is there.

        Raises:
            torch.OutOfMemoryError: it does not fit there alone.
        """
        if self.inside == name:
            return
        self.leave()
        self.inside = name
        for tensor, home in zip(_tensors(self.networks[name]), self._home[name], strict=True):
            tensor.data = home.to(self.device)

    def leave(self) -> None:
        """Send the network that is there away."""
        if self.inside is not None:
            for tensor, home in zip(_tensors(self.networks[self.inside]), self._home[self.inside], strict=True):
                tensor.data = home
            self.inside = None

    def _before(self, name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
            self.enter(name)
            return _to(args, self.device), _to(kwargs, self.device)

        return hook

    def _visiting(self, name: str, method: Any) -> Any:
        def called(*args: Any, **kwargs: Any) -> Any:
            self.enter(name)
            return method(*_to(args, self.device), **_to(kwargs, self.device))

        return called


def _tensors(network: nn.Module) -> list[torch.Tensor]:
    return [*network.parameters(), *network.buffers()]


def _to(value: Any, device: torch.device) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _to(item, device) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_to(item, device) for item in value)
    return value


def _move(network: nn.Module, device: torch.device) -> None:
    try:
        network.to(device)
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"the model does not fit into the memory of {device}: try offload model, storage float8, or device cpu; "
            "segue doctor --model says what each needs"
        ) from error


def _offload_layers(network: nn.Module, device: torch.device) -> None:
    from diffusers.hooks.group_offloading import apply_group_offloading

    apply_group_offloading(network, onload_device=device, offload_device=torch.device("cpu"), offload_type="leaf_level")
