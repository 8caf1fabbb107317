"""One sitting of a run: from where its checkpoint is to the end, or until somebody asks it to stop."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import MISSING, asdict, fields, replace
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Protocol, TypeVar

from torch import Tensor, nn

from segue.errors import TrainingError
from segue.training.checkpoint import Run, read_config, resume, save
from segue.training.interrupt import Interrupt, stopped
from segue.training.journal import Journal
from segue.training.precision import fast_bf16
from segue.training.ranks import Ranks

CHECKPOINT = "checkpoint.safetensors"
SHOWN = ("out", "device", "log_every", "save_every")
"""What says where a run is and what is seen of it, as all fields sheet_* do; it may be another in every sitting."""
REVISABLE = ("steps", "decay", "lr", "adversarial", "adversarial_start", "discriminator_lr", "kinds")
"""What brings a run home, or takes it further; another value is used from now on, and the log says so."""
CORPUS = "corpus_sha256"


class Settings(Protocol):
    """What every recipe's configuration, a frozen dataclass, says about its run."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def corpus(self) -> Path: ...
    @property
    def out(self) -> Path: ...
    @property
    def steps(self) -> int: ...
    @property
    def batch(self) -> int: ...
    @property
    def device(self) -> str: ...
    @property
    def bf16(self) -> bool | None: ...
    @property
    def log_every(self) -> int: ...
    @property
    def save_every(self) -> int: ...


S = TypeVar("S", bound=Settings)


def settled(config: S) -> S:
    """The configuration that a run has: what was left to the machine is decided, once for all sittings.

    Raises:
        TrainingError: the run's checkpoint was written with another one.
    """
    path = config.out / CHECKPOINT
    stored = read_config(path)
    if config.bf16 is None:
        config = replace(config, bf16=stored.get("bf16", fast_bf16(config.device)))
    fixed = {name: pair for name, pair in changes(stored, config).items() if name not in REVISABLE}
    if fixed:
        said = "; ".join(f"{name}: {before} there, {now} here" for name, (before, now) in fixed.items())
        raise TrainingError(f"{path} does not fit this run ({said}); go on with what it has, or use another folder")
    return config


def changes(stored: Mapping[str, Any], config: Settings) -> dict[str, tuple[Any, Any]]:
    """(before, now) of each field that a checkpoint has otherwise, by name.

    Where its configuration is of an earlier version and lacks a field, that had the default.
    """
    defaults = {field.name: field.default for field in fields(config) if field.default is not MISSING}
    found: dict[str, tuple[Any, Any]] = {}
    for name, now in described(config).items() if stored else ():
        before = stored.get(name, defaults.get(name, now))
        if name not in SHOWN and not name.startswith("sheet_") and _plain(before, now) != _plain(now, now):
            found[name] = before, now
    return found


def described(config: Settings) -> dict[str, Any]:
    """What a checkpoint says of the configuration: its fields, and which corpus it was."""
    sources = config.corpus / "sources.json"
    seen = {CORPUS: sha256(sources.read_bytes()).hexdigest()} if sources.is_file() else {}
    return {**asdict(config), **seen}


def _numbers(name: str, value: Any) -> dict[str, float]:
    """A field as numbers that a log can hold: those of a table by their own names behind the field's."""
    return {f"{name}.{key}": part for key, part in value.items()} if isinstance(value, Mapping) else {name: value}


def _plain(value: Any, like: Any) -> Any:
    """A value as JSON keeps it; paths by where they lead."""
    if isinstance(like, Path) and value is not None:
        return str(Path(value).expanduser().resolve())
    if isinstance(value, list | tuple):
        first = next(iter(like), None) if isinstance(like, list | tuple) else None
        return [_plain(item, first) for item in value]
    return value


class Sitting:
    """Learns, logs, saves, and stops when asked. A context manager around the steps that are left.

    Args:
        config: as `settled` returned it.
        run: what is trained; its checkpoint is loaded into it.
        ranks: the processes that share it.

    Raises:
        TrainingError: the checkpoint does not fit.
    """

    def __init__(self, config: Settings, run: Run, ranks: Ranks) -> None:
        self.config, self.run, self.ranks = config, run, ranks
        self.checkpoint, self._seen = config.out / CHECKPOINT, described(config)
        self._revised = changes(read_config(self.checkpoint), config)
        self.start, spent = resume(self.checkpoint, run)
        writing: Any = {"batch": config.batch, "tally": run.tally, "silent": not ranks.main}
        self.log = Journal(config.out / "log.jsonl", config.steps, self.start, spent, config.log_every, **writing)
        self._interrupt = Interrupt(ranks)
        self._open = ExitStack()

    def __enter__(self) -> Sitting:
        self._open.enter_context(self.log)
        self._open.enter_context(self._interrupt)
        for name, (before, now) in self._revised.items():
            self.log.note(self.start, **_numbers(name, now))
            self.log.say(f"from step {self.start} on, {name} is {now}; it was {before}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    @property
    def steps(self) -> range:
        """The steps that are left, counted from 0."""
        return range(self.start, self.config.steps)

    def learn(self, step: int, **measured: Tensor) -> None:
        """Let the gradients move the weights, and their average follow; log what was measured."""
        run = self.run
        trained = [parameter for group in run.optimizer.param_groups for parameter in group["params"]]
        self.ranks.average_gradients(trained)
        nn.utils.clip_grad_norm_(trained, 1.0, foreach=True)
        run.optimizer.step()
        run.optimizer.zero_grad(set_to_none=True)
        run.ema.update(run.model, step + 1)
        self.log.step(step + 1, **self.ranks.means(measured))

    def due(self, step: int, every: int) -> bool:
        """Whether something that is done every so many steps, and at the end, is this process's to do now."""
        return self.ranks.main and ((step + 1) % every == 0 or step + 1 == self.config.steps)

    def close(self, step: int) -> None:
        """End a step: save if that is due, or if somebody asked to stop.

        Raises:
            InterruptedRunError: somebody asked, and steps are left.
        """
        stop = self._interrupt.asked()
        if self.due(step, self.config.save_every) or (stop and self.ranks.main):
            save(self.checkpoint, self.run, step + 1, self.log.seconds, self._seen)
        if stop and step + 1 < self.config.steps:
            raise stopped(step + 1, self.config.steps, self.checkpoint)
