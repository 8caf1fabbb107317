"""Fields of correspondence, packed small: in memory, and in files that are either whole or not there."""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Generic, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from segue.errors import DiskError
from segue.motion.match import Match
from segue.motion.warp import FINENESS

if TYPE_CHECKING:
    from pathlib import Path

    from jaxtyping import Float, Float16, Int16, UInt8
    from torch import Tensor

_FARTHEST = 2**15 - 1
_DIGEST = "blake2b"

T = TypeVar("T")


@dataclass(frozen=True)
class Packed:
    """A match of one pair in 7 bytes a pixel. What was packed is unpacked to the same bits, however often."""

    way: Int16[Tensor, "1 2 h w"]
    error: Float16[Tensor, "1 h w"]
    confidence: UInt8[Tensor, "1 h w"]
    whole: bool

    @staticmethod
    def of(match: Match) -> Packed:
        """Ways to 1/32 pixel unless they are whole, confidence to 1/255; ways that are too long are not believed."""
        steps = match.way if match.whole else match.way * FINENESS
        near = (steps.abs() <= _FARTHEST).all(1)
        return Packed(
            steps.round().clamp(-_FARTHEST, _FARTHEST).to(torch.int16).cpu(),
            match.error.clamp(0, 1).to(torch.float16).cpu(),
            (match.confidence * near).clamp(0, 1).mul(255).round().to(torch.uint8).cpu(),
            match.whole,
        )

    def match(self, device: torch.device) -> Match:
        """It, as float32."""
        way = self.way.to(device).float()
        error, confidence = self.error.to(device).float(), self.confidence.to(device).float().div(255)
        return Match(way if self.whole else way / FINENESS, error, confidence, self.whole)

    @property
    def bytes(self) -> int:
        """What it takes in memory."""
        return 7 * self.error.numel()


class Shelf(Generic[T]):
    """What was used last, up to so many bytes; at least `least` things."""

    def __init__(self, room: int, least: int = 4) -> None:
        self.room, self.least = room, least
        self._things: OrderedDict[object, tuple[T, int]] = OrderedDict()
        self._bytes = 0

    def get(self, name: object) -> T | None:
        """It, if it is still here."""
        found = self._things.get(name)
        if found is None:
            return None
        self._things.move_to_end(name)
        return found[0]

    def put(self, name: object, thing: T, size: int) -> None:
        """Keep it, and forget what was not used for longest."""
        before = self._things.pop(name, None)
        self._bytes += size - (before[1] if before else 0)
        self._things[name] = thing, size
        while self._bytes > self.room and len(self._things) > self.least:
            _, (_, freed) = self._things.popitem(last=False)
            self._bytes -= freed

    def __len__(self) -> int:
        return len(self._things)


def digest(picture: Float[Tensor, "1 3 h w"]) -> bytes:
    """A short name for what a picture shows, to the bit."""
    data = picture.detach().cpu().float().contiguous()
    return blake2b(data.numpy().tobytes(), digest_size=16, person=b"segue picture").digest()


def stored(path: Path, size: tuple[int, int]) -> tuple[Packed, Packed] | None:
    """What `store` wrote there, to the bit; None if nothing is, or it is damaged, or of another size."""
    with suppress(OSError, SafetensorError, KeyError, ValueError):
        file = path.read_bytes()
        data = load(file)
        if _facts(file)[_DIGEST] != _digest(data):
            return None
        there, back = (
            Packed(data[f"{side}.way"], data[f"{side}.error"], data[f"{side}.confidence"], bool(data["whole"][0]))
            for side in ("there", "back")
        )
        if all(_is_sound(side, size) for side in (there, back)):
            return there, back
    return None


def store(path: Path, pair: tuple[Packed, Packed]) -> None:
    """Write both directions under another name, moved when it is whole.

    Raises:
        DiskError: the file system refuses.
    """
    data = {"whole": torch.tensor([pair[0].whole], dtype=torch.uint8)}
    for side, packed in zip(("there", "back"), pair, strict=True):
        data |= {f"{side}.{name}": getattr(packed, name).contiguous() for name in ("way", "error", "confidence")}
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(save(data, {_DIGEST: _digest(data)}))
        part.replace(path)
    except OSError as error:
        raise DiskError(
            f"cannot keep fields in {path.parent}: {(error.strerror or str(error)).lower()}; "
            "free some space, or choose another folder"
        ) from error
    finally:
        with suppress(OSError):
            part.unlink()


def _digest(tensors: dict[str, Tensor]) -> str:
    """Of what they hold, under which names."""
    found = blake2b(digest_size=16, person=b"segue fields")
    for name in sorted(tensors):
        found.update(name.encode())
        found.update(tensors[name].numpy().data)
    return found.hexdigest()


def _facts(file: bytes) -> dict[str, str]:
    """What the head of a safetensors file says beside its tensors; nothing is read that is not in memory already."""
    head = json.loads(file[8 : 8 + int.from_bytes(file[:8], "little")])
    return head["__metadata__"]


def _is_sound(packed: Packed, size: tuple[int, int]) -> bool:
    shape = (1, size[1], size[0])
    return (
        (packed.way.dtype, packed.error.dtype, packed.confidence.dtype) == (torch.int16, torch.float16, torch.uint8)
        and packed.way.shape == (1, 2, *shape[1:])
        and packed.error.shape == packed.confidence.shape == shape
        and bool(packed.error.isfinite().all())
    )
