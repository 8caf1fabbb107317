"""The embedded models: their weights, their cards, and `load`."""

from __future__ import annotations

from segue.zoo.cards import ModelCard, models
from segue.zoo.load import load

__all__ = ["ModelCard", "load", "models"]
