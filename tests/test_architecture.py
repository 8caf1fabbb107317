"""The house's rules, read from its source: who may import whom, how large things are, and what is nowhere.

An import counts wherever it stands: at the top, inside a function, or under TYPE_CHECKING. A type that a room may not
import is a type that it should not know; it asks for a protocol of `segue.types` instead. Exceptions are named below.
"""

from __future__ import annotations

import ast
import io
import os
import re
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "segue"

ROOMS: dict[str, set[str]] = {
    "types": set(),
    "errors": set(),
    "media": set(),
    "motion": set(),
    "diffusion": set(),
    "temporal": {"motion", "diffusion"},
    "models": {"media", "diffusion"},
    "zoo": {"models"},
    "evaluation": {"media", "motion", "models.perceptual"},
    "tasks": {"media", "motion", "diffusion", "temporal", "models", "zoo", "evaluation"},
    "training": {"media", "diffusion", "models", "temporal", "zoo", "evaluation"},
    "cli": {"media", "motion", "diffusion", "temporal", "models", "zoo", "evaluation", "tasks", "training"},
}
"""Which rooms a room may import, besides itself, `types` and `errors`."""

FOR_TYPES_ONLY = {"errors": {"media.clip"}}
"""What may be imported for annotations alone: the error of an interrupted run carries a clip."""

LIBRARIES: dict[str, set[str]] = {
    "torch": set(ROOMS) - {"errors"},
    "jaxtyping": set(ROOMS) - {"errors"},
    "diffusers": {"models", "training"},
    "transformers": {"models", "training"},
    "tokenizers": {"models", "training"},
    "huggingface_hub": {"models"},
    "safetensors": {"evaluation", "models", "motion", "training", "zoo"},
    "accelerate": {"training"},
    "resvg_py": {"training"},
    "av": {"media", "cli"},
    "PIL": {"media", "training"},
    "numpy": {"media", "motion", "evaluation", "training", "models"},
    "scipy": {"motion", "evaluation"},
    "cv2": {"motion", "models", "training"},
    "pydantic": {"tasks", "training", "cli", "zoo"},
    "cyclopts": {"cli"},
    "rich": {"cli", "training"},
    "gradio": {"ui"},
    "ray": {"film"},
}
"""The rooms that may import each library; one that is not listed may not be imported at all."""

HEAVY = {"torch", "diffusers", "transformers", "scipy", "av", "cv2", "accelerate"}
NO_FACE_IMPORTS = {
    "tasks/animate_controls.py",
    "tasks/animate_joint.py",
    "tasks/animate_long.py",
    "tasks/animate_long_joint.py",
    "tasks/animate_long_parts.py",
    "tasks/animate_long_still.py",
    "tasks/animate_run.py",
    "tasks/animate_zero_shot.py",
    "tasks/deflicker_run.py",
    "tasks/depths.py",
    "tasks/edit_candidates.py",
    "tasks/edit_draw.py",
    "tasks/edit_masks.py",
    "tasks/edit_prepare.py",
    "tasks/edit_run.py",
    "tasks/edit_strength.py",
    "tasks/edit_told.py",
    "tasks/stylize_agree.py",
    "tasks/stylize_draw.py",
    "tasks/stylize_geometry.py",
    "tasks/stylize_inputs.py",
    "tasks/stylize_look.py",
    "tasks/stylize_outlook.py",
    "tasks/stylize_prepare.py",
    "tasks/stylize_rival.py",
    "tasks/stylize_run.py",
    "tasks/stylize_told.py",
    "tasks/transition_run.py",
    "tasks/transition_setting.py",
    "tasks/upscale_frames.py",
    "tasks/upscale_live.py",
    "tasks/upscale_run.py",
    "tasks/upscale_time.py",
}
"""Tasks keep heavy imports inside functions; these modules of theirs are themselves only imported in one."""


@dataclass(frozen=True)
class Import:
    """One imported module: where it stands, its full name, and whether it is run when the file is imported."""

    path: Path
    line: int
    module: str
    at_top: bool
    for_types: bool

    @property
    def room(self) -> str:
        return room_of(self.path)

    def __str__(self) -> str:
        return f"{self.path.relative_to(SOURCE)}:{self.line} imports {self.module}"


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


@cache
def files() -> tuple[Path, ...]:
    return tuple(sorted(SOURCE.rglob("*.py")))


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def walk_imports(path: Path, node: ast.AST, at_top: bool = True, for_types: bool = False) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        for name in node.names:
            yield Import(path, node.lineno, name.name, at_top, for_types)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
        for name in node.names:
            yield Import(path, node.lineno, f"{node.module}.{name.name}", at_top, for_types)
    else:
        inside = at_top and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        typing = for_types or is_type_checking(node)
        for child in ast.iter_child_nodes(node):
            yield from walk_imports(path, child, inside, typing)


@cache
def imports() -> tuple[Import, ...]:
    return tuple(found for path in files() for found in walk_imports(path, parsed(path)))


def functions() -> Iterator[tuple[Path, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for path in files():
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield path, node


def starts_with(module: str, prefixes: set[str]) -> bool:
    return any(module == prefix or module.startswith(f"{prefix}.") for prefix in prefixes)


def test_everything_is_read() -> None:
    assert len(files()) > 60
    assert len(imports()) > 400
    rooms = {room_of(path) for path in files()} - {"__init__"}
    assert rooms <= set(ROOMS), f"{rooms - set(ROOMS)} have no rules"
    assert len(rooms) >= 10


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_only_what_they_may(room: str) -> None:
    allowed = {room, "types", "errors", *ROOMS[room]}
    for found in imports():
        if found.room == room and found.module.startswith("segue."):
            inner = found.module.removeprefix("segue.")
            excused = found.for_types and starts_with(inner, FOR_TYPES_ONLY.get(room, set()))
            assert excused or starts_with(inner, allowed), str(found)


def test_nothing_imports_the_leaves_or_the_face() -> None:
    for found in imports():
        if found.room not in ("cli", "__init__"):
            assert not starts_with(found.module, {"segue.cli", "segue.ui"}), str(found)
        assert found.module != "segue" or found.room == "__init__", f"{found}: rooms import rooms, not the public face"


@pytest.mark.parametrize("library", LIBRARIES)
def test_libraries_stay_in_their_rooms(library: str) -> None:
    for found in imports():
        if starts_with(found.module, {library}):
            assert found.room in LIBRARIES[library], str(found)


def test_no_library_is_used_that_nobody_listed() -> None:
    known = {"segue", "__future__", *LIBRARIES, *sys.stdlib_module_names}
    for found in imports():
        assert found.module.partition(".")[0] in known, str(found)


def test_diffusion_is_torch_alone() -> None:
    used = {found.module.partition(".")[0] for found in imports() if found.room == "diffusion"}
    assert used - set(sys.stdlib_module_names) == {"torch", "jaxtyping", "segue"}


def test_types_and_errors_import_nothing_heavy_when_imported() -> None:
    for found in imports():
        if found.room in ("types", "errors") and found.at_top and not found.for_types:
            own = starts_with(found.module, {f"segue.{found.room}"})
            assert own or found.module.partition(".")[0] in sys.stdlib_module_names, str(found)


def test_faces_and_tasks_import_nothing_heavy_at_the_top() -> None:
    for found in imports():
        inner = found.path.relative_to(SOURCE).as_posix()
        is_face = inner.endswith("__init__.py") or inner.startswith("tasks/")
        if is_face and inner not in NO_FACE_IMPORTS and found.at_top and not found.for_types:
            assert not starts_with(found.module, HEAVY), str(found)


def run_python(code: str) -> str:
    """What a fresh interpreter prints; it must succeed."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    "code",
    [
        "import segue; segue.Transition; segue.Image; segue.Branching; segue.Execution; segue.Rerun; segue.load",
        "import segue.cli.main; segue.cli.main.application()",
        "import segue.cli.transition, segue.cli.image, segue.cli.rerun, segue.cli.models, segue.cli.doctor",
        "import segue.tasks.transition; segue.tasks.transition.Transition(prompts=('a', 'b'))",
        "import segue.zoo; segue.zoo.models()",
    ],
    ids=["the face", "the command", "its verbs", "a task", "the cards"],
)
def test_torch_is_left_alone_until_it_is_needed(code: str) -> None:
    heavy = sorted(HEAVY | {"scipy.signal"})
    assert run_python(f"import sys; {code}; print([name for name in {heavy} if name in sys.modules])") == "[]"


def test_training_and_diffusion_need_neither_av_nor_cv2() -> None:
    modules = [
        ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in files()
        if room_of(path) in ("training", "diffusion")
    ]
    assert len(modules) > 20
    printed = run_python(
        "import sys, importlib\n"
        "sys.modules['av'] = sys.modules['cv2'] = None\n"
        f"for name in {modules}: importlib.import_module(name)\n"
        "print('done')"
    )
    assert printed.endswith("done")


def test_importing_the_package_changes_nothing() -> None:
    import_everything = "import segue.cli.main, segue.models.loading, segue.tasks.transition_run, segue.media.writer"
    watched = "(torch.is_grad_enabled(), torch.get_num_threads(), torch.initial_seed(), dict(os.environ))"
    libraries = "import os, torch, diffusers, transformers"
    run_python(f"{libraries}\nbefore = {watched}\n{import_everything}\nassert before == {watched}")


@pytest.mark.parametrize("path", files(), ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_files_are_small(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_functions_are_small() -> None:
    for path, function in functions():
        where = f"{path.relative_to(SOURCE)}:{function.lineno} {function.name}"
        lines = (function.end_lineno or function.lineno) - function.lineno + 1
        assert lines <= 60, f"{where} has {lines} lines"
        asked = function.args
        names = [
            arg.arg for arg in (*asked.posonlyargs, *asked.args, *asked.kwonlyargs) if arg.arg not in ("self", "cls")
        ]
        assert len(names) <= 12, f"{where} takes {len(names)} arguments"


def test_there_is_one_loop() -> None:
    loops = [path for path, function in functions() if function.name == "denoise"]
    assert [path.relative_to(SOURCE).as_posix() for path in loops] == ["diffusion/loop.py"]


def test_the_library_does_not_print() -> None:
    for path in files():
        if room_of(path) != "cli":
            for node in ast.walk(parsed(path)):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    assert node.func.id != "print", f"{path.relative_to(SOURCE)}:{node.lineno} prints"


def test_no_check_is_switched_off_and_nothing_is_put_off() -> None:
    forbidden = re.compile(r"noqa|type:\s*ignore|pyright:\s*ignore|pragma|\bTODO\b|\bFIXME\b|\bXXX\b")
    for path in files():
        for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline):
            if token.type == tokenize.COMMENT:
                assert not forbidden.search(token.string), f"{path.relative_to(SOURCE)}:{token.start[0]} {token.string}"


def test_names_say_what_things_are() -> None:
    vague = {"util", "utils", "helper", "helpers", "manager", "engine", "holder", "common", "misc"}
    names = [(path, path.stem) for path in files()]
    for path in files():
        defined = (node for node in ast.walk(parsed(path)) if isinstance(node, ast.ClassDef | ast.FunctionDef))
        names += [(path, node.name) for node in defined]
    for path, name in names:
        words = set(re.findall(r"[A-Z]?[a-z]+", name))
        assert not {word.lower() for word in words} & vague, f"{path.relative_to(SOURCE)}: {name}"


def test_every_module_and_public_definition_says_what_it_is() -> None:
    for path in files():
        tree = parsed(path)
        if tree.body:
            assert ast.get_docstring(tree), f"{path.relative_to(SOURCE)} has no docstring"
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path.relative_to(SOURCE)}:{node.lineno} {node.name} has no docstring"


def test_recipes_are_pairs_and_their_files_fit() -> None:
    from segue.training.run import RECIPES, names, read_config

    scripts = {path.stem for path in RECIPES.glob("*.py")} - {"__init__"}
    assert scripts == set(names()) == {path.stem for path in RECIPES.rglob("*.toml")}
    assert len(scripts) >= 2
    for name in names():
        config = read_config(name)
        stated = tomllib.loads((RECIPES / f"{name}.toml").read_text(encoding="utf-8"))
        assert stated, f"{name}.toml states nothing"
        recipe = import_module(f"segue.training.recipes.{name}")
        assert isinstance(config, recipe.Config)
        assert callable(recipe.main)


def test_models_never_trust_code_or_pickles() -> None:
    for path in files():
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                refused = isinstance(node.value, ast.Constant) and node.value.value is False
                assert refused, f"{path.relative_to(SOURCE)}:{node.lineno} trusts remote code"
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                called = f"{node.value.id}.{node.attr}"
                assert called not in {"torch.load", "pickle.load", "pickle.loads"}, f"{path}:{node.lineno} {called}"
