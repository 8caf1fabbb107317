"""The embedded models: their weights, their cards, and `load`."""

from __future__ import annotations

from segue.zoo.cards import ModelCard, models
from segue.zoo.load import load, load_control

__all__ = ["ModelCard", "load", "load_control", "models"]
