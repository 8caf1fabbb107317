"""Flags from dataclasses: every field of a task is a flag of its command, with the help of its docstring."""

from __future__ import annotations

import inspect
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from cyclopts import Group, Parameter, Token

from segue.errors import TaskError

SHORTER = {"seeds": "seed", "guidance_scale": "guidance"}
"""Fields whose flag has a name of its own: a list is given item by item, and some names are long."""

ALIASES = {"output": "-o", "model": "-m"}
RUNS = {"answers", "at", "branches"}
"""Lists that are given in one go, `--at 0 3 6 9`; others by repeating their flag, once per key."""

UNNAMED = "unnamed"
"""In the metadata of a field: True gives it without a name, after what must be given, although it may be left out."""

FROM_FILE = "Settings from a file"
"""The part of the help for what is no field."""

POSITIONAL, VAR_POSITIONAL = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL
KEYWORD = inspect.Parameter.KEYWORD_ONLY


@dataclass(frozen=True)
class Flag:
    """A field as the command line shows it.

    Args:
        name: of the parameter.
        place: where its value belongs: the verb's argument, then the fields down to it.
        hint: its type, as the dataclass states it.
        default: of the field; MISSING if it must be given.
        help: what its docstring says.
        about: what the dataclass is about that it is a field of, in a sentence.
        unnamed: whether it is given without a name although it has a default.
    """

    name: str
    place: tuple[str, ...]
    hint: Any
    default: Any
    help: str
    about: str
    unnamed: bool = False

    @property
    def is_positional(self) -> bool:
        """Whether it is given without a name: what has no default, and what its dataclass says is."""
        return self.default is MISSING or self.unnamed

    @property
    def is_list(self) -> bool:
        """Whether it is all that is given without a name."""
        return self.is_positional and get_origin(self.hint) is tuple

    def parameter(self, panel: Group | None = None) -> inspect.Parameter:
        """As a parameter of a function that cyclopts reads. What must be given is optional here: the task misses it.

        panel: the part of the help that it is shown in, unless it goes without a name.
        """
        about = Parameter(help=self.help, negative=(), alias=ALIASES.get(self.name))
        if self.is_list:
            return inspect.Parameter(self.name, VAR_POSITIONAL, annotation=Annotated[get_args(self.hint)[0], about])
        if self.is_positional:
            return inspect.Parameter(self.name, POSITIONAL, default=None, annotation=Annotated[self.hint | None, about])
        about = Parameter.combine(about, Parameter(group=panel))
        if self.hint == tuple[int, int] | None:
            about = Parameter.combine(about, Parameter(converter=_size, n_tokens=1, metavar="WxH"))
        elif str in get_args(self.hint) and any(get_origin(part) is tuple for part in get_args(self.hint)):
            # Lists that have a spelling are typed in it.
            about = Parameter.combine(about, Parameter(converter=_text, n_tokens=1, metavar="STR"))
        elif self.hint in (int, int | None):
            about = Parameter.combine(about, Parameter(converter=_whole))
        elif self.hint == tuple[int, ...]:
            about = Parameter.combine(about, Parameter(converter=_wholes))
        if self.name in RUNS:
            about = Parameter.combine(about, Parameter(consume_multiple=True))
        about = Parameter.combine(about, Parameter(show_default=_shown(self.default)))
        return inspect.Parameter(self.name, KEYWORD, default=self.default, annotation=Annotated[self.hint, about])


def flags(kind: type[Any], place: tuple[str, ...]) -> list[Flag]:
    """One flag per field of a dataclass, and of the dataclasses in it."""
    hints, helps, about = get_type_hints(kind), described(kind), summary(kind)
    found: list[Flag] = []
    for item in fields(kind):
        hint, here = hints[item.name], (*place, item.name)
        if is_dataclass(hint) and isinstance(hint, type):
            found += flags(hint, here)
        else:
            name = SHORTER.get(item.name, item.name)
            unnamed = bool(item.metadata.get(UNNAMED))
            found.append(Flag(name, here, hint, _default(item), helps[item.name], about, unnamed))
    return found


def summary(kind: type[Any]) -> str:
    """The first sentence of a dataclass's docstring, or its first half, without the stop."""
    return re.split(r"[.;]", inspect.getdoc(kind) or "", maxsplit=1)[0]


def described(kind: type[Any]) -> dict[str, str]:
    """What the docstring of a dataclass says of each field, under "Args:"."""
    _, _, block = (inspect.getdoc(kind) or "").partition("Args:\n")
    found: dict[str, str] = {}
    for name, text in re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", block, flags=re.MULTILINE):
        found[name] = " ".join(text.split())
    return found


def verb(function: Callable[..., int]) -> Callable[..., int]:
    """A command from a function whose arguments are dataclasses: their fields become flags.

    A function with an argument `task` also takes `--config FILE.toml`: the task's fields at the top, those of other
    arguments in tables of their names ([execution], [model], ...). Flags win over the file.

    Raises:
        ValueError: if two fields would share a flag.
    """
    kinds: dict[str, type[Any]] = {key: kind for key, kind in get_type_hints(function).items() if key != "return"}
    every = [flag for key, kind in kinds.items() for flag in flags(kind, (key,))]
    by_name = {flag.name: flag for flag in every}
    if len(by_name) < len(every):
        raise ValueError(f"two fields of {function.__name__} share a flag")
    titles = dict.fromkeys([*(flag.about for flag in every), FROM_FILE])
    panels = {title: Group(title, sort_key=number) for number, title in enumerate(titles)}
    parameters = [flag.parameter(panels[flag.about]) for flag in sorted(every, key=lambda flag: not flag.is_positional)]
    if "task" in kinds:
        about = Parameter(help="a TOML file of the same fields; flags win over it", group=panels[FROM_FILE])
        parameters.append(inspect.Parameter("config", KEYWORD, default=None, annotation=Annotated[Path | None, about]))
    positional = [flag for flag in every if flag.is_positional]
    if len(positional) > 1 and any(flag.is_list for flag in positional):
        raise ValueError(f"a list of {function.__name__} takes all that goes without a name, and so does another field")

    def command(*values: Any, **named: Any) -> int:
        config = named.pop("config", None) if "task" in kinds else None
        given = _read_config(config, kinds) if config is not None else {}
        for name, value in named.items():
            _put(given, by_name[name].place, value)
        for number, flag in enumerate(positional):
            # What is left out in the middle arrives as nothing.
            if flag.is_list and values:
                _put(given, flag.place, values)
            elif number < len(values) and values[number] is not None:
                _put(given, flag.place, values[number])
            _require(given, flag, function.__name__)
        return function(**{key: build(kind, given.get(key, {}), key) for key, kind in kinds.items()})

    command.__signature__ = inspect.Signature(parameters)
    command.__annotations__ = {}  # cyclopts would prefer these to the signature
    command.__doc__, command.__name__, command.__module__ = function.__doc__, function.__name__, function.__module__
    return command


def build(kind: type[Any], values: Any, name: str) -> Any:
    """A dataclass from a mapping of plain values; `name` is what messages call it.

    Raises:
        TaskError: if a value is of the wrong type or out of range, or a field does not exist.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        fault = error.errors()[0]
        cause = fault.get("ctx", {}).get("error")
        if isinstance(cause, TaskError):
            raise cause from None
        where = ".".join(str(part) for part in fault["loc"]) or name
        if fault["type"] == "unexpected_keyword_argument":
            raise TaskError(f"there is no field {where}; the fields are {', '.join(_names(kind))}") from None
        raise TaskError(f"{where}: {fault['msg']}; got {fault['input']!r}{of_a_curve(str(fault['input']))}") from None


def of_a_curve(said: str) -> str:
    """What to add to a complaint about a value, if it is a curve or has one in quotes: that this field takes none."""
    from segue.temporal.curve import is_curve

    curves = [part for part in (said, *re.findall(r'"([^"]+)"', said)) if is_curve(part)]
    return "; it is the same for the whole film, so that it cannot follow a curve" if curves else ""


def _read_config(path: Path, kinds: Mapping[str, type[Any]]) -> dict[str, Any]:
    try:
        data = tomllib.loads(path.expanduser().read_text("utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TaskError(f"cannot read {path}: {reason}; expected a TOML file of the command's fields") from None
    others = {key: data.pop(key) for key in kinds if key != "task" and key in data}
    return {"task": data, **others}


def _put(values: dict[str, Any], place: tuple[str, ...], value: Any) -> None:
    inner: Any = values
    for part in place[:-1]:
        inner = inner.setdefault(part, {})
        if not isinstance(inner, dict):
            raise TaskError(f"{part} must be a table of fields in the configuration, got {inner!r}")
    inner[place[-1]] = value


def _require(values: dict[str, Any], flag: Flag, command: str) -> None:
    """An empty list is left to the task, which knows how many it needs."""
    owner = values.setdefault(flag.place[0], {})
    if flag.is_list:
        owner.setdefault(flag.place[-1], ())
    elif flag.place[-1] not in owner and flag.default is MISSING:
        raise TaskError(f"{flag.name.upper()} is missing ({flag.help.rstrip('.')}); see segue {command} --help")


def _names(kind: type[Any]) -> list[str]:
    return [".".join(flag.place) for flag in flags(kind, ())]


def _default(item: Field[Any]) -> Any:
    return item.default_factory() if item.default_factory is not MISSING else item.default


def _shown(default: Any) -> bool | Callable[[Any], str]:
    """How a default is shown in the help: lists as they would be typed, and nothing where nothing is set."""
    if default in (None, (), ("",), "", False):
        return False
    return (lambda _: " ".join(str(part) for part in default)) if isinstance(default, tuple) else True


def _text(_: Any, tokens: list[Token]) -> str:
    return tokens[0].value


def _whole(_: Any, tokens: list[Token]) -> int:
    """The parser's own reading rounds fractions."""
    (token,) = tokens
    if re.fullmatch(r"[+-]?\d+", token.value.strip(), flags=re.ASCII) is None:
        raise ValueError(f'expected a whole number in digits, such as 5; got "{token.value}"')
    return int(token.value)


def _wholes(kind: Any, tokens: list[Token]) -> tuple[int, ...]:
    return tuple(_whole(kind, [token]) for token in tokens)


def _size(_: Any, tokens: list[Token]) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)\s*[x×,]\s*(\d+)", tokens[0].value.strip(), flags=re.IGNORECASE)
    if match is None:
        raise ValueError(f"--size must be WIDTHxHEIGHT in pixels, such as 512x384; got {tokens[0].value!r}")
    return int(match[1]), int(match[2])
