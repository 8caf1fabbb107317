"""Pictures that are decoded while others are drawn: the same to the bit, few at a time, and none lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor

from segue.errors import ExhaustedError, InterruptedRunError
from segue.media.clip import levels_of
from segue.models import side_stream
from segue.models.bundle import LatentDiffusion
from segue.tasks import album as albums
from segue.tasks.ahead import MOST, Ahead
from segue.tasks.album import Album
from segue.tasks.branching import Branching
from segue.tasks.pace import Pace
from segue.tasks.sampling import Execution
from segue.tasks.transition import Transition
from segue.tasks.transition_plan import TransitionPlan
from segue.types import Call, Conditioning
from shown import pixels, record
from toy import PatchCodec, ToyNetwork, toy_model

FILM = Transition(("one", "two", "three"), seconds=2.0, fps=20, seeds=(1, 2, 3))
TASKS = {
    "adaptive": FILM,
    "fixed": replace(FILM, tree=Branching(branches=(2, 3, 5), at=(0, 3, 6))),
    "smooth": replace(FILM, tree=Branching(smoothness=0.03)),
    "ghosting": replace(FILM, tree=Branching(ghosting=0.05)),
    "loop": replace(FILM, pace=Pace(loop="loop")),
    "blend": replace(FILM, fill="blend"),
    "latents": replace(FILM, tree=Branching(distance="latents")),
    "auto": replace(FILM, tree=Branching(depth="auto")),
}


class Shaped(PatchCodec):
    """Decodes with sums that depend on how many pictures there are, and remembers who it was that asked."""

    def __init__(self) -> None:
        self.decoded, self.who = list[tuple[str, int]](), "main"

    def decode(self, latents: Tensor) -> Tensor:
        self.decoded.append((self.who, len(latents)))
        return (super().decode(latents) + 1e-6 * len(latents)).clamp(0, 1)


@dataclass
class Event:
    """A device's event, which is reached when its stream has done so much work."""

    stream: Stream
    due: int
    made: Tensor

    def is_there(self) -> bool:
        return self.stream.done >= self.due

    def wait(self) -> Tensor:
        self.stream.waits += not self.is_there()
        self.stream.done = max(self.stream.done, self.due)
        return self.made


@dataclass
class Stream:
    """A side stream as a record of calls: what is asked of it is done one after the other, a batch for every `pace`
    questions whether there is room for another.
    """

    codec: Shaped
    pace: int = 3
    room: bool = True
    fails_at: int = -1
    begun: int = 0
    done: int = 0
    waits: int = 0
    asked: int = 0
    most: int = 0

    def has_room(self, latents: Tensor) -> bool:
        self.asked += 1
        self.done = min(self.begun, self.done + (self.asked % self.pace == 0))
        return self.room

    def __call__(self, latents: Tensor) -> Event:
        if self.begun == self.fails_at:
            raise ExhaustedError("out of memory while decoding")
        self.codec.who, self.begun = "side", self.begun + 1
        made = self.codec.decode(latents)
        self.codec.who = "main"
        self.most = max(self.most, self.begun - self.done)
        return Event(self, self.begun, made)


@dataclass
class Promise:
    """Of a thread."""

    future: Future[Tensor]

    def is_there(self) -> bool:
        return self.future.done()

    def wait(self) -> Tensor:
        return self.future.result()


@dataclass
class Worker:
    """A side stream that is a thread: real concurrency, one picture after the other, and slow."""

    codec: Shaped
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))

    def has_room(self, latents: Tensor) -> bool:
        return True

    def __call__(self, latents: Tensor) -> Promise:
        def work() -> Tensor:
            with torch.no_grad():
                time.sleep(0.001)
                return PatchCodec.decode(self.codec, latents) + 1e-6 * len(latents)

        self.codec.decoded.append(("side", len(latents)))
        return Promise(self.pool.submit(lambda: work().clamp(0, 1)))


def accelerated(
    monkeypatch: pytest.MonkeyPatch, beside: Callable[[Shaped], Stream | Worker], batch: int = 1, **changes: object
) -> tuple[LatentDiffusion, Shaped]:
    """A model whose device has a side stream, and what its codec was asked."""
    codec = Shaped()
    model = replace(toy_model(**changes), codec=codec)  # pyright: ignore[reportArgumentType]
    monkeypatch.setattr(side_stream, "side_stream", lambda _: beside(codec))  # pyright: ignore
    monkeypatch.setattr(Execution, "decoded_at_once", lambda *_: batch)  # pyright: ignore
    return model, codec


def plain_film(task: Transition, batch: int) -> tuple[Tensor, dict[str, object]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Execution, "decoded_at_once", lambda *_: batch)  # pyright: ignore
        clip = task.run(replace(toy_model(), codec=Shaped()))
        return levels_of(clip.frames, slice(0, len(clip))), record(clip)


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("name", TASKS)
def test_the_film_is_the_same_to_the_bit(monkeypatch: pytest.MonkeyPatch, name: str, batch: int) -> None:
    expected, told = plain_film(TASKS[name], batch)
    streams: list[Stream] = []

    def beside(codec: Shaped) -> Stream:
        streams.append(Stream(codec))
        return streams[-1]

    model, codec = accelerated(monkeypatch, beside, batch)
    clip = TASKS[name].run(model)
    assert torch.equal(levels_of(clip.frames, slice(0, len(clip))), expected)
    assert record(clip) == told
    assert streams[0].most <= MOST
    assert {size for _, size in codec.decoded} == {batch} or name == "auto", "previews of depths are by themselves"
    side = sum(size for who, size in codec.decoded if who == "side")
    nodes, previews = len(record(clip)["plan"]["nodes"]), 10 if name == "auto" else 0
    shown = {shot[place] for shot in record(clip)["plan"]["shots"] for place in (0, 1)}
    wanted = len(shown) if name == "latents" else nodes
    assert sum(size for _, size in codec.decoded) <= (wanted + previews) + batch * len(codec.decoded) * (batch > 1)
    assert side >= 4


def test_what_is_shown_is_decoded_while_the_rest_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the plan is known, decoding has begun long before the network is through."""
    drawn: list[str] = []

    class Watched(ToyNetwork):
        def __call__(self, x: Tensor, time: Tensor, cond: Conditioning, call: Call) -> Tensor:
            drawn.append("call")
            return super().__call__(x, time, cond, call)

    plan = TransitionPlan(**record(FILM.run(toy_model()))["plan"])
    model, codec = accelerated(monkeypatch, lambda codec: Stream(codec, pace=1), network=Watched())

    class Telling(Shaped):
        def decode(self, latents: Tensor) -> Tensor:
            drawn.append(self.who)
            return super().decode(latents)

    codec.__class__ = Telling
    clip = FILM.run(model, Execution(max_batch=4), plan=plan)
    last = len(drawn) - drawn[::-1].index("call")
    early = drawn[:last].count("side")
    assert early >= 0.6 * len({shot[0] for shot in plan.shots})
    _ = levels_of(clip.frames, slice(0, len(clip)))
    assert len(drawn) - drawn.count("call") <= len(plan.nodes), "each picture once"


def test_with_a_thread_in_the_place_of_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    expected, told = plain_film(FILM, 1)
    workers: list[Worker] = []

    def beside(codec: Shaped) -> Worker:
        workers.append(Worker(codec))
        return workers[-1]

    model, codec = accelerated(monkeypatch, beside)
    stream = FILM.stream(model)
    frames = torch.stack([part.picture for part in stream if part.number is not None])
    assert torch.equal(frames, expected)
    assert record(stream.clip) == told
    assert sum(who == "side" for who, _ in codec.decoded) > 10
    workers[0].pool.shutdown()


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_what_is_finished_is_kept_when_it_is_interrupted(monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    def progress(what: str, done: float, total: float) -> None:
        if what == "rendering frames" and done > share * total:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError) as plain:
        FILM.run(replace(toy_model(), codec=Shaped()), progress=progress)
    model, _ = accelerated(monkeypatch, Stream)
    with pytest.raises(InterruptedRunError) as caught:
        FILM.run(model, progress=progress)
    assert plain.value.partial is not None and caught.value.partial is not None
    assert torch.equal(pixels(caught.value.partial), pixels(plain.value.partial))
    assert str(caught.value) == str(plain.value)


def test_a_wait_that_is_interrupted_loses_nothing() -> None:
    class Cut(Event):
        cuts = 1

        def wait(self) -> Tensor:
            if Cut.cuts:
                Cut.cuts -= 1
                raise KeyboardInterrupt
            return super().wait()

    class Cutting(Stream):
        def __call__(self, latents: Tensor) -> Cut:
            event = super().__call__(latents)
            return Cut(event.stream, event.due, event.made)

    stream = Cutting(Shaped())
    album = developing(stream)
    x = {0: latents()}
    album.begin(x, {0: 0.0})
    with pytest.raises(KeyboardInterrupt):
        album.levels([0], x, {0: 0.0})
    album.levels([0], x, {0: 0.0})
    assert stream.codec.decoded == [("side", 1)]


@pytest.mark.parametrize("stream", [{"room": False}, {"fails_at": 0}, {"fails_at": 5}])
def test_short_memory_only_leaves_it_for_later(monkeypatch: pytest.MonkeyPatch, stream: dict[str, int]) -> None:
    expected, told = plain_film(FILM, 1)
    streams: list[Stream] = []

    def beside(codec: Shaped) -> Stream:
        streams.append(Stream(codec, **stream))  # pyright: ignore
        return streams[-1]

    model, _ = accelerated(monkeypatch, beside)
    clip = FILM.run(model)
    assert torch.equal(levels_of(clip.frames, slice(0, len(clip))), expected)
    assert record(clip) == told
    assert streams[0].begun == max(stream.get("fails_at", 0), 0), "after a failure nothing more is begun"


def developing(stream: Stream, batch: int = 1) -> Album:
    def finished(decoded: Tensor, names: Sequence[int], positions: Sequence[float]) -> Tensor:
        return decoded

    def develop(latents: Tensor, names: Sequence[int], positions: Sequence[float]) -> Tensor:
        return stream.codec.decode(latents)

    return Album(develop, batch, Ahead(stream, finished))


def latents(name: int = 0) -> Tensor:
    return torch.randn(12, 4, 4, generator=torch.Generator().manual_seed(name))


def test_the_queue_is_short_and_never_waited_for_by_who_draws() -> None:
    stream = Stream(Shaped(), pace=10**9)
    album = developing(stream)
    x = {name: latents(name) for name in range(9)}
    for _ in range(3):
        album.begin(x, dict.fromkeys(x, 0.0))
    assert (stream.begun, stream.waits) == (MOST, 0)
    album.levels([1], x, dict.fromkeys(x, 0.0))
    assert stream.waits == 1
    album.begin(x, dict.fromkeys(x, 0.0))
    assert stream.begun == MOST + 2, "what came before it has arrived, too"


def test_whole_batches_are_begun_and_what_is_left_waits_for_company() -> None:
    stream = Stream(Shaped(), pace=1)
    album = developing(stream, batch=4)
    x = {name: latents(name) for name in range(7)}
    album.begin(x, dict.fromkeys(x, 0.0))
    assert stream.codec.decoded == [("side", 4)]
    album.levels(list(x), x, dict.fromkeys(x, 0.0))
    assert stream.codec.decoded == [("side", 4), ("main", 4)]
    assert album.developed == 7


def test_no_more_is_begun_than_stays_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would be forgotten before it is written would be decoded twice."""
    picture = 3 * 8 * 8
    monkeypatch.setattr(albums, "LEVELS", 5 * picture)
    stream = Stream(Shaped(), pace=1)
    album = developing(stream)
    x = {name: latents(name) for name in range(12)}
    for _ in range(20):
        album.begin(x, dict.fromkeys(x, 0.0))
    assert stream.begun == 5
