"""Files come back as a player would show them, frame by frame, or are refused in one line."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from footage import CLIPS, moving, numbers, real_clip
from segue.errors import MediaError
from segue.media import Clip, TensorFrames, read
from segue.media.pictures import still
from segue.media.reader import VideoFrames


def encode(
    path: Path, frames: torch.Tensor, times: list[int], *, tick: Fraction, codec: str = "libx264"
) -> av.VideoStream:
    """A file made by hand: frames at these times."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=round(1 / tick))
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = frames.shape[3], frames.shape[2], "yuv420p"
        stream.codec_context.time_base = tick
        for frame, time in zip(frames.permute(0, 2, 3, 1).contiguous().numpy(), times, strict=True):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = time, tick
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
        return stream


def whole(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]


@pytest.mark.parametrize("name", ["bigbuckbunny.mp4", "scene_cuts.mp4", "wolf.mp4", "portrait.mp4"])
def test_windows_of_real_footage_equal_a_full_decode(name: str) -> None:
    path = real_clip(name)
    clip = read(path)
    count = len(whole(path))
    assert len(clip) == count
    in_order = torch.cat([clip.frames[i : i + 1][:, :, ::8, ::8] for i in range(count)])
    fresh = read(path).frames
    order = torch.randperm(count, generator=torch.manual_seed(0))[:4].tolist()
    for first in (*order, 0, count - 1):
        assert fresh[first : first + 2][:, :, ::8, ::8].equal(in_order[first : first + 2]), first


def test_streaming_with_overlapping_windows_decodes_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = read(Clip(TensorFrames(moving(60)), 24).save(tmp_path / "x.mp4")).frames
    assert isinstance(frames, VideoFrames)
    shown: list[int] = []
    convert = VideoFrames.__dict__["_picture"]

    def counted(self: VideoFrames, frame: av.VideoFrame) -> np.ndarray:
        shown.append(frame.pts or 0)
        return convert(self, frame)

    monkeypatch.setattr(VideoFrames, "_picture", counted)
    for first in range(0, 60, 4):
        assert len(frames[first : first + 12]) == min(12, 60 - first)
    assert len(shown) == 60


def test_any_slice(tmp_path: Path) -> None:
    frames = moving(9)
    for name in ("x.mp4", "x.gif", "x"):
        clip = read(Clip(TensorFrames(frames), 24).save(tmp_path / name))
        everything = clip.frames[:]
        for window in (
            slice(2, 5),
            slice(None, None, 2),
            slice(None, None, -1),
            slice(-3, None),
            slice(4, 4),
            slice(7, 99),
        ):
            assert clip.frames[window].equal(everything[list(range(9)[window])]), (name, window)
            assert clip.cut(1, 8).frames[window].equal(everything[1:8][list(range(7)[window])]), (name, window)


def test_a_variable_rate_is_sampled_as_it_is_shown(tmp_path: Path) -> None:
    times = [0, 1, 2, 3, 4, 5, 15, 16, 17, 18]
    encode(tmp_path / "x.mp4", moving(10), times, tick=Fraction(1, 25))
    clip = read(tmp_path / "x.mp4")
    assert isinstance(clip.frames, VideoFrames)
    assert (clip.fps, len(clip), clip.frames.timing.constant) == (25, 19, False)
    assert numbers(clip.frames[:], 10) == [0, 1, 2, 3, 4, *[5] * 10, 6, 7, 8, 9]


def test_a_little_jitter_is_no_variable_rate(tmp_path: Path) -> None:
    times = [round(n * 1000 / 30 + (7 if n % 3 else -6)) + 6 for n in range(30)]
    encode(tmp_path / "x.mkv", moving(30), times, tick=Fraction(1, 1000))
    clip = read(tmp_path / "x.mkv")
    assert len(clip) == 30
    assert numbers(clip.frames[:], 30) == list(range(30))


def test_another_rate_on_request(tmp_path: Path) -> None:
    path = Clip(TensorFrames(moving(20)), 20).save(tmp_path / "x.mp4")
    for fps, shown in ((10, range(0, 20, 2)), (40, [n // 2 for n in range(40)]), (20, range(20))):
        clip = read(path, fps=fps)
        assert (clip.fps, clip.seconds) == (fps, 1)
        assert numbers(clip.frames[:], 20) == list(shown)


@pytest.mark.parametrize("suffix", [".avi", ".ts", ".mpg"])
def test_containers_without_an_index(tmp_path: Path, suffix: str) -> None:
    codec = "mpeg4" if suffix == ".avi" else "mpeg2video"
    encode(tmp_path / f"x{suffix}", moving(30), list(range(30)), tick=Fraction(1, 25), codec=codec)
    clip = read(tmp_path / f"x{suffix}")
    assert (len(clip), clip.fps) == (30, 25)
    assert clip.frames[20:23].equal(clip.frames[:][20:23])
    assert numbers(clip.frames[:], 30) == list(range(30))


def test_one_frame(tmp_path: Path) -> None:
    clip = read(Clip(TensorFrames(moving(1)), Fraction(25, 2)).save(tmp_path / "x.mp4"))
    assert (len(clip), clip.fps) == (1, Fraction(25, 2))


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_footage_is_turned_as_the_file_says(tmp_path: Path, degrees: int) -> None:
    upright = moving(3, (64, 96))
    with av.open(str(tmp_path / "x.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"crf": "4"})
        assert isinstance(stream, av.VideoStream)
        # Stored turned clockwise, and shown after a turn of as many degrees the other way.
        stored = torch.rot90(upright, -degrees // 90, (2, 3))
        stream.width, stream.height, stream.pix_fmt = stored.shape[3], stored.shape[2], "yuv444p"
        stream.set_display_rotation(degrees)
        for frame in stored.permute(0, 2, 3, 1).contiguous().numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    clip = read(tmp_path / "x.mp4")
    assert clip.size == (64, 96)
    assert float((clip.frames[:] - upright / 255).abs().mean()) < 4 / 255


def test_pixels_become_square(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "x.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        for frame in moving(2).permute(0, 2, 3, 1).contiguous().numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    assert read(tmp_path / "x.mp4").size == (128, 64)


def test_no_such_thing(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video at all " * 100)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "empty").mkdir()
    for name, message in [
        ("missing.mp4", "there is no such file or folder; check the name"),
        ("text.mp4", "it is neither video nor picture, or it is damaged"),
        ("empty.mp4", "it is neither video nor picture, or it is damaged"),
        ("empty", "there are no pictures in this folder"),
    ]:
        with pytest.raises(MediaError, match=message) as caught:
            read(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert str(tmp_path / name) in str(caught.value)


def test_sound_without_a_picture(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "x.m4a"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        assert isinstance(stream, av.AudioStream)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux([*stream.encode(frame), *stream.encode(None)])
    with pytest.raises(MediaError, match="there is no video in it"):
        read(tmp_path / "x.m4a")


@pytest.mark.parametrize("share", [0.02, 0.2, 0.6, 0.98])
def test_a_file_cut_short(tmp_path: Path, share: float) -> None:
    data = Clip(TensorFrames(moving(40)), 24).save(tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "x.mp4").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(MediaError, match=r"cut short|damaged|no video in it") as caught:
        read(tmp_path / "x.mp4")
    assert "\n" not in str(caught.value)


def test_a_damaged_file(tmp_path: Path) -> None:
    path = Clip(TensorFrames(moving(40)), 24).save(tmp_path / "x.mp4")
    data = bytearray(path.read_bytes())
    middle = len(data) * 2 // 3
    data[middle : middle + 600] = bytes(600)
    path.write_bytes(data)
    clip = read(path)
    with pytest.raises(MediaError, match="damaged; try another copy"):
        for first in range(0, 40, 8):
            clip.frames[first : first + 8]


def test_hdr_is_refused(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "x.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.color_trc = 16
        picture = av.VideoFrame(64, 64, "yuv420p")
        picture.color_trc = 16
        container.mux([*stream.encode(picture), *stream.encode(None)])
    with pytest.raises(MediaError, match=r"HDR video \(PQ\)"):
        read(tmp_path / "x.mp4")


def test_a_file_is_closed_with_its_clip(tmp_path: Path) -> None:
    """A file that is being read can be replaced, by its own clip too."""
    path = Clip(TensorFrames(moving(5)), 24).save(tmp_path / "x.mp4")
    clip = read(path)
    clip.save(path)
    assert len(read(path)) == len(clip) == 5


def test_real_footage_has_sound_where_it_has() -> None:
    real_clip("wolf.mp4")
    assert [read(CLIPS / name).audio is not None for name in ("bigbuckbunny.mp4", "wolf.mp4")] == [True, False]


def test_transparent_pictures_lie_on_a_background(tmp_path: Path) -> None:
    picture = np.zeros((4, 6, 4), np.uint8)
    picture[:, :3] = (255, 0, 0, 255)
    picture[:, 3:] = (0, 0, 255, 128)
    Image.fromarray(picture).save(tmp_path / "x.png")
    white, black = (read(tmp_path / "x.png", background=name).frames[:] * 255 for name in ("white", "black"))
    assert white[0, :, 0, 0].tolist() == black[0, :, 0, 0].tolist() == [255, 0, 0]
    assert white[0, :, 0, 5].tolist() == pytest.approx([127, 127, 255], abs=1)
    assert black[0, :, 0, 5].tolist() == pytest.approx([0, 0, 128], abs=1)


def test_pictures_are_turned_as_the_camera_was_held(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = np.zeros((16, 32, 3), np.uint8)
    picture[:, :16] = 255
    (tmp_path / "f").mkdir()
    Image.fromarray(picture).save(tmp_path / "f" / "x.jpg", exif=exif, quality=95)
    for path in (tmp_path / "f" / "x.jpg", tmp_path / "f"):
        clip = read(path)
        assert clip.size == (16, 32)
        assert float(clip.frames[:][0, :, :12].min()) > 0.9 > 0.1 > float(clip.frames[:][0, :, 20:].max())


def test_sixteen_bits_of_grey_are_not_clipped(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16)[None].repeat(2, 0)
    Image.fromarray(ramp).save(tmp_path / "x.png")
    levels = (read(tmp_path / "x.png").frames[:][0, 0, 0] * 255).round().tolist()
    assert levels == list(range(256))


def test_folders_are_sorted_by_number(tmp_path: Path) -> None:
    for number in (10, 9, 100, 1):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / f"frame-{number}.png")
    (tmp_path / "notes.txt").write_text("passed over")
    clip = read(tmp_path)
    assert (clip.frames[:][:, 0, 0, 0] * 255).round().tolist() == [1, 9, 10, 100]
    assert clip.fps == 24
    assert read(tmp_path, fps=12.5).fps == Fraction(25, 2)
    Image.new("RGB", (5, 4)).save(tmp_path / "frame-7.png")
    with pytest.raises(MediaError, match=r"frame-7\.png has 5x4 pixels, frame-1\.png has 4x4"):
        read(tmp_path)


def test_damaged_pictures(tmp_path: Path) -> None:
    for suffix in (".png", ".jpg", ".webp", ".gif", ".apng"):
        count = 1 if suffix in (".png", ".jpg") else 4
        path = Clip(TensorFrames(moving(count)), 10).save(tmp_path / f"x{suffix}")
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(MediaError) as caught:
            read(path).frames[:]
        assert "\n" not in str(caught.value), suffix


@pytest.mark.filterwarnings("ignore:Truncated File Read")  # Pillow's, of TIFF, beside the error
@pytest.mark.parametrize("content", ["empty", "text", "cut"])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tif", ".ppm"])
def test_a_folder_with_one_that_is_no_picture(suffix: str, content: str, tmp_path: Path) -> None:
    for name in ("1.png", f"2{suffix}"):
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)).save(tmp_path / name)
    last = tmp_path / f"2{suffix}"
    damaged = {"empty": b"", "text": b"a letter to a friend\n" * 9, "cut": last.read_bytes()[:60]}
    last.write_bytes(damaged[content])
    with pytest.raises(MediaError, match=rf"cannot read .*2\{suffix}.*damaged.*try another copy"):
        read(tmp_path).frames[:]
    with pytest.raises(MediaError, match=rf"2\{suffix}"):
        still(last, "white")


def test_a_still_webp_or_gif_is_one_picture(tmp_path: Path) -> None:
    for suffix in (".webp", ".gif", ".bmp", ".tiff"):
        Image.new("RGB", (8, 6), (200, 100, 50)).save(tmp_path / f"x{suffix}")
        clip = read(tmp_path / f"x{suffix}")
        assert (len(clip), clip.size) == (1, (8, 6))


@pytest.mark.parametrize("suffix", [".apng", ".gif", ".webp"])
def test_animations_can_be_read_backwards(suffix: str, tmp_path: Path) -> None:
    path = Clip(TensorFrames(moving(6)), fps=5).save(tmp_path / f"film{suffix}")
    frames, forwards = read(path).frames, read(path).frames[:]
    for number in (5, 2, 4, 0):
        assert torch.equal(frames[number : number + 1][0], forwards[number])
