"""What tells one version of a method from another: what was measured of one is not taken for the other's."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

from segue.motion import match

MOTION = sorted(Path(match.__file__).parent.glob("*.py"))
"""Files of `segue.motion`."""


def written(*files: Path) -> str:
    """What stands in files, as a short name."""
    return named(*(file.read_bytes() for file in files))


def named(*parts: bytes) -> str:
    """Bytes, as a short name."""
    return blake2b(b"".join(parts), digest_size=6).hexdigest()
