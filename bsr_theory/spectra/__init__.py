"""Spectral laws: the rational curve, densities, transforms, quadrature."""

from .curve import RectangularCurve
from .law import GaussianFactorLaw, Integral, MarchenkoPasturLaw, Quadrature, SpectralLaw

__all__ = [
    "GaussianFactorLaw",
    "Integral",
    "MarchenkoPasturLaw",
    "Quadrature",
    "RectangularCurve",
    "SpectralLaw",
]
