"""What every test shares: reproducible examples and one way to print arrays."""

from __future__ import annotations

import os

# Small matrices: threads of the linear algebra would only wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from hypothesis import settings

# Figures are drawn to files, never to a screen.
os.environ.setdefault("MPLBACKEND", "Agg")

# The first call of a kernel compiles it, so no deadline; the same examples in every run, so that
# a failure is a failure of the code. HYPOTHESIS_PROFILE=explore looks for new ones.
settings.register_profile("repeatable", deadline=None, derandomize=True, print_blob=True)
settings.register_profile("explore", deadline=None, max_examples=2000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

# NumPy's own defaults, said aloud: the examples in docstrings do not depend on the user's settings.
np.set_printoptions(
    edgeitems=3,
    floatmode="maxprec",
    formatter=None,
    legacy=False,
    linewidth=75,
    precision=8,
    suppress=False,
    threshold=1000,
)
