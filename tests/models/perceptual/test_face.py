# pyright: basic
"""The room's face: every name that it offers is there, and importing it loads nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from segue.models import perceptual


def test_every_name_is_there():
    for name in perceptual.__all__:
        assert getattr(perceptual, name).__name__ == name
    assert dir(perceptual) == sorted(perceptual.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Fid'"):
        _ = perceptual.Fid


def test_importing_it_loads_no_torch():
    code = "import sys, segue.models.perceptual; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
