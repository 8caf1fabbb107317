"""The cards of a tiny zoo: a model, and a student of it."""

from __future__ import annotations

CARD = """
name = "dots"
summary = "Draws dots on a plate, one at a time, and says so in a line that is longer than a terminal is wide."
licence = "MIT"
concepts = 2
vocabulary = ["red apple", "cat", "tree-ripened pear of the garden"]

[words]
colours = ["red", "green"]

[defaults]
size = [64, 32]
steps = 9
guidance_scale = 3.5
solver = "dpmpp_2m"
"""
FAST = """
name = "dots-fast"
summary = "Draws dots in 2 steps."
licence = "Apache-2.0"
base = "dots"
lora = "student.safetensors"

[defaults]
steps = 2
guidance_scale = 1.0
solver = "lcm"
"""
