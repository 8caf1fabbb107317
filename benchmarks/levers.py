"""What makes an embedded model's film quicker, each by itself, and all that are on together.

The film is that of `speed.py`. "Before" is how commit 652dd6d ran it: float32 weights in torch's own order of memory,
pictures decoded eight at a time, once for measuring and once more for writing. Every other row repeats the plan of the
first, so that the same pictures are made, and says how far they are from its: the mean and the least PSNR over frames.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

import segue
from segue.models.bundle import LatentDiffusion
from segue.models.denoiser import Tally
from segue.tasks.album import Album
from segue.tasks.frames import DecodedFrames
from segue.tasks.sampling import Execution
from segue.tasks.transition_plan import TransitionPlan
from segue.tasks.transition_run import TransitionRun
from segue.temporal.ruler import Develop
from segue.types import silent


@dataclass(frozen=True)
class Lever:
    """A way of running a film.

    Args:
        name: for people.
        dtype: of the networks.
        channels_last: the order of convolutions' weights in memory.
        once: whether pictures that measured the film are those that it shows.
        together: pictures that are decoded together.
        compiled: whether the blocks that repeat in the network are compiled; the first film warms up.
    """

    name: str
    dtype: str = "float32"
    channels_last: bool = False
    once: bool = False
    together: int = 8
    compiled: bool = False


LEVERS = (
    Lever("before"),
    Lever("channels last", channels_last=True),
    Lever("decoded one by one", together=1),
    Lever("decoded once", once=True),
    Lever("bfloat16, channels last", dtype="bfloat16", channels_last=True),
    Lever("default now", channels_last=True, once=True, together=1),
    Lever("default now, in bfloat16", dtype="bfloat16", channels_last=True, once=True, together=1),
)
COMPILED = Lever("blocks compiled", compiled=True)


@dataclass(frozen=True)
class Pulled:
    """What a lever did.

    Args:
        name: of the lever.
        draw: seconds from words to final latents, measuring included but for decoding.
        decode: seconds of all decoding.
        native: frames that the model drew.
        decoded: pictures.
        rows: of the network.
        psnr: mean over frames against the first lever's film, in dB; None for that one.
        worst: the least of a frame.
    """

    name: str
    draw: float
    decode: float
    native: int
    decoded: int
    rows: int
    psnr: float | None = None
    worst: float | None = None

    @property
    def per_frame(self) -> float:
        """Seconds for a native frame."""
        return (self.draw + self.decode) / self.native


def pulled(source: str, task: segue.Transition, levers: tuple[Lever, ...], repeat: int) -> list[Pulled]:
    """All levers on one film, the quickest of so many runs each; told as they come."""
    found: list[Pulled] = []
    first: Tensor | None = None
    plan: TransitionPlan | None = None
    for lever in levers:
        model = prepared(source, lever)
        runs: list[tuple[Pulled, Tensor, TransitionPlan]] = []
        for _ in range(repeat + lever.compiled):
            runs.append(_film(model, task, lever, plan))
        best, shown, made = min(runs, key=lambda run: run[0].per_frame)
        if first is None:
            first, plan = shown, made
        else:
            best = replace(best, **_fidelity(first, shown))
        found.append(best)
    return found


def prepared(source: str, lever: Lever) -> LatentDiffusion:
    """The model as a lever has it."""
    model = segue.load(source, device="cpu", dtype=lever.dtype)
    order = torch.channels_last if lever.channels_last else torch.contiguous_format
    for part in ("unet", "vae"):
        network: Any = model.parts[part]
        network.to(memory_format=order)
    if lever.compiled:
        from segue.models.compiling import check_compiler, compiled

        check_compiler("blocks", model.device)
        model = compiled(model, "blocks")
    return model


def _film(
    model: LatentDiffusion, task: segue.Transition, lever: Lever, plan: TransitionPlan | None
) -> tuple[Pulled, Tensor, TransitionPlan]:
    tally, clock = Tally(timed=False), _Clock(model.codec.decode)
    codec: Any = _Timed(model.codec, clock)
    model = replace(model, denoiser=tally.watching(model.denoiser), codec=codec)
    start = time.process_time()
    run = TransitionRun(task.resolved(model), model, Execution(), silent, plan)
    run.album.batch, run.album.develop = lever.together, unfilled(run.developer)
    clip = run.clip()
    frames: Any = clip.frames
    if not lever.once:
        assert isinstance(frames, DecodedFrames)
        frames = replace(frames, known=Album(unfilled(run.developer), lever.together))
    levels = frames.levels(slice(0, len(frames)))
    seconds = time.process_time() - start
    record: dict[str, Any] = dict(clip.provenance.record) if clip.provenance else {}
    native = int(record["scores"]["native_frames"])
    done = Pulled(lever.name, seconds - clock.seconds, clock.seconds, native, clock.pictures, tally.rows)
    return done, levels, TransitionPlan(**record["plan"])


def unfilled(develop: Develop) -> Develop:
    """The same, but for pictures that only fill a call up, as none did before."""

    def shown(latents: Tensor, names: Sequence[int], positions: Sequence[float]) -> Tensor:
        count = len(dict.fromkeys(names))
        made = develop(latents[:count], names[:count], positions[:count])
        return torch.cat([made, made[-1:].expand(len(names) - count, -1, -1, -1)])

    return shown


@dataclass
class _Clock:
    decode: Callable[[Tensor], Tensor]
    seconds: float = 0.0
    pictures: int = 0


class _Timed:
    """A Codec whose decoding is timed."""

    def __init__(self, codec: Any, clock: _Clock) -> None:
        self._codec, self._clock = codec, clock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._codec, name)

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures."""
        start = time.process_time()
        pictures = self._codec.decode(latents)
        self._clock.seconds += time.process_time() - start
        self._clock.pictures += len(latents)
        return pictures


def _fidelity(a: Tensor, b: Tensor) -> dict[str, float]:
    """PSNR of bytes; equal pictures count as half a level apart."""
    error = (a.float() - b.float()).square().mean((1, 2, 3)).clamp(min=0.25 / a[0].numel())
    psnr = 10 * (255**2 / error).log10()
    return {"psnr": float(psnr.mean()), "worst": float(psnr.min())}


def lines(found: list[Pulled]) -> list[str]:
    """The table, for a person."""
    head = f"{'':28}{'draw':>9}{'decode':>9}{'decoded':>9}{'a frame':>10}{'times':>7}{'PSNR':>9}{'worst':>8}"
    said = [head]
    for one in found:
        psnr = "" if one.psnr is None else f"{one.psnr:9.1f}{one.worst:8.1f}"
        ratio = found[0].per_frame / one.per_frame
        said.append(
            f"{one.name:28}{one.draw:7.2f} s{one.decode:7.2f} s{one.decoded:9d}{one.per_frame:8.3f} s{ratio:7.2f}{psnr}"
        )
    return said
