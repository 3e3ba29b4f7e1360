"""Theory of learning in high dimension, solved: bilinear sequence regression and its siblings.

The public names are imported when first used, so that ``import bsr_theory`` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import (
        attention,
        channels,
        denoising,
        erm,
        figures,
        limits,
        phases,
        priors,
        problem,
        results,
        rotational,
        simulations,
        spectra,
        state_evolution,
        sweeps,
        verify,
    )
    from .channels import (
        AbsChannel,
        Channel,
        GaussianChannel,
        LogisticChannel,
        OutputChannel,
        QuantizedChannel,
        ReLUChannel,
        SignChannel,
    )
    from .denoising import DenoisedMatrix, denoise_matrix, estimate_noise
    from .phases import CriticalPoint, Thresholds, critical_point, phase_diagram, thresholds
    from .priors import GaussianFactorPrior, LowRankFactorPrior, Prior, SymmetricFactorPrior
    from .problem import Instance, Problem, bilinear_regression
    from .results import (
        Branches,
        ConvergenceError,
        ConvergenceWarning,
        FixedPoint,
        Provenance,
        SimulationRun,
        Status,
        Trajectory,
    )
    from .rotational import RotationallyInvariantPrior, SymmetricPrior
    from .state_evolution import fixed_points, free_entropy, iterate, solve
    from .sweeps import merge, sweep

_NAMES = {
    "channels": (
        "AbsChannel",
        "Channel",
        "GaussianChannel",
        "LogisticChannel",
        "OutputChannel",
        "QuantizedChannel",
        "ReLUChannel",
        "SignChannel",
    ),
    "denoising": ("DenoisedMatrix", "denoise_matrix", "estimate_noise"),
    "rotational": ("RotationallyInvariantPrior", "SymmetricPrior"),
    "phases": ("CriticalPoint", "Thresholds", "critical_point", "phase_diagram", "thresholds"),
    "priors": ("GaussianFactorPrior", "LowRankFactorPrior", "Prior", "SymmetricFactorPrior"),
    "problem": ("Instance", "Problem", "bilinear_regression"),
    "results": (
        "Branches",
        "ConvergenceError",
        "ConvergenceWarning",
        "FixedPoint",
        "Provenance",
        "SimulationRun",
        "Status",
        "Trajectory",
    ),
    "state_evolution": ("fixed_points", "free_entropy", "iterate", "solve"),
    "sweeps": ("merge", "sweep"),
    "attention": (),
    "erm": (),
    "figures": (),
    "limits": (),
    "simulations": (),
    "spectra": (),
    "verify": (),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "AbsChannel",
    "Branches",
    "Channel",
    "ConvergenceError",
    "ConvergenceWarning",
    "CriticalPoint",
    "DenoisedMatrix",
    "FixedPoint",
    "GaussianChannel",
    "GaussianFactorPrior",
    "Instance",
    "LogisticChannel",
    "LowRankFactorPrior",
    "OutputChannel",
    "Prior",
    "Problem",
    "Provenance",
    "QuantizedChannel",
    "ReLUChannel",
    "RotationallyInvariantPrior",
    "SignChannel",
    "SimulationRun",
    "Status",
    "SymmetricFactorPrior",
    "SymmetricPrior",
    "Thresholds",
    "Trajectory",
    "attention",
    "bilinear_regression",
    "channels",
    "critical_point",
    "denoise_matrix",
    "denoising",
    "erm",
    "estimate_noise",
    "figures",
    "fixed_points",
    "free_entropy",
    "iterate",
    "limits",
    "merge",
    "phase_diagram",
    "phases",
    "priors",
    "problem",
    "results",
    "rotational",
    "simulations",
    "solve",
    "spectra",
    "state_evolution",
    "sweep",
    "sweeps",
    "thresholds",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name in _HOME:
        value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    elif name in _NAMES:
        value = importlib.import_module(f".{name}", __name__)
    elif name == "__version__":
        from importlib.metadata import version

        value = version("bsr_theory")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return sorted({*__all__, "__version__"})
