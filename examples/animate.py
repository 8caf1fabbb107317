"""Words, and a picture, that begin to move: whether they stay themselves, and how far they go, in numbers."""

from __future__ import annotations

import segue
from segue.evaluation.dimensions import dimensions
from segue.tasks.animate_settings import Movement

model = segue.load()
segue.Image("a yellow star", seed=3).run(model).save("star.png")

tasks = {
    "bouncing": segue.Animate("a bouncing red apple", seconds=1, seed=3),
    "spinning": segue.Animate("a spinning yellow star", image="star.png", seconds=1),
    "loop": segue.Animate("a swinging bell", seconds=1, seed=3, movement=Movement(loop=True)),
}
for name, task in tasks.items():
    clip = task.run(model)
    path = clip.save(f"{name}.mp4")
    found = dimensions(clip.frames, float(clip.fps))
    print("wrote", path, f"motion smoothness {found.motion_smoothness:.3f}, dynamic degree {found.dynamic_share:.2f}")
