"""Fields over a clip: what is searched, what is composed, and what is found again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from motion.clips import Held, joined, noisy, panned
from motion.engines import Shifts
from segue.errors import DiskError
from segue.motion.fields import Fields, reduced, reduced_size
from segue.motion.flow_match import FlowMatcher
from segue.motion.kept import FINENESS, Packed
from segue.motion.match import Match


def same(a: Match, b: Match) -> bool:
    return a.whole == b.whole and all(
        torch.equal(getattr(a, name), getattr(b, name)) for name in ("way", "error", "confidence")
    )


def test_neighbours_are_searched_and_what_is_far_is_composed() -> None:
    clip, engine = panned(12), Shifts(reach=8)
    fields = Fields(engine, clip)
    way = fields.way(0, 7)
    first, then, last = fields.way(0, 4), fields.way(4, 6), fields.way(6, 7)
    assert same(way, first.then(then.then(last)))
    # What lies in the first frame at p is found 7 steps of (2, 1) further left and up.
    assert float((way.way - torch.tensor([-14.0, -7.0]).view(1, 2, 1, 1)).abs().max()) == 0
    inner = slice(8, None), slice(16, None)
    seen = way.remap(clip[7:8])[0][(slice(None), *inner)]
    assert torch.allclose(seen, clip[0:1][0][(slice(None), *inner)])


def test_only_powers_of_two_are_searched_and_each_once() -> None:
    engine = Shifts(reach=1)
    fields = Fields(engine, panned(17, step=(1, 0)))
    for _ in range(2):
        fields.way(0, 13)
        fields.way(13, 0)
    # 0-8 with all its halves, 8-12 with its halves, 12-13; and back: 13-5, 5-1, 1-0.
    forward = {
        (0, 8),
        (0, 4),
        (4, 8),
        (8, 12),
        *((n, n + 2) for n in range(0, 12, 2)),
        *((n, n + 1) for n in range(13)),
    }
    back = {(5, 13), (5, 9), (9, 13), (1, 5), *((n, n + 2) for n in (5, 7, 9, 11, 1, 3))}
    assert len(engine.seen) == len(forward | back)


def test_a_search_begins_where_two_of_half_the_stride_lead() -> None:
    engine = Shifts(reach=4)
    fields = Fields(engine, panned(5))
    fields.way(0, 2)
    start = engine.starts[-1]
    assert start is not None
    assert same(start[0], fields.way(0, 1).then(fields.way(1, 2)))
    assert same(start[1], fields.way(2, 1).then(fields.way(1, 0)))
    assert engine.starts[:2] == [None, None]


@pytest.mark.parametrize("engine", [Shifts(doubt=0.5), FlowMatcher()], ids=["shifts", "flow"])
def test_neither_order_nor_what_is_kept_makes_a_difference(engine: Shifts | FlowMatcher, tmp_path: Path) -> None:
    clip = noisy(panned(9), 0.02)
    pairs = [(here, there) for here in range(9) for there in range(9)]
    fields = Fields(engine, clip)
    there = {pair: fields.way(*pair) for pair in pairs}
    forgetful = Fields(engine, clip, memory=0)
    kept = Fields(engine, clip, folder=tmp_path)
    backwards = Fields(engine, clip.backwards())
    for pair in reversed(pairs):
        assert same(there[pair], kept.way(*pair))
        assert same(there[pair], backwards.way(8 - pair[0], 8 - pair[1]))
    for pair in pairs[::7]:
        assert same(there[pair], forgetful.way(*pair))


def test_what_was_found_is_found_again_and_nothing_else(tmp_path: Path) -> None:
    clip, engine = panned(9), Shifts()
    way = Fields(engine, clip, folder=tmp_path).way(0, 5)
    searched = len(engine.seen)
    assert same(Fields(engine, clip, folder=tmp_path).way(0, 5), way)
    assert len(engine.seen) == searched
    # Another engine, another level, another picture on the way, however little: made anew.
    Fields(replace(engine, reach=3), clip, folder=tmp_path).way(0, 5)
    Fields(engine, clip, folder=tmp_path, level=1).way(0, 5)
    assert len(engine.seen) > searched
    searched = len(engine.seen)
    other = clip.pictures.clone()
    other[2, 0, 3, 3] += 1e-6
    Fields(engine, Held(other), folder=tmp_path).way(0, 4)
    # 0-4 with 0-2, 2-4, 1-2 and 2-3: all over frame 2; but not 0-1 and 3-4.
    assert len(engine.seen) == searched + 5
    # Another clip of the same pictures finds them.
    Fields(engine, Held(clip.pictures[1:]), folder=tmp_path).way(0, 1)
    assert len(engine.seen) == searched + 5


@pytest.mark.parametrize("damage", ["cut", "empty", "nonsense", "size"])
def test_damaged_files_are_made_anew(tmp_path: Path, damage: str) -> None:
    clip, engine = panned(4), Shifts()
    way = Fields(engine, clip, folder=tmp_path).way(0, 2)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 3
    assert all(path.suffix == ".safetensors" for path in files)
    whole = {path: path.read_bytes() for path in files}
    other = tmp_path / "other"
    Fields(engine, panned(4, size=(40, 32)), folder=other).way(0, 1)
    for path in files:
        path.write_bytes(
            {
                "cut": whole[path][:-100],
                "empty": b"",
                "nonsense": b"x" * 500,
                "size": next(other.iterdir()).read_bytes(),
            }[damage]
        )
    assert same(Fields(engine, clip, folder=tmp_path).way(0, 2), way)
    assert {path: path.read_bytes() for path in files} == whole


@pytest.mark.parametrize("place", [-1, -700, -9000, -12000])
def test_a_flipped_bit_anywhere_is_noticed(tmp_path: Path, place: int) -> None:
    clip, engine = panned(2), Shifts()
    way = Fields(engine, clip, folder=tmp_path).way(0, 1)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(bytes((*whole[:place], whole[place] ^ 1, *whole[len(whole) + place + 1 :])))
    assert len(path.read_bytes()) == len(whole)
    assert same(Fields(engine, clip, folder=tmp_path).way(0, 1), way)
    assert path.read_bytes() == whole
    assert len(engine.seen) == 2


def test_a_file_that_does_not_say_what_it_holds_is_made_anew(tmp_path: Path) -> None:
    clip, engine = panned(2), Shifts()
    Fields(engine, clip, folder=tmp_path).way(0, 1)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for facts in (None, {}, {"blake2b": "0"}):
        path.write_bytes(save(load(whole), facts))
        Fields(engine, clip, folder=tmp_path).way(0, 1)
        assert path.read_bytes() == whole
    assert len(engine.seen) == 4


def test_a_folder_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match="cannot keep fields"):
        Fields(Shifts(), panned(2), folder=tmp_path / "file")


def test_over_a_cut_nothing_is_searched_or_believed() -> None:
    engine = Shifts()
    fields = Fields(engine, joined(panned(5, 1), panned(5, 2)), cuts=(5,))
    for here, there in ((4, 5), (5, 4), (0, 9), (3, 6)):
        assert not fields.joined(here, there)
        assert float(fields.way(here, there).confidence.max()) == 0
    assert engine.seen == []
    assert fields.shot(4) == (0, 4)
    assert fields.shot(5) == (5, 9)
    assert not fields.joined(-1, 0)
    assert not fields.joined(9, 10)
    own = fields.way(3, 3)
    assert float(own.confidence.min()) == 1
    assert float(own.way.abs().max()) == 0


def test_memory_does_not_grow_with_the_clip() -> None:
    held: list[int] = []
    for count in (20, 60):
        fields = Fields(Shifts(reach=1), panned(count, step=(1, 0)), memory=300_000)
        most = 0
        for number in range(count - 4):
            fields.way(number, number + 4)
            most = max(most, fields.held)
        held.append(most)
    assert held[0] == held[1] < 20


@pytest.mark.parametrize("engine", [Shifts(reach=4), FlowMatcher()], ids=["whole", "parts"])
def test_coarse_fields_are_of_the_full_size(engine: Shifts | FlowMatcher) -> None:
    clip = panned(5, size=(75, 61), step=(4, 2))
    way = Fields(engine, clip, level=1).way(0, 1)
    assert way.size == (75, 61)
    assert way.whole == isinstance(engine, Shifts)
    inner = way.way[..., 16:-16, 16:-16] - torch.tensor([-4.0, -2.0]).view(1, 2, 1, 1)
    assert float(inner.abs().mean()) < 0.3
    assert torch.equal((way.way * FINENESS).round(), way.way * FINENESS), (
        "the warp of other ways takes three times as long"
    )
    assert reduced_size((75, 61), 2) == (38, 31)
    assert reduced(clip[0:1], 2).shape == (1, 3, 31, 38)
    with pytest.raises(ValueError, match="level"):
        Fields(engine, clip, level=-1)


def test_a_key_is_read_once_while_frames_pass() -> None:
    clip, read = panned(9), list[int]()

    class Slow(Held):
        """What takes time to make."""

        def __getitem__(self, window: slice, /) -> Tensor:
            read.extend(range(len(self))[window])
            return super().__getitem__(window)

    fields = Fields(Shifts(), Slow(clip.pictures))
    for number in range(1, 8):
        for each in (number, 0, number, 8):
            assert torch.equal(fields.picture(each), clip[each : each + 1])
    assert sorted(read) == list(range(9))


def test_what_is_packed_is_unpacked_to_the_same_bits() -> None:
    random = torch.Generator().manual_seed(0)
    way = torch.randn(1, 2, 9, 11, generator=random) * 30
    match = Match(way, torch.rand(1, 9, 11, generator=random), torch.rand(1, 9, 11, generator=random), whole=False)
    once = Packed.of(match).match(torch.device("cpu"))
    assert same(once, Packed.of(once).match(torch.device("cpu")))
    assert float((once.way - way).abs().max()) <= 0.5 / FINENESS
    assert float((once.confidence - match.confidence).abs().max()) <= 0.5 / 255 + 1e-6
    far = replace(match, way=way + 5000)
    assert float(Packed.of(far).match(torch.device("cpu")).confidence.max()) == 0


def test_frames_that_there_are_not_are_refused() -> None:
    fields = Fields(Shifts(), panned(3))
    for here, there in ((0, 3), (-1, 0)):
        with pytest.raises(IndexError, match="frames are 0 to 2"):
            fields.way(here, there)
    with pytest.raises(ValueError, match="a cut is the first frame"):
        Fields(Shifts(), panned(3), cuts=(3,))
