"""Spectral laws: the rational curve, densities, transforms, quadrature."""

from . import spherical
from .curve import RectangularCurve
from .law import GaussianFactorLaw, Integral, MarchenkoPasturLaw, Quadrature, SpectralLaw
from .symmetric import SymmetricFactorLaw

__all__ = [
    "GaussianFactorLaw",
    "Integral",
    "MarchenkoPasturLaw",
    "Quadrature",
    "RectangularCurve",
    "SpectralLaw",
    "SymmetricFactorLaw",
    "spherical",
]
