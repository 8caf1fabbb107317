"""AnimateDiff: layers that look along time, put into a UNet of single pictures that stays as it is.

Guo et al. 2023, arXiv:2307.04725. The layers of an adapter come after each transformer of the UNet or, where a block
has none, after its convolutions. They step in while the network is called and are gone afterwards; so all that works
with the UNet (LoRAs, controls, reference pictures) works with clips.
"""

from __future__ import annotations

import math
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers.models.unets.unet_motion_model import MotionAdapter
from safetensors.torch import load_file
from torch import nn

from segue.errors import CheckpointError, ModelError, ModelNotFoundError, TaskError
from segue.models.bundle import LatentDiffusion, Moving
from segue.models.clip_rows import DIAL, motion_of
from segue.models.control import unet_of
from segue.models.hub import download_network, parse_repository, place_of_network
from segue.models.kinds import kind_of
from segue.models.lora import MOTION
from segue.models.weights import MISFITS, freeze, quiet, read_header, read_network
from segue.types import Call, Conditioning, Network, over_rows

if TYPE_CHECKING:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from jaxtyping import Float
    from torch import Tensor

FRAMES, FPS = 16, 8.0
"""Of the clips that the published adapters learned from."""
TRAINED = {"beta_schedule": "linear", "clip_sample": False, "timestep_spacing": "linspace", "steps_offset": 1}
"""What adapters change in the scheduler's configuration of the model: they learned on other levels of noise."""
_RENAMED = (
    (".temporal_transformer.", "."),
    (".attention_blocks.0.", ".attn1."),
    (".attention_blocks.1.", ".attn2."),
    (".norms.0.", ".norm1."),
    (".norms.1.", ".norm2."),
    (".ff_norm.", ".norm3."),
)
_PLACES = "pos_encoder.pe"


def with_motion_adapter(model: LatentDiffusion, source: str | Path, strength: float = 1.0) -> LatentDiffusion:
    """The model, which makes clips as well: `model.over(frames)`. One frame is what the model itself makes of it.

    Args:
        model: of Stable Diffusion 1.x or XL, as the adapter was made for; it shares all networks with what is returned.
        source: a folder of the diffusers layout (config.json and weights), a hub repository of it, or a file of the
            original layout.
        strength: how much the layers act; 0 is not at all.

    Raises:
        ModelNotFoundError: nothing is there.
        UnsafeFileError: a pickle.
        CheckpointError: damaged, or made for another architecture.
        ModelError: the model has no such UNet, is compiled, is stored in fewer bits, or has an adapter already.
        TaskError: the strength is no number.
    """
    if not math.isfinite(strength):
        raise TaskError(f"the strength of a motion adapter must be a number, got {strength}")
    unet = unet_of(model).unet
    if model.placement.compile is not None or model.placement.begins_at_home:
        raise ModelError(f"{model.name} is compiled, or placed: a motion adapter is put in before that")
    if model.moving is not None:
        raise ModelError(f"{model.name} makes clips already: take the model of single pictures")
    adapter, files = read_adapter(source, unet.device, unet.dtype)
    layers = tuple(placed_layers(unet, adapter, str(source)))
    network = MotionNetwork(model.denoiser.network, layers, strength)
    longest = int(adapter.config["motion_max_seq_length"])
    return replace(
        model,
        denoiser=replace(model.denoiser, network=network),
        parts={**model.parts, MOTION: adapter},
        scheduler={**model.scheduler, **TRAINED},
        weights=(*model.weights, *((file, strength) for file in files)),
        settings=(*model.settings, dict(adapter.config)),
        adapter=str(Path(source).expanduser().absolute()) if Path(source).expanduser().exists() else str(source),
        moving=Moving(
            min(FRAMES, longest), FPS, most=longest, engine="frames denoised together (AnimateDiff)", dial=True
        ),
    )


def with_strength(model: LatentDiffusion, strength: float) -> LatentDiffusion:
    """A model with a motion adapter, whose layers act as much as said; 0 is the model of single pictures.

    Raises:
        ModelError: it has no motion adapter.
        TaskError: the strength is no number.
    """
    network = model.denoiser.network
    if not math.isfinite(strength):
        raise TaskError(f"the strength of a motion adapter must be a number, got {strength}")
    if not isinstance(network, MotionNetwork):
        raise ModelError(f"{model.name} has no motion adapter of AnimateDiff: load it with one")
    return replace(model, denoiser=replace(model.denoiser, network=replace(network, strength=strength)))


@dataclass(frozen=True)
class MotionNetwork:
    """A Network around a UNet's, into which an adapter's layers step for as long as a call lasts.

    Args:
        network: which may have others around it already.
        layers: each with the module of the UNet whose answer it works on.
        strength: 1 takes their answer, 0 that of the UNet.
    """

    network: Network
    layers: tuple[tuple[nn.Module, nn.Module], ...]
    strength: float = 1.0

    def __call__(
        self, x: Float[Tensor, "b c h w"], time: Float[Tensor, " b"], cond: Conditioning, call: Call
    ) -> Float[Tensor, "b c h w"]:
        """What the UNet predicts for frames of clips; for single pictures, as if there were no adapter."""
        strength = motion_of(cond, self.strength)
        cond = replace(cond, extra={name: part for name, part in cond.extra.items() if name != DIAL})
        if call.group == 1 or (not isinstance(strength, torch.Tensor) and strength == 0):
            return self.network(x, time, cond, call)
        with self._within(call.group, strength):
            return self.network(x, time, cond, call)

    @contextmanager
    def _within(self, frames: int, strength: float | Float[Tensor, " b"]) -> Generator[None]:
        handles = [place.register_forward_hook(_Moved(layer, frames, strength)) for place, layer in self.layers]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


@dataclass(frozen=True)
class _Moved:
    """A forward hook that lets a layer look along time at what its place in the UNet has made."""

    layer: nn.Module
    frames: int
    strength: float | Float[Tensor, " b"]

    def __call__(self, place: nn.Module, inputs: Any, answer: Any) -> Any:
        del place, inputs
        made = answer[0] if isinstance(answer, tuple) else answer
        moved = self.layer(made, num_frames=self.frames)
        if isinstance(self.strength, torch.Tensor):
            moved = made.lerp(moved, over_rows(self.strength, made))
        elif self.strength != 1:
            moved = made.lerp(moved, self.strength)
        return (moved, *answer[1:]) if isinstance(answer, tuple) else moved


def placed_layers(
    unet: UNet2DConditionModel, adapter: MotionAdapter, name: str
) -> Generator[tuple[nn.Module, nn.Module]]:
    """Each layer of an adapter, with the module of the UNet that it comes after.

    Raises:
        CheckpointError: the adapter was made for another UNet.
    """
    network: Any = unet
    blocks, own_blocks = [*network.down_blocks, *network.up_blocks], [*adapter.down_blocks, *adapter.up_blocks]
    if len(blocks) != len(own_blocks):
        raise CheckpointError(_misfit(name, f"{len(adapter.down_blocks)} levels", f"{len(network.down_blocks)}"))
    pairs = list[tuple[Any, Any]](zip(blocks, own_blocks, strict=True))
    if adapter.mid_block is not None:
        pairs.append((network.mid_block, adapter.mid_block))
    for block, own in pairs:
        places, layers = getattr(block, "attentions", None) or block.resnets, own.motion_modules
        if len(places) != len(layers):
            raise CheckpointError(_misfit(name, f"{len(layers)} layers in a block", f"{len(places)}"))
        for place, layer in zip(places, layers, strict=True):
            width, expected = layer.norm.num_channels, _width(place)
            if width != expected:
                raise CheckpointError(_misfit(name, f"a layer of {width} channels", f"{expected}"))
            yield place, layer


def _width(place: Any) -> int:
    return int(getattr(place, "out_channels", None) or place.in_channels)


def _misfit(name: str, found: str, expected: str) -> str:
    return f"the motion adapter {name} has {found}, and the UNet {expected}: it was made for another model"


def read_adapter(
    source: str | Path, device: torch.device, dtype: torch.dtype
) -> tuple[MotionAdapter, tuple[Path, ...]]:
    """An adapter, frozen, and the files that it came from; see `with_motion_adapter`.

    Raises:
        ModelNotFoundError: nothing is there.
        UnsafeFileError: a pickle.
        CheckpointError: damaged, or no motion adapter.
    """
    path = Path(source).expanduser()
    if path.is_file():
        adapter = _from_original(path)
        freeze(adapter, device, dtype)
        return adapter, (path,)
    repository = parse_repository(source) if isinstance(source, str) and not path.exists() else None
    if repository is not None and repository.file is not None:
        raise ModelNotFoundError(f"{source} is a single file on the hub: download it, and give its path")
    place = place_of_network(source, "motion adapter at {}: expected a folder with config.json, a file or a repository")
    folder = place if isinstance(place, Path) else download_network(place)
    adapter, files = read_network(MotionAdapter, folder, "diffusion_pytorch_model", device, dtype)
    if adapter.conv_in is not None:
        raise CheckpointError(f"{source} is an adapter of PIA, which is shown a picture beside the latents: not read")
    return adapter, files


def _from_original(path: Path) -> MotionAdapter:
    header = read_header(path)
    kind = kind_of(header)
    if kind is None or kind.what != "motion adapter":
        raise CheckpointError(f"{path} is {kind or 'of an unknown layout'}; expected a motion adapter of AnimateDiff")
    shapes = {_renamed(key): entry.shape for key, entry in header.items() if "motion_modules." in key}
    try:
        with quiet():
            adapter = MotionAdapter(**_settings(shapes))
        weights = {_renamed(key): value for key, value in load_file(path).items() if "motion_modules." in key}
        # Where a frame lies is told in waves, which are computed; files may have them too.
        learned = {key: value for key, value in weights.items() if _PLACES not in key}
        adapter.load_state_dict({**learned, **_waves(adapter)})
    except MISFITS as error:
        why = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path} does not hold all of a motion adapter, or something else: {why}") from error
    return adapter


def _waves(adapter: MotionAdapter) -> dict[str, Tensor]:
    return {name: value for name, value in adapter.state_dict().items() if name.endswith(".pe")}


def _renamed(key: str) -> str:
    """The name that diffusers gives to a tensor of the original layout."""
    key = key.removeprefix("module.")
    for old, new in _RENAMED:
        key = key.replace(old, new)
    return key


def _settings(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The configuration that the names and shapes of an adapter's tensors tell."""
    widths: dict[int, int] = {}
    layers = 0
    for name, shape in shapes.items():
        if match := re.fullmatch(r"down_blocks\.(\d+)\.motion_modules\.(\d+)\.norm\.weight", name):
            widths[int(match[1])] = shape[0]
            layers = max(layers, int(match[2]) + 1)
    places = next((shape[1] for name, shape in shapes.items() if _PLACES in name), 32)
    return {
        "block_out_channels": tuple(widths[level] for level in range(len(widths))),
        "motion_layers_per_block": layers,
        "motion_max_seq_length": places,
        "use_motion_mid_block": any(name.startswith("mid_block.") for name in shapes),
    }
