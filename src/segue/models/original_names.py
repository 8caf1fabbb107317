"""What the layers of a UNet are called in the original (ldm) layout, which many LoRA files go by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_MIDDLE = {"resnets.0": "middle_block.0", "attentions.0": "middle_block.1", "resnets.1": "middle_block.2"}
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def original_name(name: str, config: Mapping[str, Any]) -> str | None:
    """The original name of a module of UNet2DConditionModel; None if the original layout has none such.

    Args:
        name: such as "down_blocks.1.attentions.0.proj_in".
        config: the network's.
    """
    if name in _ENDS:
        return _ENDS[name]
    side, _, rest = name.partition(".")
    steps = rest.split(".")
    if side == "mid_block" and len(steps) > 2:
        place = _MIDDLE.get(".".join(steps[:2]))
        return place and _joined(place, steps[0], steps[2:])
    if side not in ("down_blocks", "up_blocks") or len(steps) < 4:
        return None
    block, kind, number = int(steps[0]), steps[1], int(steps[2])
    layers = config["layers_per_block"]
    if not isinstance(layers, int):
        return None
    if side == "down_blocks":
        first = 1 + block * (layers + 1)
        if kind == "downsamplers":
            return f"input_blocks.{first + layers}.0.op"
        place = f"input_blocks.{first + number}"
    else:
        first = block * (layers + 1)
        if kind == "upsamplers":
            after = 2 if "CrossAttn" in config["up_block_types"][block] else 1
            return f"output_blocks.{first + layers}.{after}.conv"
        place = f"output_blocks.{first + number}"
    return _joined(f"{place}.{int(kind == 'attentions')}", kind, steps[3:])


def _joined(place: str, kind: str, rest: list[str]) -> str:
    first = _RESNET.get(rest[0], rest[0]) if kind == "resnets" else rest[0]
    return ".".join([place, first, *rest[1:]])
