"""Prompts in which the weight of words may change over a film: "a (red:0s:1, 2s:1.6) apple"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from segue.errors import TaskError
from segue.temporal.curve import FORMS, Curve

LARGEST = 1000
"""The largest magnitude of a weight, as of one that does not change."""

_KNOT = r"(?:\d+\.?\d*|\.\d+)[sfb]\s*:\s*[+-]?(?:\d+\.?\d*|\.\d+)"
_CURVE = re.compile(rf":\s*((?:(?:{'|'.join(FORMS)})\s+)?{_KNOT}(?:\s*,\s*{_KNOT})*)\s*(?=\))")


@dataclass(frozen=True)
class Wording:
    """A prompt, cut where a weight changes: the curve of such a weight stands in place of its number.

    Args:
        texts: what stands before, between and behind the curves.
        curves: one less.
    """

    texts: tuple[str, ...]
    curves: tuple[Curve, ...] = ()

    @staticmethod
    def of(prompt: str) -> Wording:
        """The wording of a prompt as a user writes it. Weights that are numbers stay in the texts.

        Raises:
            TaskError: the times of a curve do not increase, or a weight is beyond 1000 in magnitude.
        """
        texts, curves, end = list[str](), list[Curve](), 0
        for found in _CURVE.finditer(prompt):
            try:
                curve = Curve.of(found[1])
            except TaskError as error:
                raise TaskError(f"in the prompt {prompt!r}: {error}") from None
            if max(abs(curve.low), abs(curve.high)) > LARGEST:
                raise TaskError(f"a prompt weight must be between -{LARGEST} and {LARGEST} at all times; got {curve}")
            texts.append(prompt[end : found.start()])
            curves.append(curve)
            end = found.end()
        return Wording((*texts, prompt[end:]), tuple(curves))

    def said(self, weights: Sequence[float]) -> str:
        """The prompt with a number in place of each curve."""
        parts = [text + f":{weight:.6f}" for text, weight in zip(self.texts, weights, strict=False)]
        if len(parts) != len(self.curves):
            raise ValueError(f"expected {len(self.curves)} weights, got {len(parts)}")
        return "".join([*parts, self.texts[-1]])

    @property
    def at_first(self) -> str:
        """The prompt with each curve's first value."""
        return self.said([curve.knots[0].value for curve in self.curves])


def weight_spans(prompt: str) -> list[tuple[int, int]]:
    """Where in a prompt the curves of weights stand: the first character of each, and the one behind it."""
    return [found.span(1) for found in _CURVE.finditer(prompt)]
