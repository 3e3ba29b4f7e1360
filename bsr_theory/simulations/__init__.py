"""Algorithms on instances of finite size.  None of them knows the theory; `compare` knows both."""

from .amp import amp
from .compare import compare
from .convex import ConvexRun, nuclear_norm, ridge
from .gradient import (
    AveragedGradientRun,
    GradientRun,
    averaged_gradient_descent,
    gradient_descent,
)

__all__ = [
    "AveragedGradientRun",
    "ConvexRun",
    "GradientRun",
    "amp",
    "averaged_gradient_descent",
    "compare",
    "gradient_descent",
    "nuclear_norm",
    "ridge",
]
