"""Making an upscaled clip: what is checked before long work, and which frames are made in what way."""

from __future__ import annotations

from segue.errors import TaskError
from segue.media.clip import Clip, Provenance
from segue.models.bundle import LatentDiffusion
from segue.tasks.record import Record
from segue.tasks.sampling import Execution
from segue.tasks.upscale import Upscale, UpscalePlan
from segue.tasks.upscale_frames import EnlargedFrames
from segue.tasks.upscale_time import FramesTogether
from segue.tasks.upscale_words import Story
from segue.types import Progress


def enlarged(
    task: Upscale, model: LatentDiffusion, execution: Execution, progress: Progress, plan: UpscalePlan | None
) -> Clip:
    """What `Upscale.run` says."""
    clip = task.source()
    if plan is None:
        task.check(len(clip))
    story = task.story(len(clip)) if plan is None else _replayed(task, plan, len(clip))
    settled = task.resolved(model, story)
    if model.inpaints:
        raise TaskError(f"{model.name} is an inpainting model, which has to be shown a mask; take another one")
    if model.instructs:
        raise TaskError(f"{model.name} changes pictures as it is told, and enlarges none; take another one")
    if model.lora_curves:
        raise TaskError("the scale of a LoRA follows a curve over a film, and upscale takes one scale; give a number")
    # Hashing large files takes seconds, in which an interrupt must not lose finished frames: so it comes first.
    _ = model.fingerprint
    made = plan or UpscalePlan(
        task.sha256(), [list(point) for point in story.points], list(story.positions), story.words
    )
    how = execution.pinned()
    frames = _frames(clip, settled, model, story, how, progress)
    frames.check()
    record = Record.of(task.name, settled, made, model, execution, frames.scores(), notes=task.notes(model))
    return Clip(frames, clip.fps, clip.audio, Provenance(record.to_dict()))


def _frames(
    clip: Clip, task: Upscale, model: LatentDiffusion, story: Story, execution: Execution, progress: Progress
) -> EnlargedFrames:
    """A film of one frame is a picture, also to a model that looks along time."""
    if task.coherence.together is None or len(clip) == 1:
        return EnlargedFrames(clip.frames, task, model, story, execution, progress)
    return FramesTogether(clip.frames, task, model, story, execution, progress, float(clip.fps))


def _replayed(task: Upscale, plan: UpscalePlan, frames: int) -> Story:
    if task.sha256() != plan.sha256:
        raise TaskError(f"{task.path} is not the file that this was made with: its contents have changed")
    if len(plan.positions) != frames or any(len(point) != len(task.prompt) for point in plan.points):
        raise TaskError("the plan does not belong to this task: it has other prompts or another number of frames")
    return Story(task.prompt, tuple(tuple(point) for point in plan.points), tuple(plan.positions), plan.words)
