"""What is written can be read back, is the same each time, and is whole or not there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import pytest
import torch

from footage import moving, numbers, patches
from segue.errors import DiskError, InterruptedRunError, MediaError
from segue.media import Clip, Provenance, TensorFrames, Writer, check_writable, read, write

RATES = [Fraction(24), Fraction(25), Fraction(30000, 1001), Fraction(25, 2)]
MOVING = [".mp4", ".mov", ".m4v", ".mkv", ".webm", ".gif", ".webp", ".apng", ""]


def clip(count: int = 10, size: tuple[int, int] = (96, 64), fps: Fraction | float = 24) -> Clip:
    return Clip(TensorFrames(moving(count, size)), fps)


@pytest.mark.parametrize("fps", RATES, ids=str)
@pytest.mark.parametrize("suffix", MOVING)
def test_count_rate_and_size_come_back(tmp_path: Path, suffix: str, fps: Fraction) -> None:
    again = read(clip(fps=fps).save(tmp_path / f"x{suffix}"))
    assert len(again) == 10
    assert again.size == (96, 64)
    # GIF knows hundredths of a second and WebP thousandths: in ten frames, 29.97 cannot be told from 30.
    assert again.fps == fps or (suffix in (".gif", ".webp") and abs(again.fps - fps) < 0.04)


@pytest.mark.parametrize("suffix", MOVING)
@pytest.mark.parametrize("size", [(97, 63), (96, 63), (97, 64), (2, 2), (1, 1), (34, 18)], ids=str)
def test_any_size_comes_back(tmp_path: Path, suffix: str, size: tuple[int, int]) -> None:
    source = clip(3, size)
    again = read(source.save(tmp_path / f"x{suffix}"))
    assert again.size == size
    assert len(again) == 3
    assert float((again.frames[:] - source.frames[:]).abs().mean()) < 30 / 255


@pytest.mark.parametrize("suffix", MOVING)
def test_frames_come_in_order(tmp_path: Path, suffix: str) -> None:
    source = clip(12)
    again = read(source.save(tmp_path / f"x{suffix}"))
    assert numbers(again.frames[:], 12) == list(range(12))


@pytest.mark.parametrize("suffix", ["", ".apng"])
def test_lossless(tmp_path: Path, suffix: str) -> None:
    source = clip(5, (33, 17))
    again = read(source.save(tmp_path / f"x{suffix}"))
    assert again.frames[:].equal(source.frames[:])


def test_equal_frames_are_not_merged(tmp_path: Path) -> None:
    still = Clip(TensorFrames(moving(1).repeat(7, 1, 1, 1)), 10)
    for suffix in MOVING:
        again = read(still.save(tmp_path / f"x{suffix}"))
        assert (len(again), again.fps) == (7, 10), suffix


@pytest.mark.parametrize(
    ("suffix", "crf", "most"), [(".mp4", 4, 2), (".mp4", None, 3), (".webm", 4, 2), (".webm", None, 4)]
)
def test_colours_are_kept(tmp_path: Path, suffix: str, crf: int | None, most: float) -> None:
    source = Clip(TensorFrames(patches().repeat(4, 1, 1, 1)), 24)
    again = read(source.save(tmp_path / f"x{suffix}", crf=crf)).frames[:]
    # The middle of each patch: at the borders, colours at half resolution must run.
    error = (again - source.frames[:]).abs().unfold(2, 32, 32).unfold(3, 32, 32)[..., 8:24, 8:24]
    assert float(error.amax()) * 255 <= most + 0.5


def test_colours_are_tagged(tmp_path: Path) -> None:
    for suffix in (".mp4", ".webm", ".mkv"):
        with av.open(str(clip().save(tmp_path / f"x{suffix}"))) as container:
            context = container.streams.video[0].codec_context
            frame = next(container.decode(video=0))
            assert (context.pix_fmt, frame.colorspace, frame.color_range) == ("yuv420p", 1, 1)
            assert (context.color_primaries, context.color_trc) == (1, 1)


def test_an_independent_decoder_sees_the_same_colours(tmp_path: Path) -> None:
    """The luma that was written is that of BT.709 in limited range, computed here by its definition."""
    source = patches()
    Clip(TensorFrames(source.repeat(2, 1, 1, 1)), 24).save(tmp_path / "x.mp4", crf=1)
    with av.open(str(tmp_path / "x.mp4")) as container:
        planes = next(container.decode(video=0)).to_ndarray()
    red, green, blue = (source[0].double() / 255).unbind(0)
    y = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    chroma = [(16 + 219 * y, 0, 1), (128 + 224 * (blue - y) / 1.8556, 96, 2), (128 + 224 * (red - y) / 1.5748, 120, 2)]
    for expected, row, step in chroma:
        height, width = 96 // step, 160 // step
        plane = torch.from_numpy(planes).double().flatten()[row * 160 :][: height * width].reshape(height, width)
        error = (
            (plane - expected[::step, ::step]).abs().unfold(0, 32 // step, 32 // step).unfold(1, 32 // step, 32 // step)
        )
        inside = slice(8 // step, 24 // step)
        assert float(error[..., inside, inside].amax()) <= 1.5


@pytest.mark.parametrize("suffix", [suffix for suffix in MOVING if suffix])
@pytest.mark.parametrize("size", [(112, 80), (97, 63)], ids=str)
def test_the_same_bytes_each_time(tmp_path: Path, suffix: str, size: tuple[int, int]) -> None:
    source = clip(20, size)
    first = source.save(tmp_path / f"first{suffix}").read_bytes()
    for _ in range(4):
        assert source.save(tmp_path / f"again{suffix}").read_bytes() == first


def test_no_version_of_ffmpeg_gets_into_the_bytes(tmp_path: Path) -> None:
    for suffix in (".mp4", ".webm", ".mkv"):
        data = clip().save(tmp_path / f"x{suffix}").read_bytes()
        assert not re.search(rb"Lav[fc]\d", data)


def test_players_can_start_before_the_end(tmp_path: Path) -> None:
    data = clip().save(tmp_path / "x.mp4").read_bytes()
    assert 0 < data.find(b"moov") < data.find(b"mdat")


def test_streaming_writes_what_writing_at_once_does(tmp_path: Path) -> None:
    source = clip(11)
    write(source, tmp_path / "whole.mp4")
    with Writer(tmp_path / "parts.mp4", source.fps, source.size) as writer:
        for first in range(0, 11, 3):
            writer.append(source.frames[first : first + 3])
        assert not (tmp_path / "parts.mp4").exists()
    assert (writer.count, writer.seconds) == (11, 11 / 24)
    assert (tmp_path / "parts.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


@pytest.mark.parametrize("suffix", MOVING)
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path, suffix: str) -> None:
    source = clip(5)
    path = source.save(tmp_path / f"x{suffix}")
    with pytest.raises(RuntimeError, match="half-way"), Writer(path, 24, source.size) as writer:
        writer.append(source.frames[:2])
        raise RuntimeError("half-way")
    assert [item.name for item in tmp_path.iterdir()] == [path.name]
    assert len(read(path)) == 5


@pytest.mark.parametrize("suffix", MOVING)
def test_a_file_is_replaced_when_the_new_one_is_whole(tmp_path: Path, suffix: str) -> None:
    path = clip(5).save(tmp_path / f"x{suffix}")
    clip(7).save(path)
    assert [item.name for item in tmp_path.iterdir()] == [path.name]
    assert len(read(path)) == 7


@pytest.mark.parametrize("suffix", MOVING)
def test_interrupted_work_can_be_kept(tmp_path: Path, suffix: str) -> None:
    source = clip(10)
    writer = Writer(tmp_path / f"x{suffix}", 24, source.size)
    with pytest.raises(KeyboardInterrupt), writer:
        writer.append(source.frames[:6])
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            writer.close()
            raise
    assert len(read(tmp_path / f"x{suffix}")) == 6
    with pytest.raises(MediaError, match="closed"):
        writer.append(source.frames[:1])


def test_ctrl_c_while_writing_keeps_what_is_there(tmp_path: Path) -> None:
    def interrupt(what: str, done: float, total: float) -> None:
        if done >= total / 2:
            raise KeyboardInterrupt

    source = Clip(TensorFrames(moving(60)), 24, provenance=Provenance({"seeds": [1]}))
    with pytest.raises(InterruptedRunError, match=r"x\.mp4 holds (\d+) of 60 frames") as caught:
        source.save(tmp_path / "x.mp4", progress=interrupt)
    kept = read(tmp_path / "x.mp4")
    assert 0 < len(kept) < 60 and f"holds {len(kept)} of" in str(caught.value)
    assert json.loads((tmp_path / "x.json").read_text()) == {"seeds": [1], "complete": False}


@dataclass
class Interrupted:
    """Frames that take long to make: Ctrl-C comes while a window of them is made, the first time it is asked for."""

    frames: TensorFrames
    after: int
    asked: int = 0

    @property
    def size(self) -> tuple[int, int]:
        return self.frames.size

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, window: slice, /) -> torch.Tensor:
        self.asked += 1
        if self.asked == self.after:
            raise KeyboardInterrupt
        return self.frames[window]


@pytest.mark.parametrize("suffix", MOVING)
def test_ctrl_c_in_the_first_window_still_keeps_its_frames(tmp_path: Path, suffix: str) -> None:
    source = Clip(Interrupted(TensorFrames(moving(40)), after=1), 24)
    with pytest.raises(InterruptedRunError, match="holds 2 of 40 frames") as caught:
        source.save(tmp_path / f"x{suffix}")
    assert (caught.value.path, caught.value.frames) == (tmp_path / f"x{suffix}", 2)
    assert numbers(read(tmp_path / f"x{suffix}").frames[:], 40) == [0, 1]
    assert len(list(tmp_path.iterdir())) == 1


def test_ctrl_c_in_the_only_window_changes_nothing(tmp_path: Path) -> None:
    Clip(Interrupted(TensorFrames(moving(1)), after=1), 24).save(tmp_path / "x.png")
    Clip(TensorFrames(moving(1)), 24).save(tmp_path / "y.png")
    assert (tmp_path / "x.png").read_bytes() == (tmp_path / "y.png").read_bytes()


@pytest.mark.parametrize("suffix", MOVING)
@pytest.mark.parametrize("after", [1, 3])
def test_a_part_does_not_replace_an_older_film(tmp_path: Path, suffix: str, after: int) -> None:
    record = Provenance({"format": 1, "task": "transition"})
    whole = Clip(TensorFrames(moving(20)), 24, provenance=record).save(tmp_path / f"x{suffix}")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for name in ("x-partial", "x-partial-2"):
        source = Clip(Interrupted(TensorFrames(moving(40)), after=after), 24, provenance=record)
        with pytest.raises(InterruptedRunError, match=re.escape(str(tmp_path / f"{name}{suffix}")) + " holds"):
            source.save(whole)
        assert 0 < len(read(tmp_path / f"{name}{suffix}")) < 40
        assert not json.loads((tmp_path / f"{name}.json").read_text())["complete"]
    assert {path: path.read_bytes() for path in before} == before
    assert len(list(tmp_path.iterdir())) == 6


def test_a_json_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"mine": 1}')
    source = Clip(TensorFrames(moving(2)), 24, provenance=Provenance({"format": 1, "task": "image"}))
    with pytest.raises(DiskError, match=r"x\.json would be replaced"):
        source.save(tmp_path / "x.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
    assert source.save(tmp_path / "y.mp4") == source.save(tmp_path / "y.mp4")


def test_a_record_that_json_cannot_hold_is_found_before_the_work(tmp_path: Path) -> None:
    for value in (float("nan"), object()):
        with pytest.raises((ValueError, TypeError)):
            Clip(TensorFrames(moving(2)), 24, provenance=Provenance({"score": value})).save(tmp_path / "x.mp4")
    assert not list(tmp_path.iterdir())


def test_no_frames_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="no frames"), Writer(tmp_path / "x.mp4", 24, (8, 8)):
        pass
    assert not list(tmp_path.iterdir())


def test_frames_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with Writer(tmp_path / "x.mp4", 24, (96, 64)) as writer:
        writer.append(moving(2))
        with pytest.raises(MediaError, match="96x64 pixels, got 64x96"):
            writer.append(moving(1, (64, 96)))
        with pytest.raises(MediaError, match=r"\[0, 1\], got values from 0 to 1\.5"):
            writer.append(torch.linspace(0, 1.5, 96).expand(1, 3, 64, 96))
        with pytest.raises(MediaError, match="nan"):
            writer.append(torch.full((1, 3, 64, 96), float("nan")))
    assert len(read(tmp_path / "x.mp4")) == 2


def test_options_are_used_or_refused(tmp_path: Path) -> None:
    source = clip()
    sizes = [source.save(tmp_path / "x.mp4", crf=crf).stat().st_size for crf in (10, 30)]
    assert sizes[0] > 1.3 * sizes[1]
    first, second = (source.save(tmp_path / "x.mp4", preset=preset).read_bytes() for preset in ("ultrafast", "slow"))
    assert first != second
    for suffix, crf, preset, message in [
        (".gif", 20, None, "crf is for H.264 and VP9"),
        (".webm", None, "slow", "preset is for H.264"),
        (".mp4", None, "warp", "preset must be one of ultrafast"),
        (".mp4", 52, None, "between 0 and 51"),
    ]:
        with pytest.raises(MediaError, match=message):
            source.save(tmp_path / f"y{suffix}", crf=crf, preset=preset)
    assert [item.name for item in tmp_path.iterdir()] == ["x.mp4"]


def test_the_record_lies_beside(tmp_path: Path) -> None:
    record = {"task": {"prompts": ["ä", "b"]}, "seeds": [1, 2]}
    source = Clip(TensorFrames(moving(2)), 24, provenance=Provenance(record))
    for name, beside in [("a.mp4", "a.json"), ("frames", "frames.json"), ("c.x.webm", "c.x.json")]:
        source.save(tmp_path / name)
        text = (tmp_path / beside).read_text(encoding="utf-8")
        assert json.loads(text) == record
        assert "ä" in text


def test_one_picture(tmp_path: Path) -> None:
    one = clip(1, (33, 21))
    for suffix, most in ((".png", 0), (".jpg", 6), (".jpeg", 6)):
        again = read(one.save(tmp_path / f"x{suffix}"))
        assert (len(again), again.size) == (1, (33, 21))
        assert float((again.frames[:] - one.frames[:]).abs().mean()) * 255 <= most
    with pytest.raises(MediaError, match="holds one picture"):
        clip(2).save(tmp_path / "two.png")
    assert not (tmp_path / "two.png").exists()


def test_a_folder_with_other_things_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    with pytest.raises(DiskError, match=r"other things than numbered frames \(notes.txt\)"):
        clip().save(tmp_path / "mine")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep me"


def test_the_disk_refuses(tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("a file")
    (tmp_path / "folder.mp4").mkdir()
    for path, message in [
        (tmp_path / "file.txt" / "x.mp4", r"cannot write .*x\.mp4: not a directory; a part of this path is a file"),
        (tmp_path / "missing" / "x.mp4", r"the folder .*missing does not exist: create it first"),
        (tmp_path / "folder.mp4", "this is a folder: give the name of a file"),
        (tmp_path / ("x" * 300 + ".mp4"), "choose a shorter name"),
    ]:
        with pytest.raises(DiskError, match=message) as caught:
            check_writable(path)
        assert "\n" not in str(caught.value)
        with pytest.raises(DiskError, match=message):
            clip().save(path)
    with pytest.raises(MediaError, match=r"format of x\.xyz: use one of \.mp4, "):
        check_writable("x.xyz")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["file.txt", "folder.mp4"]


def test_an_odd_name(tmp_path: Path) -> None:
    for name in ("a:b %d ü.mp4", "-x.mp4", "pipe:.gif", "x" * 240 + ".webm"):
        assert len(read(clip(2).save(tmp_path / name))) == 2


LIMITED = """
import resource, sys, torch
from pathlib import Path
from segue.errors import DiskError
from segue.media import Clip, TensorFrames

clip = Clip(TensorFrames(torch.randint(0, 256, (6, 3, 64, 96), generator=torch.manual_seed(0)).byte()), 24)
for suffix in sys.argv[2:]:
    path = Path(sys.argv[1]) / f"x{suffix}"
    clip.save(path)
    size = (path if suffix else path / "00000.png").stat().st_size
    for share in (0.3, 0.99):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(size * share), resource.RLIM_INFINITY))
        try:
            clip.save(path)
        except DiskError as error:
            print(str(error).replace(sys.argv[1], ""))
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""


def test_a_file_size_limit_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    script = [sys.executable, "-W", "error", "-c", LIMITED, str(tmp_path), *MOVING]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    limit = "file too large; the file-size limit was hit: raise it (ulimit -f), or ask for fewer or smaller frames"
    assert done.stdout.splitlines() == [f"cannot write /x{suffix}: {limit}" for suffix in MOVING for _ in range(2)]
    assert sorted(item.name for item in tmp_path.iterdir()) == sorted(f"x{suffix}" for suffix in MOVING)
    assert all(len(read(tmp_path / f"x{suffix}")) == 6 for suffix in MOVING)
