"""Who a figure is: proportions, skin, hair and clothes, drawn from a seed, and told in words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segue.training.figure_brush import Colour
from segue.training.figure_motion import Build

CLOTHS: dict[str, Colour] = {
    "red": (0.90, 0.24, 0.24),
    "orange": (0.97, 0.56, 0.19),
    "yellow": (0.98, 0.82, 0.28),
    "green": (0.30, 0.70, 0.36),
    "teal": (0.17, 0.66, 0.66),
    "blue": (0.24, 0.46, 0.90),
    "purple": (0.57, 0.36, 0.82),
    "pink": (0.96, 0.52, 0.70),
    "white": (0.96, 0.95, 0.93),
    "black": (0.22, 0.22, 0.27),
}
"""Colours of clothes."""

SKINS: tuple[Colour, ...] = (
    (1.00, 0.86, 0.74),
    (0.96, 0.76, 0.60),
    (0.86, 0.63, 0.45),
    (0.69, 0.47, 0.31),
    (0.49, 0.32, 0.21),
)
HAIRS: dict[str, Colour] = {
    "black": (0.16, 0.14, 0.18),
    "brown": (0.42, 0.26, 0.16),
    "blond": (0.93, 0.76, 0.40),
    "red": (0.78, 0.34, 0.16),
    "grey": (0.72, 0.72, 0.76),
    "blue": (0.34, 0.42, 0.80),
}
STYLES = ("short", "bob", "bun", "tail", "curls", "cap")
"""Of hair; a cap is over short hair."""

BOTTOMS = ("trousers", "shorts", "skirt")
PATTERNS = ("plain", "striped", "dotted", "checked", "badged")


@dataclass(frozen=True)
class Subject:
    """A figure in clothes.

    Args:
        skin: its colour.
        hair: the name of its colour.
        style: of hair, one of STYLES.
        top, bottom, shoes: names of the colours of clothes.
        accent: that of the top's pattern, and of a cap.
        pattern: of the top, one of PATTERNS.
        sleeves: how much of the arms they cover, in [0, 1].
        wears: one of BOTTOMS.
        build: proportions.
    """

    skin: Colour
    hair: str
    style: str
    top: str
    accent: str
    bottom: str
    shoes: str
    pattern: str
    sleeves: float
    wears: str
    build: Build

    @staticmethod
    def drawn(seed: int) -> Subject:
        """One of all kinds; the same for the same seed."""
        rng = np.random.default_rng((seed, 17))

        def one_of(names: tuple[str, ...]) -> str:
            return names[int(rng.integers(len(names)))]

        names = tuple(CLOTHS)
        top = one_of(names)
        accent = one_of(tuple(name for name in names if name != top))
        bottom = one_of(tuple(name for name in names if name not in (top, "white")))
        build = Build(
            head=rng.uniform(0.128, 0.158),
            shoulders=rng.uniform(0.092, 0.118),
            hips=rng.uniform(0.05, 0.062),
            torso=rng.uniform(0.255, 0.285),
            arm=rng.uniform(0.27, 0.3),
            thick=rng.uniform(0.88, 1.25),
        )
        return Subject(
            skin=SKINS[int(rng.integers(len(SKINS)))],
            hair=one_of(tuple(HAIRS)),
            style=one_of(STYLES),
            top=top,
            accent=accent,
            bottom=bottom,
            shoes=one_of(("red", "white", "black", "yellow", "blue")),
            pattern=one_of(PATTERNS),
            sleeves=float(rng.choice([0.28, 0.5, 1.0])),
            wears=one_of(BOTTOMS),
            build=build,
        )

    @property
    def words(self) -> str:
        """A caption."""
        pattern = "" if self.pattern in ("plain", "badged") else f"{self.pattern} "
        on = f" and {'an' if self.accent == 'orange' else 'a'} {self.accent} cap" if self.style == "cap" else ""
        article = "an" if self.top == "orange" and not pattern else "a"
        bottom = f"{self.bottom} {self.wears}"
        if self.wears == "skirt":
            bottom = f"{'an' if self.bottom == 'orange' else 'a'} {bottom}"
        return f"a person in {article} {pattern}{self.top} shirt and {bottom}{on}"
