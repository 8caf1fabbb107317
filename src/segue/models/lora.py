"""LoRA files, merged into the weights of a model: W + scale (alpha / rank) B A (Hu et al. 2021, arXiv:2106.09685)."""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from torch import nn

from segue.errors import CheckpointError, ModelError
from segue.models.kinds import FLUX, SD3, kind_of
from segue.models.original_names import original_name
from segue.models.weights import read_header

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from segue.models.bundle import LatentDiffusion

_FACTOR = re.compile(
    r"(?P<layer>.+?)(\.lora_(?P<peft>[AB])(\.\w+)?|(\.lora|_lora|\.lora_linear_layer)\.(?P<old>down|up)"
    r"|\.lora_(?P<kohya>down|up))\.weight"
)
_PREFIXES = {
    "lora_unet_": "unet",
    "unet_": "unet",
    "lora_transformer_": "transformer",
    "transformer_": "transformer",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
    "lora_te_": "text_encoder",
    "text_encoder_2_": "text_encoder_2",
    "text_encoder_3_": "text_encoder_3",
    "text_encoder_": "text_encoder",
}
_FLOWS = {"sd3": SD3, "flux": FLUX}
_ORIGINAL = re.compile(r"(double|single|joint)_blocks[._]")
MOTION = "motion"
"""What a model calls the layers of a motion adapter among its parts."""
_ORIGINAL_MOTION = (
    ("_temporal_transformer_", "_"),
    ("_attention_blocks_0_", "_attn1_"),
    ("_attention_blocks_1_", "_attn2_"),
)
"""How layers of motion adapters are named in the original code, and here."""
_OLD_NAMES = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}


@dataclass(frozen=True)
class Update:
    """One layer's low-rank update.

    Args:
        down: A, with the rank first.
        up: B, with the rank second.
        alpha: the update's own scale, divided by the rank; None is the rank.
    """

    down: Float[Tensor, "r i ..."]
    up: Float[Tensor, "o r ..."]
    alpha: float | None = None

    def delta(self) -> Float[Tensor, "o k"]:
        """(alpha / rank) B A, float32, with the inputs of a convolution flattened."""
        rank = self.down.shape[0]
        scale = 1.0 if self.alpha is None else self.alpha / rank
        return scale * (self.up.float().flatten(1) @ self.down.float().flatten(1))


def read_lora(path: Path) -> dict[tuple[str, str], Update]:
    """The updates of a file, by (part, layer); layers are spelt with underscores. Diffusers, PEFT and kohya formats.

    Raises:
        UnsafeFileError: a pickle.
        CheckpointError: damaged, or something else than a plain LoRA.
    """
    header = read_header(path)
    factors: dict[tuple[str, str], dict[str, Tensor]] = {}
    alphas: dict[tuple[str, str], float] = {}
    with safe_open(path, "pt") as file:
        said: dict[str, Any] = json.loads((file.metadata() or {}).get("lora_adapter_metadata", "{}"))
        for key in header:
            if match := _FACTOR.fullmatch(key):
                side = {"A": "down", "B": "up"}.get(match["peft"]) or match["old"] or match["kohya"]
                factors.setdefault(_target(match["layer"]), {})[side] = file.get_tensor(key)
            elif key.endswith(".alpha"):
                alphas[_target(key.removesuffix(".alpha"))] = float(file.get_tensor(key))
            else:
                raise CheckpointError(
                    f'{path} is {kind_of(header) or "something else"}, and no plain LoRA: it has "{key}". Expected '
                    "pairs of low-rank factors in the diffusers, PEFT or kohya format (DoRA, LoHa, LoKr and whole "
                    "models are not read)"
                )
    odd = [key for key, value in said.items() if key.endswith((".use_rslora", ".use_dora")) and value]
    if odd:
        raise CheckpointError(
            f"{path} asks for {odd[0].split('.')[1]}, which Segue does not support; expected a plain LoRA"
        )
    broken = [layer for layer, pair in factors.items() if len(pair) != 2]
    if broken or not factors:
        raise CheckpointError(f"{path} is no complete LoRA: {broken[0][1] if broken else 'it has no pair of factors'}")
    return {
        layer: Update(pair["down"], pair["up"], alphas.get(layer, _alpha(said, *layer)))
        for layer, pair in factors.items()
    }


def _alpha(said: Mapping[str, Any], part: str, layer: str) -> float | None:
    """The alpha that PEFT's metadata gives a layer: by the end of its name, or one for all layers of the part."""
    for name, alpha in (said.get(f"{part}.alpha_pattern") or {}).items():
        if f"_{layer}".endswith(f"_{_target(f'{part}.{name}')[1]}"):
            return float(alpha)
    return said.get(f"{part}.lora_alpha")


def merged(model: LatentDiffusion, loras: Mapping[Path, float]) -> LatentDiffusion:
    """The model with LoRAs merged, in order; its own networks are changed. Scale 0 changes no bit.

    Raises:
        UnsafeFileError: a pickle.
        CheckpointError: damaged, or made for another architecture.
        ModelError: the weights are stored in fewer bits.
    """
    if loras and model.placement.storage is not None:
        raise ModelError(
            f"the weights of {model.name} are stored in {model.placement.storage}, and a LoRA is merged before that: "
            "load the model with its LoRAs"
        )
    updates = {path: fitting(model, path) for path in loras}
    for path, scale in loras.items():
        _merge(updates[path], scale)
    added = tuple((path, float(scale)) for path, scale in loras.items())
    return replace(model, weights=(*model.weights, *added), loras=(*model.loras, *added))


@contextmanager
def applied(model: LatentDiffusion, loras: Mapping[Path, float]) -> Generator[LatentDiffusion]:
    """The model with LoRAs merged for as long as the `with` lasts; its weights are then put back, bit by bit.

    Raises:
        UnsafeFileError: a pickle.
        CheckpointError: damaged, or made for another architecture.
    """
    touched = {id(layer): layer for path in loras for layer, _ in fitting(model, path)}
    before = {key: layer.weight.detach().clone() for key, layer in touched.items()}
    try:
        yield merged(model, loras)
    finally:
        with torch.no_grad():
            for key, layer in touched.items():
                layer.weight.copy_(before[key])


def _merge(updates: list[tuple[nn.Linear | nn.Conv2d, Update]], scale: float) -> None:
    if scale == 0:
        return
    with torch.no_grad():
        for layer, update in updates:
            weight = layer.weight
            delta = update.delta().to(weight.device).reshape(weight.shape)
            weight.copy_(weight.float() + scale * delta)


def fitting(model: LatentDiffusion, path: Path) -> list[tuple[nn.Linear | nn.Conv2d, Update]]:
    """Each layer that a file updates, with its update; all of them must be there and have the right shape.

    Raises:
        UnsafeFileError: a pickle.
        CheckpointError: damaged, or made for another architecture.
    """
    layers = _layers(model)
    fitting: list[tuple[nn.Linear | nn.Conv2d, Update]] = []
    for target, update in read_lora(path).items():
        layer = layers.get(target)
        why = (
            f"{model.name} has no layer {'.'.join(target)}" if layer is None else _shape_problem(layer, update, target)
        )
        if why or layer is None:
            header = read_header(path)
            kind = kind_of(header)
            original = next((key for key in header if _ORIGINAL.search(key)), None)
            if kind and original and kind.family == _FLOWS.get(model.family):
                raise CheckpointError(
                    f"{path} is {kind}, as {model.name} is, but names its layers as the original code and kohya's "
                    f'scripts do ("{original}"), which is not read for this family. Expected the names of diffusers, '
                    'such as "transformer.transformer_blocks.0.attn.to_q.lora_A.weight": convert it'
                )
            what = f"is {kind}, and" if kind and kind.family else "was"
            raise CheckpointError(f"{path} {what} made for a model of another architecture: {why}")
        fitting.append((layer, update))
    return fitting


def _layers(model: LatentDiffusion) -> dict[tuple[str, str], nn.Linear | nn.Conv2d]:
    """What a LoRA can update, by part and by every spelling of its layers. Autoencoders are left alone."""
    return {
        # Layers along time that were put into a UNet are named as if they were its own.
        ("unet" if part == MOTION else part, spelling): module
        for part, network in model.parts.items()
        if part != "vae"
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
        for spelling in _spellings(name, network if part == "unet" else None)
    }


def _shape_problem(layer: nn.Linear | nn.Conv2d, update: Update, target: tuple[str, str]) -> str:
    wanted = tuple(layer.weight.shape)
    rank = update.down.shape[0]
    inputs = tuple(update.down.shape[1:])
    fits = (
        update.up.shape[:2] == (wanted[0], rank)
        and update.up[0, 0].numel() == 1
        and (inputs == wanted[1:] or (*inputs, 1, 1) == wanted[1:] or inputs == (*wanted[1:], 1, 1))
    )
    return "" if fits else f"{'.'.join(target)} is {wanted}, the update is for {(update.up.shape[0], *inputs)}"


def _target(layer: str) -> tuple[str, str]:
    """(part, layer) for a name as any of the formats spells it."""
    flat = layer.replace(".", "_").replace("_processor_", "_")
    if "_motion_modules_" in flat:
        for old, new in _ORIGINAL_MOTION:
            flat = flat.replace(old, new)
    for prefix, part in _PREFIXES.items():
        if flat.startswith(prefix):
            name = flat.removeprefix(prefix)
            if part.startswith("text_encoder"):
                name = name.removeprefix("text_model_")
                for old, new in _OLD_NAMES.items():
                    name = re.sub(rf"_{old}$", f"_{new}", name)
            return part, name
    return "unet", flat


def _spellings(name: str, unet: Any = None) -> Iterator[str]:
    for spelt in (name, original_name(name, unet.config) if unet is not None else None):
        if spelt is not None:
            flat = spelt.replace(".", "_").removeprefix("text_model_")
            yield flat
            # An older format leaves out that to_out is a list.
            if flat.endswith("to_out_0"):
                yield flat.removesuffix("_0")
