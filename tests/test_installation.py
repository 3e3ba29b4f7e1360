"""The package where it is installed: read-only folders, no cache for compiled code, no compiler."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import bsr_theory

PACKAGE = Path(bsr_theory.__file__).resolve().parent

# A compiled answer that takes no time to compile, and where numba would have kept it.
PROGRAM = """
import json, pathlib, numpy as np, bsr_theory as bsr
from bsr_theory import _kernels
from bsr_theory._kernels import channels
try:
    (pathlib.Path(_kernels.__file__).parent / "probe").touch()
    writable = True
except OSError:
    writable = False
stats = channels.erfcx.stats
print(json.dumps([writable, _kernels.CACHE, channels.erfcx(1.0), bsr.__file__, stats.cache_path]))
"""
ERFCX = 0.427583576155807  # e erfc(1)

_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE = 24, 1


def obey_permissions() -> None:
    """Make a process of root obey permissions, as those of all others do."""
    if os.geteuid() == 0:
        ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE, 0, 0, 0)


def run(program: str, folder: Path | None = None, **changes: str | None) -> Any:
    """Return what a fresh process prints, importing the package from a folder."""
    env = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "BSR_NUMBA_CACHE")}
    env |= {"PYTHONPATH": str(folder or PACKAGE.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    for name, value in changes.items():
        if value is None:
            env.pop(name, None)
        else:
            env[name] = value
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=folder or PACKAGE.parent,
        env=env,
        capture_output=True,
        text=True,
        preexec_fn=obey_permissions,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Return a folder that holds a copy of the package, without anything compiled."""
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, tmp_path / "site" / "bsr_theory", ignore=skip)
    return tmp_path / "site"


def freeze(folder: Path) -> None:
    """Take away the right to write."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod(path.stat().st_mode & ~0o222)


def thaw(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        path.chmod(path.stat().st_mode | 0o200)


def homes(path: Path) -> dict[str, str]:
    """Return the variables that say where a user's caches lie."""
    return {"HOME": str(path), "XDG_CACHE_HOME": str(path / "cache"), "LOCALAPPDATA": str(path)}


def test_a_read_only_package_compiles_into_the_users_cache(installed: Path, tmp_path: Path) -> None:
    freeze(installed)
    try:
        first = run(PROGRAM, installed, **homes(tmp_path))
        if first[0]:
            # an administrator, whom file modes do not stop
            pytest.skip("this process may write wherever it likes")
        writable, cache, value, place, _ = first
        assert (writable, cache) == (False, True)
        assert value == pytest.approx(ERFCX, rel=1e-15)
        assert Path(place).is_relative_to(installed)
        assert list((tmp_path / "cache").rglob("*.nbc"))
        assert not list(installed.rglob("*.nbc"))
    finally:
        thaw(installed)


# A path below a file can be made by nobody, root included.
@pytest.mark.parametrize("named", [False, True], ids=["no folder named", "NUMBA_CACHE_DIR"])
def test_nothing_writable_only_costs_time(installed: Path, tmp_path: Path, named: bool) -> None:
    file = tmp_path / "file"
    file.touch()
    (installed / "bsr_theory" / "_kernels" / "__pycache__").touch()
    where = {"NUMBA_CACHE_DIR": str(file / "cache")} if named else {}
    _, cache, value, place, _ = run(PROGRAM, installed, **homes(file / "home"), **where)
    assert not cache
    assert value == pytest.approx(ERFCX, rel=1e-15)
    assert Path(place).is_relative_to(installed)


def test_the_cache_can_be_named_and_switched_off(installed: Path, tmp_path: Path) -> None:
    off = run(PROGRAM, installed, BSR_NUMBA_CACHE="0", NUMBA_CACHE_DIR=str(tmp_path / "off"))
    assert not off[1]
    assert not list(tmp_path.rglob("*.nbc"))
    named = run(PROGRAM, installed, NUMBA_CACHE_DIR=str(tmp_path / "named"))
    assert named[1]
    assert list((tmp_path / "named").rglob("*.nbc"))
    assert not list(installed.rglob("*.nbc"))


def test_an_update_of_one_file_recompiles_its_callers(installed: Path, tmp_path: Path) -> None:
    """Numba embeds what a function calls, and looks at the file of the function alone."""
    folder = installed / "bsr_theory" / "_kernels"
    callee = "from . import jit\n@jit\ndef value():\n    return {}\n"
    (folder / "callee.py").write_text(callee.format(1))
    (folder / "caller.py").write_text(
        "from . import jit\nfrom .callee import value\n@jit\ndef twice():\n    return 2 * value()\n"
    )
    program = (
        "import json\nfrom bsr_theory._kernels.caller import twice\n"
        "print(json.dumps([twice(), sum(twice.stats.cache_hits.values())]))"
    )
    where = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    assert run(program, installed, **where) == [2, 0]
    assert run(program, installed, **where) == [2, 1]
    (folder / "callee.py").write_text(callee.format(30))
    assert run(program, installed, **where) == [60, 0]
    assert run(program, installed, **where) == [60, 1]


@pytest.mark.slow  # compiles
def test_a_problem_is_solved_where_nothing_can_be_written(installed: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    freeze(installed)
    solve = (
        "import json, bsr_theory as bsr\n"
        "point = bsr.solve(bsr.bilinear_regression(0.4, 2.0, 0.5, 0.1))\n"
        "print(json.dumps([point.mmse, bsr.Provenance.collect().code]))"
    )
    try:
        mmse, code = run(solve, installed, **homes(file), NUMBA_CACHE_DIR=str(file / "cache"))
    finally:
        thaw(installed)
    assert mmse == pytest.approx(0.52696565, abs=1e-8)
    assert code == bsr_theory.results.code_fingerprint()


# --------------------------------------------------------------------------------------------
# Without compilation
# --------------------------------------------------------------------------------------------

# The kernels are plain functions then: the same operations in the same order.  The compiler may
# contract and reorder nothing (fastmath is off), but its elementary functions are not the ones of
# the C library that Python calls: they differ in the last digit, which sums amplify.
ANSWERS = {
    "rectangular": """
prior = bsr.GaussianFactorPrior([1.0, 2.0, np.inf, 2.0, 3.0], [0.5, 0.2, 0.7, np.inf, 1e-12])
keep("mmse", prior.mmse([0.3, 0.01, 2.0, 0.5, 1.0]), prior.overlap([0.3, 20.0, 2.0, 0.5, 1.0]))
keep("ends", prior.mmse(0.0), prior.mmse(np.inf))
""",
    "rectangular, all": """
prior = bsr.GaussianFactorPrior(2.0, 0.5)
s = np.array([1e-9, 1e-3, 0.1, 10.0, 1e6])
keep("deficit", prior.deficit(s))
keep("information", prior.information(1 / s[1:4]))
law = prior.law(0.1)
keep("law", law.edges, law.quadrature().weights, law.hilbert([0.01, 0.9, 9.0]))
keep("law", law.density([0.01, 0.9, 9.0]), law.log_potential([0.5, 9.0]))
keep("shrink", prior.shrink([0.1, 1.0, 3.0], 0.1))
keep("solve", bsr.solve(bsr.bilinear_regression(0.4, 2.0, 0.5, 0.1)).mmse)
""",
    "symmetric": """
keep("mmse", bsr.SymmetricFactorPrior([0.5, 2.0]).mmse([0.3, 5.0]))
""",
    "symmetric, all": """
prior = bsr.SymmetricFactorPrior(0.5)
s = np.array([1e-9, 1e-3, 0.1, 10.0])
keep("deficit", prior.deficit(s))
keep("information", prior.information(1 / s))
law = prior.law(0.1)
keep("law", law.edges, law.quadrature().weights, law.density([0.3, 1.0]), law.hilbert([-3.0, 0.5]))
keep("shrink", prior.shrink([-1.0, 0.5, 4.0], 0.1))
""",
    "channels": """
keep("sign", bsr.SignChannel(0.1).precision([0.0, 0.3, 1.0]), bsr.SignChannel().information(0.4))
keep("score", *bsr.SignChannel(0.1).score([1.0, -1.0], [0.3, 40.0], 0.2))
""",
    "channels, all": """
q = np.array([0.0, 1e-6, 0.3, 0.99, 1.0])
for channel in (bsr.SignChannel(), bsr.AbsChannel(), bsr.ReLUChannel()):
    keep("noiseless", channel.precision(q[:-1]), channel.information(q[:-1]))
    keep("noiseless", channel.generalization_error(q), *channel.score(1.0, q, 0.5))
for channel in (bsr.SignChannel(0.2), bsr.AbsChannel(0.2), bsr.ReLUChannel(0.2)):
    keep("noisy", channel.precision(0.3), channel.information(0.3), *channel.score(1.0, q, 0.5))
for channel in (bsr.LogisticChannel(2.0), bsr.QuantizedChannel([-0.5, 1.0], 0.1)):
    keep("classes", channel.generalization_error(0.3), *channel.score(1.0, q, 0.5))
    keep("classes", channel.precision(0.0))
""",
    "attention, all": """
channel = bsr.attention.HardmaxChannel()
keep("hardmax", channel.precision(0.3, 0.7))
""",
    "subordination, all": """
prior = bsr.RotationallyInvariantPrior([0.5, 1.5], beta=2.0, normalize=True)
keep("mmse", prior.mmse([0.1, 3.0]))
keep("information", prior.information([0.5, 3.0]))
law = prior.law(0.1)
keep("law", law.edges, law.density([0.5, 0.9]), law.hilbert([0.5, 0.9]))
prior = bsr.SymmetricPrior([-1.0, 1.0])
keep("symmetric", prior.mmse([0.1, 3.0]), prior.information([0.5, 3.0]))
Y = np.random.default_rng(0).standard_normal((12, 20)) + 1.0
keep("denoise", bsr.denoise_matrix(Y, 1.0).shrunk)
""",
    "estimators, all": """
keep("threshold", bsr.erm.nuclear_norm_threshold(0.2, 1.0))
problem = bsr.bilinear_regression(0.5, 2.0, 0.3, 0.1)
estimate = bsr.erm.nuclear_norm(problem, lam=0.2)
keep("nuclear norm", estimate.mse, estimate.rank, estimate.train_loss)
estimate = bsr.erm.soft_threshold(problem.prior, 0.3)
keep("soft", estimate.mse, estimate.threshold)
""",
}
START = """
import json, warnings, numpy as np, bsr_theory as bsr
warnings.simplefilter("ignore", RuntimeWarning)  # compiled code is silent, scalars of numpy warn
found = {}
def keep(name, *values):
    found.setdefault(name, []).extend(float(x) for value in values for x in np.ravel(value))
"""
# Relative to the largest of its kind: Newton's method stops at 1e-9 with an error of its square,
# and panels of a quadrature may fall one way or the other, which costs their 1e-13.
CLOSE = 1e-12


def both_ways(name: str) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    program = f"{START}\n{ANSWERS[name]}\nprint(json.dumps(found))"
    cache = os.environ.get("NUMBA_CACHE_DIR")
    compiled = run(program, NUMBA_CACHE_DIR=cache)
    return compiled, run(program, NUMBA_CACHE_DIR=cache, NUMBA_DISABLE_JIT="1")


@pytest.mark.parametrize(
    "name", [pytest.param(x, marks=[pytest.mark.slow] if "all" in x else []) for x in ANSWERS]
)
def test_numbers_do_not_depend_on_compilation(name: str) -> None:
    compiled, plain = both_ways(name)
    assert compiled.keys() == plain.keys()
    for key, values in compiled.items():
        assert len(values) > 0
        assert plain[key] == pytest.approx(values, rel=CLOSE, abs=0.0, nan_ok=True), key


def test_every_family_of_kernels_is_compared() -> None:
    families = {path.stem for path in (PACKAGE / "_kernels").glob("*.py")} - {"__init__"}
    assert families == {name.split(",")[0] for name in ANSWERS}
