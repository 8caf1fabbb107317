"""One picture from one prompt, and the same picture once more from the record beside it."""

from __future__ import annotations

import segue

model = segue.load()
picture = segue.Image("a red apple", seed=3).run(model)
print("wrote", picture.save("apple.png"))

# apple.json says how the picture was made: the task with nothing left open, the model's hash, versions, threads.
again = segue.Rerun.read("apple.json").run(model)
print("the same pixels again:", bool((again.frames[:] == picture.frames[:]).all()))
