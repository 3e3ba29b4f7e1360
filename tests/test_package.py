"""The shape of the package: who imports whom, what an import costs, what is public."""

from __future__ import annotations

import ast
import graphlib
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import bsr_theory

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "bsr_theory"
NAME = "bsr_theory"

# Left: a module or subpackage. Right: what it may import from the package besides itself.
# A module that is not listed fails the test below: say here what it may know.
FOUNDATION = {"_kernels", "_arrays", "results"}
MODEL = FOUNDATION | {"spectra", "priors", "channels", "design", "problem"}
THEORY = MODEL | {"state_evolution", "erm", "limits", "phases"}
MAY_IMPORT: dict[str, set[str]] = {
    "": set(),  # __init__ imports lazily
    "_kernels": set(),
    "_arrays": set(),
    "results": {"_arrays"},
    "spectra": FOUNDATION,
    "priors": FOUNDATION | {"spectra"},
    "rotational": FOUNDATION | {"spectra", "priors"},
    "denoising": FOUNDATION | {"spectra"},
    "channels": FOUNDATION,
    "design": {"_arrays"},
    "problem": FOUNDATION | {"priors", "channels", "design"},
    "state_evolution": MODEL,
    "erm": MODEL | {"rotational"},
    "limits": set(),  # shares no code with what it checks
    "phases": MODEL | {"state_evolution", "erm"},
    "simulations": MODEL,  # never state_evolution: agreement of the two is evidence
    "simulations.compare": THEORY | {"sweeps"},  # the one place where both meet
    "attention": MODEL | {"simulations"},  # the damping of message passing
    "sweeps": {"_arrays", "results"},
    "verify": THEORY,
    "figures": THEORY | {"rotational", "simulations", "attention", "sweeps"},
    "explore": THEORY,
    # The command line is a user of the package: it takes the public names, each when it is needed.
    "cli": THEORY | {"", "simulations", "attention", "figures", "sweeps", "verify"},
    "__main__": {"cli"},
}
# Libraries that may be imported in the body of a function, since they are slow to load.
HEAVY = {"matplotlib", "xarray", "sympy", "mpmath", "dask"}
# Libraries that only these modules may import, at any depth.
RESERVED = {
    "matplotlib": {"figures"},
    "click": {"cli"},
    "bokeh": {"explore"},
    "tornado": {"explore"},
    "numba": {"_kernels", "cli"},  # the command line reports its version and threads
}
# What a module may import from outside the standard library.
OUTSIDE = {"_kernels": {"numpy", "numba"}, "limits": {"numpy", "scipy"}}


class Import(NamedTuple):
    """One imported module, and the function whose body holds the statement ("" at the top)."""

    target: str
    function: str


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def component(module: str) -> str:
    """Return "spectra" for bsr_theory.spectra.law, "" for bsr_theory itself."""
    return [*module.split("."), ""][1]


def is_for_types(node: ast.If) -> bool:
    return ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def imports(module: str, path: Path) -> Iterator[Import]:
    """Yield every import of a source file except those for the type checker alone."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]

    def walk(node: ast.AST, function: str) -> Iterator[Import]:
        child: ast.AST
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, function) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            # `from . import law` imports a module, and so does `from .law import f`
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield Import(inner if inner in SOURCES else base, function)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for child in node.body:
                yield from walk(child, node.name)
        elif isinstance(node, ast.If) and is_for_types(node):
            for child in node.orelse:
                yield from walk(child, function)
        else:
            for child in ast.iter_child_nodes(node):
                yield from walk(child, function)

    yield from walk(ast.parse(path.read_text(encoding="utf-8")), "")


GRAPH = {module: list(imports(module, path)) for module, path in SOURCES.items()}


def test_the_reader_of_imports_sees_every_form(tmp_path: Path) -> None:
    source = tmp_path / "law.py"
    source.write_text(
        "from __future__ import annotations\n"
        "import numpy as np\n"
        "from typing import TYPE_CHECKING\n"
        "from .. import _kernels\n"
        "from ..results import Status\n"
        "if TYPE_CHECKING:\n    from ..cli import main\n"
        "def f():\n    import matplotlib.pyplot\n"
        "class C:\n    def g(self):\n        if self:\n            from . import curve\n"
    )
    assert set(imports("bsr_theory.spectra.law", source)) == {
        Import("__future__", ""),
        Import("numpy", ""),
        Import("typing", ""),
        Import("bsr_theory._kernels", ""),
        Import("bsr_theory.results", ""),
        Import("matplotlib.pyplot", "f"),
        Import("bsr_theory.spectra.curve", "g"),
    }


def test_no_import_cycles() -> None:
    graph = {
        module: {i.target for i in found if i.target in SOURCES and not i.function}
        for module, found in GRAPH.items()
    }
    order = list(graphlib.TopologicalSorter(graph).static_order())  # CycleError names the cycle
    assert set(order) == set(SOURCES)


@pytest.mark.parametrize("module", SOURCES)
def test_a_module_imports_only_what_lies_below_it(module: str) -> None:
    here = component(module)
    assert here in MAY_IMPORT, f"say in MAY_IMPORT what {module} may import"
    allowed = MAY_IMPORT.get(module.removeprefix(f"{NAME}."), MAY_IMPORT[here])
    reached = {component(i.target) for i in GRAPH[module] if i.target in SOURCES}
    assert reached - {here} <= allowed


@pytest.mark.parametrize("module", SOURCES)
def test_imports_stand_at_the_top(module: str) -> None:
    hidden = {
        i.target
        for i in GRAPH[module]
        if i.function and i.target.split(".")[0] not in HEAVY
        if not (module == NAME and i.function == "__getattr__")
    }
    assert not hidden


@pytest.mark.parametrize("module", SOURCES)
def test_libraries_stay_where_they_belong(module: str) -> None:
    here = component(module)
    libraries = {i.target.split(".")[0] for i in GRAPH[module]} - {NAME}
    strays = {x for x in libraries if x in RESERVED and here not in RESERVED[x]}
    assert not strays
    if here in OUTSIDE:
        assert libraries - set(sys.stdlib_module_names) <= OUTSIDE[here]


def test_import_is_quick_and_light() -> None:
    program = (
        "import sys, time; start = time.perf_counter(); import bsr_theory; "
        "print(time.perf_counter() - start, *sys.modules)"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(3)
    ]
    assert min(float(run[0]) for run in runs) < 0.2
    slow = {"numba", "scipy", "sympy", "mpmath", "matplotlib", "xarray"}
    assert not slow & set(runs[0][1:])


MODULES = [NAME, *(m.name for m in pkgutil.walk_packages([str(PACKAGE)], f"{NAME}."))]


def own_docstring(name: str, value: object) -> str:
    """Return the docstring somebody wrote for this object, "" if there is none."""
    if hasattr(value, "callback"):  # a click command: its text is what --help shows
        return getattr(value, "help", "") or ""
    text = getattr(value, "__doc__", None) or ""
    generated = inspect.isclass(value) and text.startswith(f"{name}(")  # by dataclass, namedtuple
    return "" if generated else text


@pytest.mark.parametrize("module", MODULES)
def test_public_names_exist_and_are_documented(module: str) -> None:
    loaded = importlib.import_module(module)
    assert own_docstring(module, loaded)
    names = loaded.__all__
    assert len(set(names)) == len(names)
    for name in names:
        value = getattr(loaded, name)  # AttributeError if __all__ promises too much
        if (
            inspect.ismodule(value)
            or inspect.isclass(value)
            or inspect.isroutine(value)
            or hasattr(value, "callback")
        ):
            assert own_docstring(name, value), f"{module}.{name} has no docstring"


def test_the_package_lists_what_it_offers() -> None:
    assert set(bsr_theory.__all__) <= set(dir(bsr_theory))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = bsr_theory.no_such_name


def test_every_public_name_has_a_place_in_the_documentation() -> None:
    folder = ROOT / "docs" / "api"
    index = (folder / "index.md").read_text(encoding="utf-8")
    listed = re.findall(r"`~bsr_theory\.(\w+)\.(\w+)`", index)
    for module, name in listed:
        assert hasattr(importlib.import_module(f"bsr_theory.{module}"), name)
    pages = {path.stem for path in folder.glob("*.md")}
    assert set(bsr_theory.__all__) <= {name for _, name in listed} | pages
    assert pages - {"index"} <= set(re.findall(r"^(\w+)$", index, flags=re.MULTILINE))


def test_every_module_is_described_in_the_documentation() -> None:
    pages = [path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "api").glob("*.md")]
    described = set(re.findall(r"automodule:: (\S+)", "\n".join(pages)))
    public = {
        module
        for module, path in SOURCES.items()
        if path.name != "__init__.py" and "._" not in module
    }
    assert described == public


def test_version_is_said_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert bsr_theory.__version__ == project["version"]
    assert f"\nversion: {project['version']}\n" in citation
    assert f"\n## {project['version']} " in changes


MACHINE_PATH = re.compile(r"(?<![\w./-])/(?:farm|home|root|tmp|Users|work)/[\w.]")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("see " + "/".join(["", "home", "me", "data.csv"]), True),
        ('"' + "/".join(["", "root", ".cache"]) + '"', True),
        ("https://example.org/home/page", False),
        ("docs/work/plan", False),
    ],
)
def test_the_pattern_of_machine_paths(text: str, found: bool) -> None:
    assert bool(MACHINE_PATH.search(text)) == found


def source_files() -> list[Path]:
    """Return what git tracks or would track; outside a checkout, what a source archive holds."""
    if (ROOT / ".git").exists():
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listing = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True)
        found = [ROOT / name for name in listing.stdout.split("\0") if name]
    else:
        found = [
            *ROOT.glob("*.*"),
            *(p for d in ("bsr_theory", "tests", "benchmarks") for p in (ROOT / d).rglob("*.py")),
            *(ROOT / "docs").glob("**/*.md"),
        ]
    return [path for path in found if path.is_file()]


def test_no_paths_of_a_machine() -> None:
    files = source_files()
    assert ROOT / "pyproject.toml" in files
    assert ROOT / "bsr_theory" / "priors.py" in files
    found = [
        str(path)
        for path in files
        if MACHINE_PATH.search(path.read_bytes().decode("utf-8", errors="ignore"))
    ]
    assert not found


def test_no_control_characters() -> None:
    # What is left of a formula such as \tfrac or \alpha written without a raw string.
    files = [path for path in source_files() if path.suffix in (".py", ".md", ".toml", ".cff")]
    assert ROOT / "bsr_theory" / "priors.py" in files
    found = [
        str(path)
        for path in files
        if re.search(r"[^\n\x20-\x7e\x80-\U0010ffff]", path.read_text(encoding="utf-8"))
    ]
    assert not found
