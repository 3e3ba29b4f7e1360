"""Spectral laws: the rational curve, densities, transforms, quadrature."""

from . import spherical
from .curve import RectangularCurve
from .law import GaussianFactorLaw, Integral, MarchenkoPasturLaw, Quadrature, SpectralLaw
from .numerical import Measure, RectangularConvolution, SymmetricConvolution
from .symmetric import SymmetricFactorLaw

__all__ = [
    "GaussianFactorLaw",
    "Integral",
    "MarchenkoPasturLaw",
    "Measure",
    "Quadrature",
    "RectangularConvolution",
    "RectangularCurve",
    "SpectralLaw",
    "SymmetricConvolution",
    "SymmetricFactorLaw",
    "spherical",
]
