"""Networks of transformers that annotate: found in a folder or on the hub, and shown pictures as they want them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import interpolate

from segue.errors import CheckpointError, ModelNotFoundError
from segue.models.devices import find_device
from segue.models.hub import download_network, parse_repository
from segue.models.weights import read_json, read_network

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

_SETTINGS = "preprocessor_config.json"
_STEM = "model"
_FILTERS = {0: "nearest-exact", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers


@dataclass(frozen=True)
class Pretrained:
    """A frozen network, and how it wants its pictures.

    Args:
        module: of transformers.
        settings: its preprocessor_config.json.
        source: where it came from.
    """

    module: Any
    settings: Mapping[str, Any]
    source: str

    @property
    def device(self) -> torch.device:
        """Where it works."""
        return self.module.device

    def shown(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 H W"]:
        """Pictures of its size, brightness and type, on its device.

        Resized with antialiasing in floats, where transformers' own goes by way of bytes.
        """
        size = self._size(pictures.shape[2], pictures.shape[3])
        if size != tuple(pictures.shape[2:]):
            mode = _FILTERS.get(int(self.settings.get("resample", 2)), "bilinear")
            smooth = {"antialias": True} if mode != "nearest-exact" else {}
            pictures = interpolate(pictures.float(), size, mode=mode, **smooth).clamp(0, 1)
        return self.normalised(pictures)

    def normalised(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Pictures of its brightness and type, on its device."""
        if self.settings.get("do_normalize", True):
            mean, std = (
                torch.tensor(self.settings.get(name, usual), device=pictures.device)[:, None, None]
                for name, usual in (("image_mean", [0.485, 0.456, 0.406]), ("image_std", [0.229, 0.224, 0.225]))
            )
            pictures = (pictures.float() - mean) / std
        return pictures.to(self.module.device, self.module.dtype)

    def _size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) in which it sees pictures of this size.

        Raises:
            CheckpointError: its settings do not say, in a way that is known.
        """
        said, multiple = self.settings.get("size"), int(self.settings.get("ensure_multiple_of", 1))
        if not self.settings.get("do_resize", True):
            return height, width
        if "size_divisor" in self.settings:
            multiple = int(self.settings["size_divisor"])
            return max(multiple, height // multiple * multiple), max(multiple, width // multiple * multiple)
        if not said:
            return height, width
        # Older files say one number for both sides.
        size: dict[str, int] = {"height": said, "width": said} if isinstance(said, int) else said
        if "shortest_edge" in size or "longest_edge" in size:
            factor = size.get("shortest_edge", math.inf) / min(height, width)
            factor = min(factor, size.get("longest_edge", math.inf) / max(height, width))
            return round(height * factor), round(width * factor)
        if "height" not in size or "width" not in size:
            raise CheckpointError(
                f"expected a preprocessor_config.json whose size has height and width, or a shortest_edge; got {said}"
            )
        wanted = size["height"], size["width"]
        if not self.settings.get("keep_aspect_ratio", False):
            return wanted
        # As little as possible: the one side fits, the other is larger or smaller, whichever changes the picture less.
        factors = float(wanted[0] / height), float(wanted[1] / width)
        factor = factors[0] if abs(1 - factors[0]) <= abs(1 - factors[1]) else factors[1]
        tall, wide = (max(multiple, round(side * factor / multiple) * multiple) for side in (height, width))
        return tall, wide


def load_network(source: str, architectures: Iterable[str], what: str, device: str | torch.device | None) -> Pretrained:
    """A network of one of some classes of transformers. Only safetensors are read, and no code that comes with them.

    Args:
        source: a folder, or a hub repository "owner/name" or "owner/name@revision".
        architectures: names of classes.
        what: they are for, in what is said where it is none of them.
        device: None takes the fastest.

    Raises:
        ModelNotFoundError: there is no such folder or repository.
        ModelAccessError: the hub cannot be reached and its cache does not have it.
        CheckpointError: it is another network, or damaged.
        UnsafeFileError: its weights come as a pickle only.
        ModelError: the device is not there.
    """
    import transformers

    place = find_device(device)
    folder = Path(source).expanduser()
    if not folder.is_dir():
        repository = parse_repository(source)
        if repository is None or repository.file is not None:
            raise ModelNotFoundError(f'no folder "{source}"; give a folder, or a hub repository "owner/name", {what}')
        folder = download_network(repository, _STEM, (_SETTINGS,))
    said = (read_json(folder / "config.json").get("architectures") or ["network that does not say its class"])[0]
    known = tuple(architectures)
    if said not in known:
        raise CheckpointError(f"{source} holds a {said}; expected one {what}: {', '.join(known)}")
    module, _ = read_network(getattr(transformers, said), folder, _STEM, place, torch.float32)
    return Pretrained(module, read_json(folder / _SETTINGS), source)
