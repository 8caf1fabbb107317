"""Files to clips."""

from __future__ import annotations

from fractions import Fraction

from segue.errors import MediaError
from segue.media.audio import Audio
from segue.media.clip import Clip, TensorFrames, as_rate
from segue.media.disk import PathLike, as_path, disk_errors
from segue.media.pictures import AnimatedFrames, FolderFrames, picture_kind, still
from segue.media.timing import DEFAULT_RATE
from segue.media.video import VideoFrames


def read(path: PathLike, *, fps: Fraction | float | None = None, background: str = "white") -> Clip:
    """A clip that is backed by a file: frames are decoded when they are asked for.

    The number of frames is what is in the file, not what its header claims. A file of variable rate is sampled at its
    most usual one, each frame as long as it is shown, so that time and sound stay right (`clip.frames.timing` says
    whether it was).

    Args:
        path: a video that FFmpeg knows; a picture or an animation that Pillow knows; a folder of pictures.
        fps: sample a video or animation at this rate; of a picture and a folder, the rate itself (else 24, or what
            the folder says, if Segue wrote it).
        background: a colour's name, laid behind transparent pictures.

    Raises:
        MediaError: if it is no such file, or is damaged.
        DiskError: if it may not be read.
    """
    path, rate = as_path(path), None if fps is None else as_rate(fps)
    with disk_errors(path, "read"):
        if not path.exists():
            raise MediaError(f"cannot read {path}: there is no such file or folder; check the name")
        folder = path.is_dir()
    if folder:
        frames = FolderFrames(path, background)
        return Clip(frames, rate or frames.rate)
    kind = picture_kind(path)
    if kind == "still":
        return Clip(TensorFrames(still(path, background)), rate or DEFAULT_RATE)
    if kind == "moving":
        animation = AnimatedFrames(path, rate, background)
        return Clip(animation, animation.timing.fps)
    video = VideoFrames(path, rate)
    return Clip(video, video.timing.fps, Audio(path, video.start) if video.has_sound else None)
