"""A film through three pictures, as a task, with what was measured of it."""

from __future__ import annotations

import segue

model = segue.load()
task = segue.Transition(
    prompts=("a red apple", "a green apple", "a lemon"),
    seeds=(7,),
    seconds=2,
    fps=12,
    sampling=segue.Sampling(steps=16),
    tree=segue.Branching(depth=0.3),
)
clip = task.run(model, segue.Execution(max_batch=16))
print("wrote", clip.save("fruit.mp4"), f"{len(clip)} frames, {clip.seconds:g} s")

if clip.provenance is not None:
    for name, value in clip.provenance.record["scores"].items():
        print(f"  {name}: {value}")
