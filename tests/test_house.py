"""The architecture as a test: which way imports point, what no file does, and how light the package is to import."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import talweg

ROOT = Path(talweg.__file__).parent
REPOSITORY = Path(__file__).parents[1]
FILES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in sorted(ROOT.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}

NOUNS_AND_PARTS = (
    *("theta", "optimizers", "schedules", "data", "nn", "initialize", "averaging", "task", "recipe", "layout"),
    *("settings", "errors", "randomness", "device"),
)
# What drives them: a part that imported one of these could not be understood, tested or used without the loop.
DRIVERS = (
    *("building", "feed", "measuring", "training", "evaluating", "diagnose"),
    *("verbs", "arguments", "cli", "report"),
)


def imports(name: str) -> set[str]:
    """The talweg modules that a file imports, without the prefix; names in functions count as well."""
    found = set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import"
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    inside = {f.removeprefix("talweg.") for f in found if f.startswith("talweg.")}
    return {module for module in FILES if module in inside or module.removesuffix(".__init__") in inside}


def libraries(name: str) -> set[str]:
    """The packages that a file imports, at its top or in a function."""
    found = set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found


ARROWS = {name: imports(name) for name in FILES}


def reach(name: str) -> set[str]:
    """Every module that comes along with one."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        new = ARROWS[waiting.pop()] - seen
        seen |= new
        waiting += new
    return seen


def belongs(module: str, parts: Sequence[str]) -> bool:
    return module.split(".")[0] in parts


@pytest.mark.parametrize("part", NOUNS_AND_PARTS)
def test_arrows_point_down(part: str) -> None:
    own = [name for name in FILES if belongs(name, [part])]
    assert own, f"there is no {part}"
    for name in own:
        assert sorted(m for m in reach(name) if belongs(m, DRIVERS)) == [], name


def test_drivers_exist() -> None:
    """So that the test above cannot pass because of a name that has changed."""
    assert {name.split(".")[0] for name in FILES} >= set(DRIVERS)
    assert "theta" in ARROWS["optimizers.update"]
    assert "training" in reach("verbs")


def test_models_know_nothing_but_layers() -> None:
    for name in FILES:
        if belongs(name, ["nn"]):
            assert all(belongs(m, ["nn", "errors", "randomness"]) for m in reach(name)), name


def test_reports_are_made_from_facts_alone() -> None:
    for name in FILES:
        if belongs(name, ["report"]):
            assert not any(belongs(m, ["training", "building", "engine", "theta", "run"]) for m in reach(name)), name


def test_imports_form_no_circle() -> None:
    circular = [name for name in FILES if name != "__init__" and name in reach(name)]
    assert circular == []


def test_files_are_small() -> None:
    folders = ("src", "tests", "benchmarks", "examples")
    paths = [path for folder in folders for path in (REPOSITORY / folder).rglob("*.py")]
    assert len(paths) > 50
    lengths = {
        path.relative_to(REPOSITORY).as_posix(): len(path.read_text(encoding="utf-8").splitlines()) for path in paths
    }
    assert {name: n for name, n in lengths.items() if n > 400} == {}


def calls(name: str) -> Iterator[tuple[str, ast.Call]]:
    """Every call in a file, as it is written: "torch.load", "module.eval", "print"."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


FORBIDDEN = {
    "eval": "executes text",
    "exec": "executes text",
    "__import__": "hides an arrow",
    "torch.load": "unpickles: weights are safetensors",
    "torch.save": "pickles: weights are safetensors",
    "breakpoint": "is for debugging",
}


@pytest.mark.parametrize("name", FILES)
def test_no_file_executes_data(name: str) -> None:
    found = [called for called, _ in calls(name) if called in FORBIDDEN]
    assert found == []
    assert libraries(name).isdisjoint({"pickle", "dill", "cloudpickle", "marshal", "shelve", "torchvision"})
    for called, node in calls(name):
        options = {option.arg: ast.unparse(option.value) for option in node.keywords}
        assert options.get("allow_pickle", "False") == "False", called
        assert options.get("weights_only", "True") == "True", called


USES_SHARED_STATE = {
    "data.loader": "puts it back after each sample, in which a user's own Dataset may draw from it",
    "tasks": "puts it back after running a user's file, which may draw from it",
    "nn.noise": "recognises by it the calls that a backward pass repeats",
}
DRAWS = {"rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "rand_like", "randn_like"}


@pytest.mark.parametrize("name", sorted(FILES.keys() - USES_SHARED_STATE.keys()))
def test_draws_name_their_generator(name: str) -> None:
    """Randomness is a function of names and indices: no draw from the state that everybody shares."""
    for called, node in calls(name):
        if called.startswith("torch.") and called.removeprefix("torch.") in DRAWS:
            assert "generator" in {option.arg for option in node.keywords}, f"{called} in line {node.lineno}"
        assert not called.startswith(("np.random.", "numpy.random.", "random.")), f"line {node.lineno}"


@pytest.mark.parametrize("name", FILES)
def test_files_are_documented_and_do_nothing_when_imported(name: str) -> None:
    tree = TREES[name]
    assert ast.get_docstring(tree), "no docstring"
    quiet = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign
    for node in tree.body[1:]:
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        is_switch = isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "__name__ == '__main__'")
        assert isinstance(node, quiet) or is_text or is_switch, f"line {node.lineno} runs at import"
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{node.name} has no docstring"


@pytest.mark.parametrize("name", FILES)
def test_no_error_is_swallowed(name: str) -> None:
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"line {node.lineno}: except without a class"
            assert not all(isinstance(part, ast.Pass) for part in node.body), f"line {node.lineno}: pass"
        assert not isinstance(node, ast.Global), f"line {node.lineno}: global"


def test_one_place_makes_gradients() -> None:
    """A new kind of parallelism is a new engine: the loop and everything else never see a backward pass."""
    places = [name for name in FILES for called, _ in calls(name) if called.endswith((".backward", "autograd.grad"))]
    assert places == ["engine"]


def test_printing_is_left_to_the_commands() -> None:
    assert {name for name in FILES for called, _ in calls(name) if called == "print"} <= {"cli"}


def test_importing_is_light_and_without_warnings() -> None:
    loaded = "print(*{name.split('.')[0] for name in sys.modules})"
    command = [sys.executable, "-W", "error", "-c", f"import talweg, sys; {loaded}; import talweg.cli; {loaded}"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    package, commands = (set(line.split()) for line in ended.stdout.splitlines())
    assert package.isdisjoint({"matplotlib", "torchvision", "scipy", "pandas", "lightning", "tyro"})
    assert commands.isdisjoint({"matplotlib", "torchvision", "scipy", "pandas", "lightning"})
    assert "tyro" in commands


def test_public_names_are_there() -> None:
    assert (ROOT / "py.typed").is_file()
    assert sorted(talweg.__all__) == talweg.__all__
    for name in talweg.__all__:
        assert getattr(talweg, name) is not None
