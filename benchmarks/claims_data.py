"""The clips of `claims.py`: latents, captions and motion, made once and kept; and the words of its models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from sprites import MIRRORS, WORDS, Shots, mirrored, pictures, some
from torch import Tensor

from segue.media.clip import TensorFrames
from segue.training.clips import Augmentation, augmented
from segue.types import Codec, Conditioning

PLENTY, FEW, KEPT = 1024, 24, 128
VERSIONS = 24  # of each of the few, when augmented
AUGMENTATION = Augmentation(crop=0.85, colour=0.2)
SEEDS = {"plenty": 1, "kept": 2, "drawn": 3, "reference": 4}


class Words:
    """A TextEncoder of captions with a fixed number of words, each of which is a random vector that stays as it is."""

    WIDTH = 64
    TOKENS = 4

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(11)
        self._vectors = torch.randn(len(WORDS), self.WIDTH, generator=generator)

    def __call__(self, prompts: Sequence[str]) -> Conditioning:
        """One row per prompt; an empty one is zeros."""
        text = torch.zeros(len(prompts), self.TOKENS, self.WIDTH)
        for row, prompt in enumerate(prompts):
            for place, word in enumerate(prompt.split()):
                text[row, place] = self._vectors[WORDS.index(word)]
        return Conditioning(text)


@dataclass(frozen=True)
class Part:
    """Clips of one kind.

    Args:
        latents: of all frames, in half precision.
        captions: of each.
        velocities: x and y in pixels per frame, as the caption says it.
    """

    latents: Float[Tensor, "n t c h w"]
    captions: list[str]
    velocities: Float[Tensor, "n 2"]


class Data:
    """Parts by name: "plenty", "few", "augmented", "drawn" and "kept".

    Args:
        folder: where latents are kept.
        codec: of pictures.
        scale: how many clips there are, as a share of the usual numbers.
    """

    def __init__(self, folder: Path, codec: Codec, scale: float = 1.0) -> None:
        self.folder, self.codec, self.scale = folder, codec, scale
        self._parts: dict[str, Part] = {}

    def part(self, name: str) -> Part:
        """Clips to learn from, or to be judged by."""
        if name not in self._parts:
            self._parts[name] = self._made(name)
        return self._parts[name]

    def reference(self, count: int) -> list[TensorFrames]:
        """Other real clips, that went through the codec."""
        latents = self.part("reference").latents[:count].float()
        with torch.no_grad():
            return [TensorFrames.rounded(self.codec.decode(clip)) for clip in latents]

    def shots(self, name: str) -> Shots:
        """What the clips of a part show, before they are augmented."""
        if name in ("few", "augmented"):
            return self.shots("plenty").first(self._count(FEW))
        count = self._count(PLENTY if name in ("plenty", "drawn") else KEPT)
        return some(count, "drawn" if name == "drawn" else "filmed", SEEDS[name])

    def _count(self, usual: int) -> int:
        return max(8, round(usual * self.scale))

    def _made(self, name: str) -> Part:
        shots = self.shots(name)
        if name == "few":
            return Part(self.part("plenty").latents[: len(shots)], shots.captions(), shots.velocities())
        kept = self.folder / f"{name}.latents"
        if name != "augmented":
            latents = _kept(kept, lambda: self._encoded(pictures(shots)))
            return Part(latents, shots.captions(), shots.velocities())
        return self._augmented(kept, shots)

    def _augmented(self, kept: Path, shots: Shots) -> Part:
        """Versions of the few clips: mirrored, run backwards, cut out, in other colours; all frames of one alike."""
        rng = np.random.default_rng(5)
        ways = [[way for way in MIRRORS if rng.random() < 0.5] for _ in range(max(2, self._count(VERSIONS)))]

        def versions() -> Tensor:
            plain = pictures(shots)
            made = [augmented(mirrored(plain, shots, how)[0], AUGMENTATION, rng) for how in ways]
            return torch.cat([self._encoded(clips) for clips in made])

        said = [mirrored(torch.empty(0, 0, 0, 0, 0), shots, how)[1] for how in ways]
        captions = [caption for one in said for caption in one.captions()]
        return Part(_kept(kept, versions), captions, torch.cat([one.velocities() for one in said]))

    @torch.no_grad()
    def _encoded(self, clips: Tensor) -> Tensor:
        found = [self.codec.encode(part) for part in clips.flatten(0, 1).split(64)]
        return torch.cat(found).half().unflatten(0, clips.shape[:2]).contiguous()


def _kept(file: Path, make: Callable[[], Tensor]) -> Tensor:
    """Latents of a file, which is written when they are made."""
    if not file.exists():
        part = file.with_suffix(".part")
        save_file({"latents": make()}, part)
        part.replace(file)
    return load_file(file)["latents"]
