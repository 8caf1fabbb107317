"""What a command says when it is done: one line for people, one JSON object for machines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segue.media.clip import Clip


@dataclass(frozen=True)
class Result:
    """A clip that was written.

    Args:
        path: where it is.
        clip: what it is.
        frames: how many of its frames were written.
        complete: False after Ctrl-C.
        took: seconds from start to end.
    """

    path: Path
    clip: Clip
    frames: int
    complete: bool
    took: float

    @property
    def record(self) -> Path:
        """The JSON beside it."""
        from segue.media.disk import record_path

        return record_path(self.path)

    @property
    def scores(self) -> dict[str, Any]:
        """What was measured of it."""
        provenance = self.clip.provenance
        return dict(provenance.record.get("scores", {})) if provenance else {}

    @property
    def notes(self) -> list[str]:
        """What is good to know about it."""
        provenance = self.clip.provenance
        return list(provenance.record.get("notes", [])) if provenance else []

    def as_dict(self) -> dict[str, Any]:
        """For machines."""
        width, height = self.clip.size
        return {
            "path": str(self.path),
            "record": str(self.record),
            "complete": self.complete,
            "width": width,
            "height": height,
            "frames": self.frames,
            "fps": float(self.clip.fps),
            "seconds": round(float(self.frames / self.clip.fps), 4),
            "scores": self.scores,
            "notes": self.notes,
            "took": round(self.took, 3),
        }

    def line(self) -> str:
        """For people."""
        scores = self.scores
        width, height = self.clip.size
        parts = [f"{self.path}  {width}x{height}"]
        if self.frames > 1:
            parts += [f"{self.frames} frames", f"{float(self.frames / self.clip.fps):.3g} s"]
        if "native_frames" in scores:
            parts.append(f"{scores['native_frames']} native ({scores['native_share']:.0%})")
        if "largest_step" in scores:
            parts.append(f"largest step {scores['largest_step']:.2g}")
        if scores.get("change") is not None:
            parts.append(f"change from frame to frame {scores['change_before']:.2g} to {scores['change']:.2g}")
        if scores.get("sharpness_kept") is not None:
            parts.append(f"sharpness kept {scores['sharpness_kept']:.0%}")
        state = "" if self.complete else "interrupted, "
        said = f"{', '.join(parts)}; {state}record {self.record}; {self.took:.0f} s"
        # What was asked of the film, such as a smoothness, stands after the reason why its tree ended.
        _, _, reached = str(scores.get("ended", "")).partition("; ")
        return f"{said}\n{reached}" if reached else said
