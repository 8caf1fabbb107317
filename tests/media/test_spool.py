"""A spool gives back what was appended, in any order, also after the program that filled it was killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from footage import moving
from segue.errors import DiskError, MediaError
from segue.media import Clip, Spool, TensorFrames, read


def test_any_window_is_what_was_appended(tmp_path: Path) -> None:
    frames = moving(17, (33, 21))
    with Spool(tmp_path / "spool", (33, 21)) as spool:
        for first in range(0, 17, 5):
            spool.append(frames[first : first + 5])
            assert len(spool) == min(17, first + 5)
            assert spool[first:].equal(frames[first : first + 5] / 255)
        for window in (slice(3, 9), slice(16, 17), slice(None), slice(None, None, -3), slice(5, 5), slice(-2, None)):
            assert spool[window].equal(frames[list(range(17)[window])] / 255)
        assert spool.size == (33, 21)


def test_floats_are_rounded_once(tmp_path: Path) -> None:
    floats = torch.rand(3, 3, 8, 8, generator=torch.manual_seed(0))
    with Spool(tmp_path / "spool", (8, 8)) as spool:
        spool.append(floats)
        assert float((spool[:] - floats).abs().max()) <= 0.5 / 255 + 1e-6
        spool.append(spool[:])
        assert spool[3:].equal(spool[:3])


def test_it_goes_on_where_it_ended(tmp_path: Path) -> None:
    frames = moving(6, (16, 8))
    with Spool(tmp_path / "spool", (16, 8)) as spool:
        spool.append(frames[:4])
    with (tmp_path / "spool" / "frames.rgb").open("ab") as file:
        file.write(b"half a frame")
    with Spool(tmp_path / "spool", (16, 8)) as spool:
        assert len(spool) == 4
        spool.append(frames[4:])
        assert spool[:].equal(frames / 255)
    with pytest.raises(MediaError, match="frames of another kind"):
        Spool(tmp_path / "spool", (8, 16))


def test_what_was_appended_survives_a_kill(tmp_path: Path) -> None:
    script = """
import os, signal, sys, torch
from segue.media import Spool
spool = Spool(sys.argv[1], (16, 8))
spool.append(torch.arange(5 * 3 * 8 * 16).reshape(5, 3, 8, 16).remainder(256).byte())
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "spool")], check=False)
    assert done.returncode == -signal.SIGKILL
    with Spool(tmp_path / "spool", (16, 8)) as spool:
        assert spool[:].equal(torch.arange(5 * 3 * 8 * 16).reshape(5, 3, 8, 16).remainder(256) / 255)


def test_a_temporary_spool_is_removed(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), Spool.temporary((16, 8), near=tmp_path) as spool:
        spool.append(moving(2, (16, 8)))
        assert len(list(tmp_path.iterdir())) == 1
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with pytest.raises(DiskError, match="cannot write"), Spool.temporary((16, 8), near=tmp_path / "missing"):
        pass


def test_frames_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with Spool(tmp_path / "spool", (16, 8)) as spool:
        with pytest.raises(MediaError, match="16x8 pixels, got 8x16"):
            spool.append(moving(1, (8, 16)))
        with pytest.raises(MediaError, match=r"in \[0, 1\]"):
            spool.append(torch.full((1, 3, 8, 16), -1.0))
        assert len(spool) == 0


def test_a_full_disk_keeps_what_was_there(tmp_path: Path) -> None:
    script = """
import resource, sys, torch
from segue.errors import DiskError
from segue.media import Spool
spool = Spool(sys.argv[1], (16, 8))
frames = torch.randint(0, 256, (4, 3, 8, 16), generator=torch.manual_seed(0)).byte()
spool.append(frames)
resource.setrlimit(resource.RLIMIT_FSIZE, (6 * 384 + 100, resource.RLIM_INFINITY))
try:
    spool.append(frames)
except DiskError as error:
    assert len(spool) == 4 and spool[:].equal(frames / 255)
    spool.append(frames[:2])
    assert spool[4:].equal(frames[:2] / 255)
    sys.exit(str(error))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "s")], capture_output=True, text=True, check=False
    )
    assert done.stderr.startswith(f"cannot write {tmp_path / 's'}: file too large; the file-size limit"), done.stderr
    assert (tmp_path / "s" / "frames.rgb").stat().st_size == 6 * 384


def test_a_spool_is_written_as_any_clip(tmp_path: Path) -> None:
    frames = moving(6)
    with Spool(tmp_path / "spool", (96, 64)) as spool:
        spool.append(frames)
        Clip(spool, 24).save(tmp_path / "spooled.mp4")
    Clip(TensorFrames(frames), 24).save(tmp_path / "held.mp4")
    assert (tmp_path / "spooled.mp4").read_bytes() == (tmp_path / "held.mp4").read_bytes()
    assert len(read(tmp_path / "spooled.mp4")) == 6
