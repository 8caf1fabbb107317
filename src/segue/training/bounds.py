"""What the numbers of a recipe may be; `segue train` checks them before anything is loaded."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Portion = Annotated[float, Field(gt=0, le=1)]
Memory = Annotated[float, Field(ge=0, lt=1)]
"""Of an average of weights: 1 would never change."""
Prompts = Annotated[tuple[str, ...], Field(min_length=1)]
