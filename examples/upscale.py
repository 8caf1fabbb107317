"""A small film, four times as large: each frame by its own small picture, all from one noise."""

from __future__ import annotations

import segue

film = segue.Transition(("a red apple", "a lemon"), seeds=(8,), seconds=1, fps=4, sampling=segue.Sampling(steps=8))
print("wrote", film.run(segue.load()).save("film.mp4"))

# What each frame shows stands in film.json. The frames of the result are made while it is written.
large = segue.Upscale("film.mp4").run(segue.load("emoji-x4"))
print("wrote", large.save("large.mp4"), "{}x{} pixels".format(*large.size))
