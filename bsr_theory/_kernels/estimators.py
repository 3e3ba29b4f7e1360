"""Singular value thresholding of ``S + sqrt(s) Z`` and the convex estimators that reduce to it.

Let rho be the law of the singular values y of ``Y/sqrt(d2)`` and ``y - s h(y)`` the optimal
denoiser.  Soft thresholding, ``f(y) = (y - tau)_+``, has for entries of variance 1::

    divergence  D = int rho f h,        C = 1 - D = int rho min(y, tau) h
    error       E = s (1 - 2 C + b),    b = int rho min(y, tau)^2 / s
                  = 1 - 2 int rho f (y - s h) + int rho f^2
                  = int_{y < tau} rho y (y - s h) + int_{y > tau} rho (s h (y - 2 tau) + tau^2)

and regression with a nuclear-norm penalty is ``alpha s = delta + E``, ``lam = tau (alpha - D)``.
The theory of the convex estimators is derived in the documentation.

The law is cut once into panels, and their sums are kept.  A threshold inside a panel then needs
that panel alone: its two parts are analytic on the same ellipses as the whole, so that the rule
of 16 points stays exact to rounding wherever the threshold falls, and an unknown threshold is
found as a position in the panel.  Between two bulks, below them and above them every quantity is
a polynomial of tau.

A `Signal` says what S is.  For ``S = A B / sqrt(r)`` the panels are those of
`rectangular.make_panels`, on whose arc all is explicit; for any other law of singular values
those of `subordination.tabulate`, between whose nodes all is interpolated.
"""

from __future__ import annotations

import math
from collections import namedtuple
from typing import Any

import numpy as np

from . import jit
from .rectangular import (
    _PANELS,
    _RATIO,
    NODES,
    WEIGHTS,
    _pi_density,
    _splitting_noise,
    _w_re_g,
    _w_shrunk,
    arc_point,
    locate,
    make_bulk,
    make_curve,
    make_panels,
)
from .subordination import (
    NODE_DENOISED,
    NODE_DENSITY,
    NODE_HILBERT,
    NODE_STEP,
    NODE_Y,
    parting_noise,
    tabulate,
)

__all__: list[str] = []

CURVE, SHIFTED, SCALED, THIN, SAMPLED = range(5)  # kinds of law: see Law
INTERPOLATE, PENALTY, BEST, MINIMAX = range(4)  # equations that fix a threshold
# Columns of sums: int rho times 1, y, y^2, h, y h, the denoised D = y - s h and y D; and, with d
# the distance to the lowest y, times d, d^2, d h and d D.
COUNT, Y, SQUARE, HILBERT, Y_HILBERT, SIGNAL, Y_SIGNAL = range(7)
AWAY, AWAY_SQUARE, AWAY_HILBERT, AWAY_SIGNAL = range(7, 11)
_COLUMNS = 11
WEIGHT, VALUE, DISTANCE, TRANSFORM, DENOISED = range(5)  # columns of the points of a row

_NONE = 1e-44  # s rho that stands for none
_LEAST = 1e-32  # the same for laws of singular values: its square root is below rounding
_QUIET = 1e-18  # for divergences of laws with atoms
_HIDDEN = 1e8  # s rho, in units of sqrt(beta), from which on noise hides all of thin factors
_ALIKE = 1e-17  # relative deviation from the law of Gaussian entries that is not seen
_LONG = 1e25  # beta and rho from which on all singular values of S are 1, for numbers
_THINNEST = 1e-16  # rho below which outliers have no width and do not interact
_SLIM = 1e-3  # share of y^2 by which a narrow panel rises: its nodes resolve dw/dx
_NOTHING = 1e-60  # threshold that counts as 0
_FAINT = 1e-12  # threshold that drops nothing, in units of the noise
_CLEAR = 1e8  # threshold that sees no noise, in units of its square root
_GRADE = 100.0  # step of the search for units in which the noise can be seen
_STEP = 1e-2  # relative step in sqrt(s) of the extrapolation to s = 0
_SAMPLES = 6  # points of it

CONVERGED, PERFECT, FAILED, INVALID = 0, 1, 10, 11  # values of results.Status
MSE, OVERLAP, NORM, RANK, NUCLEAR, TRAIN, NOISE, THRESHOLD, LAM, RESIDUAL, CALLS, STATUS = range(12)

_BARYCENTRIC = np.sqrt((1.0 - NODES**2) * WEIGHTS)
_BARYCENTRIC[1::2] *= -1.0  # of the polynomial through the Gauss nodes


def _integration() -> Any:
    """Return the matrix that integrates the polynomial through the nodes from -1 to each node."""
    powers = np.polynomial.legendre.legvander(NODES, NODES.size)
    degrees = np.arange(NODES.size)
    # int P_k = (P_(k+1) - P_(k-1))/(2 k + 1)
    rise = np.empty((NODES.size, NODES.size))
    rise[:, 0] = NODES + 1.0
    rise[:, 1:] = (powers[:, 2:] - powers[:, :-2]) / (2.0 * degrees[1:] + 1.0)
    return rise @ (powers[:, :-1] * WEIGHTS[:, None] * (degrees + 0.5)).T


_INTEGRAL = _integration()


# --------------------------------------------------------------------------------------------
# The law of singular values, cut into panels
# --------------------------------------------------------------------------------------------

# S of entries of variance 1: with a `subordination.Source` its singular values, of which the share
# rho is not 0; without (None), S = A B/sqrt(r) with r = rho d1.  Loops are compiled for each alone.
Signal = namedtuple("Signal", "beta rho source")
# kind CURVE: S = A B/sqrt(r) at finite beta and rho, on the arc of `rectangular`.
# kind SHIFTED: beta = inf, y^2 = x + s and h = 1/y with x of a Marchenko-Pastur law.
# kind SCALED: Gaussian entries, y^2 = (1 + s) x and h = y/(1 + s).
# kind THIN: rho -> 0, the noise alone, y^2 = s x and h = y/s, and outliers; ``gap`` there is
# (theta - upper edge)/s of the place theta where they are or, once the noise hides them, would be.
# kind SAMPLED: a source, between the nodes of `subordination.tabulate`.
# Marchenko-Pastur: x = low + span sin^2(theta/2), y^2 = scale x + shift.
Law = namedtuple("Law", "kind s beta rho c first second low span scale shift gap")
# Row k holds the panel [x0, x1] of a bulk (-1: an atom), its ends y0, y1, how far it reaches up to
# the next one, and its sums; below[k] and above[k] add up the rows before k and from k on, kept[k]
# and lost[k] parts of above[k]: rows of which the optimal denoiser keeps more than half, and the
# others.  nodes are those of a SAMPLED law.
Table = namedtuple("Table", "law rows bulk x y reach sums below above kept lost nodes")


@jit
def _arcless_law(kind, beta, rho, low, span, scale, shift, s, gap):
    """Return a law that is not on the arc of `rectangular`."""
    c = make_curve(2.0, 1.0, 1.0)  # not used
    b = make_bulk(c, 0)
    return Law(kind, s, beta, rho, c, b, b, low, span, scale, shift, gap)


@jit
def _marchenko_pastur_law(kind, beta, ratio, scale, shift, s):
    root = math.sqrt(ratio)
    return _arcless_law(kind, beta, 0.0, (1.0 - root) ** 2, 4.0 * root, scale, shift, s, 0.0)


@jit
def _thin_law(beta, rho, s):
    """Return the law of rho d1 outliers in noise, which do not interact."""
    s = max(s, 1e-300)
    root, n = 1.0 / math.sqrt(beta), s * rho
    # at t = 1 noise hides the outliers, over a width of rho^(1/3)
    distance = max(abs(1.0 - n * root), rho ** (1.0 / 3.0))
    return _arcless_law(
        THIN, beta, rho, (1.0 - root) ** 2, 4.0 * root, s, 0.0, s, distance * distance / n
    )


@jit
def _has_free_entries(beta, rho, s):
    """Tell whether S + sqrt(s) Z cannot be told from a matrix of independent entries."""
    if rho == np.inf:
        return True
    if beta == np.inf:
        return False
    if rho < 1.0:
        return s * rho > _HIDDEN * math.sqrt(beta)
    return beta / max(1.0, s) / max(1.0, s) < _ALIKE * rho or min(beta, rho) > _LONG


@jit
def _least_noise(source, rho):
    """Return the noise that stands for none: far below all that S has to show."""
    return _NONE / min(max(rho, _THINNEST), 1.0) if source is None else _LEAST


@jit
def make_law(beta, rho, s):
    """Return the law of the singular values of ``(A B/sqrt(r) + sqrt(s) Z)/sqrt(d2)``."""
    if _has_free_entries(beta, rho, s):
        return _marchenko_pastur_law(SCALED, beta, 1.0 / beta, 1.0 + s, 0.0, s)
    if rho < _THINNEST:
        return _thin_law(beta, rho, s)
    if beta == np.inf:
        return _marchenko_pastur_law(SHIFTED, beta, 1.0 / rho, 1.0, s, s)
    noise = max(s, _least_noise(None, rho))
    c = make_curve(beta, rho, noise)
    first, second = make_bulk(c, 0), make_bulk(c, c.bulks - 1)
    return Law(CURVE, noise, beta, rho, c, first, second, 0.0, 0.0, 0.0, 0.0, 0.0)


@jit
def _law_point(law, which, x):
    """Return (w, rho dw/dx, y h, y (y - s h), dw/dx) at the position x of a bulk."""
    sin, cos = math.sin(0.5 * x), math.cos(0.5 * x)
    if law.kind == CURVE:
        c = law.c
        b = law.first if which == 0 else law.second
        z = arc_point(c, b, b.height * sin * sin)
        step = z.w * z.slope * b.height * sin * cos
        yh = (1.0 - 1.0 / c.beta) + 2.0 / c.beta * _w_re_g(c, z)
        # each of the two forms is free of cancellation on its side
        signal = z.w - c.s * yh if c.s <= 1.0 and z.pu >= z.pt else _w_shrunk(c, z)
        return z.w, _pi_density(c, z) * step / math.pi, yh, signal, step
    base = law.low + law.span * sin * sin
    w = law.scale * base + law.shift
    density = 8.0 / math.pi * (sin * cos) ** 2 / base
    step = law.scale * law.span * sin * cos
    if law.kind == THIN:
        # of w/(theta - w), as much as the outliers have lost
        signal = law.s * law.rho / law.beta * base / (law.gap + law.span * cos * cos)
        return w, density, base, signal, step
    yh = 1.0 if law.kind == SHIFTED else w / (1.0 + law.s)
    return w, density, yh, base, step


@jit
def _law_y(law, which, x):
    """Return y at the position x, also at the ends of the arc."""
    sin = math.sin(0.5 * x)
    if law.kind == CURVE:
        if x == 0.0 and which == 0 and law.beta == 1.0:
            return 0.0
        b = law.first if which == 0 else law.second
        return math.sqrt(arc_point(law.c, b, b.height * sin * sin).w)
    return math.sqrt(law.scale * (law.low + law.span * sin * sin) + law.shift)


@jit
def _graded(near, end, out):
    """Fill ``out`` with the ends of panels from 0 to ``end`` that grow away from 0.

    ``near`` is the distance of a singularity from 0 across the panels; 0 stands for none.
    """
    first = 0.8 * max(near if near > 0.0 else 2.0 * math.pi, 1e-13)
    if first >= end:
        out[0], out[1] = 0.0, end
        return 1
    count = 1 + math.ceil(math.log(end / first) / math.log(_RATIO))
    ratio = (end / first) ** (1.0 / (count - 1))
    out[0], right = 0.0, first
    for k in range(1, count):
        out[k] = right
        right *= ratio
    out[count] = end
    return count


@jit
def _marchenko_pastur_panels(law, ends):
    """Fill ``ends`` with panels of [0, pi], graded towards the zeros of x or y^2 near 0.

    Those of a thin law are also graded towards the place of outliers next to the upper edge.
    """
    # sinh(v/2)^2 = distance/span for the zero of x; of y^2 where x has none (low = 0)
    distance = law.low if law.low > 0.0 else law.shift
    near = 2.0 * math.asinh(math.sqrt(distance / law.span))
    points = np.empty(_PANELS + 1)
    end = math.pi if law.kind != THIN else 0.5 * math.pi
    count = _graded(near, end, points)
    ends[:count, 0], ends[:count, 1] = points[:count], points[1 : count + 1]
    if law.kind == THIN:
        far = _graded(2.0 * math.asinh(math.sqrt(law.gap / law.span)), end, points)
        for k in range(far, 0, -1):
            ends[count, 0], ends[count, 1] = math.pi - points[k], math.pi - points[k - 1]
            count += 1
    return count


@jit
def _add_row(sums, row):
    """Add a row to the sums over all rows above it; distances are to the y where it begins."""
    for column in range(_COLUMNS):
        sums[column] += row[column]


@jit
def _lowered(sums, drop, out):
    """Fill ``out`` with sums whose distances are to a y lower by ``drop``; nothing cancels."""
    out[:] = sums
    out[AWAY_SQUARE] += drop * (2.0 * sums[AWAY] + drop * sums[COUNT])
    out[AWAY] += drop * sums[COUNT]
    out[AWAY_HILBERT] += drop * sums[HILBERT]
    out[AWAY_SIGNAL] += drop * sums[SIGNAL]


@jit
def _finish(law, rows, bulk, x, y, reach, sums, nodes):
    """Return the table, with the sums added up; ``reach`` comes in as the extent of each row."""
    below, above = np.zeros((rows + 1, _COLUMNS)), np.zeros((rows + 1, _COLUMNS))
    kept, lost = np.zeros((rows + 1, _COLUMNS)), np.zeros((rows + 1, _COLUMNS))
    for k in range(rows):
        below[k + 1] = below[k] + sums[k]
    for k in range(rows - 1, -1, -1):
        if k < rows - 1:
            reach[k] += y[k + 1, 0] - y[k, 1]
        _lowered(above[k + 1], reach[k], above[k])
        _lowered(lost[k + 1], reach[k], lost[k])
        kept[k] = kept[k + 1]
        _add_row(above[k], sums[k])
        _add_row(kept[k] if sums[k, SIGNAL] > 0.5 * sums[k, Y] else lost[k], sums[k])
    return Table(law, rows, bulk, x, y, reach, sums, below, above, kept, lost, nodes)


@jit
def _add_points(points, sums):
    """Add the points of a panel to the sums of its row."""
    for j in range(NODES.size):
        weight, y, d = points[j, WEIGHT], points[j, VALUE], points[j, DISTANCE]
        h, denoised = points[j, TRANSFORM], points[j, DENOISED]
        sums[COUNT] += weight
        sums[Y] += weight * y
        sums[SQUARE] += weight * y * y
        sums[HILBERT] += weight * h
        sums[Y_HILBERT] += weight * y * h
        sums[SIGNAL] += weight * denoised
        sums[Y_SIGNAL] += weight * y * denoised
        sums[AWAY] += weight * d
        sums[AWAY_SQUARE] += weight * d * d
        sums[AWAY_HILBERT] += weight * d * h
        sums[AWAY_SIGNAL] += weight * d * denoised


@jit
def _law_points(law, which, left, right, lowest, points):
    """Fill the points of the panel [left, right] above the y ``lowest``; return its extent in y.

    Where the panel is narrow, far below w, the difference of two values of w = y^2 has few digits:
    it is explicit for Marchenko-Pastur laws and the integral of dw/dx on the curve.
    """
    mid, half = 0.5 * (left + right), 0.5 * (right - left)
    steps = np.empty(NODES.size)
    first, highest = lowest * lowest, _law_y(law, which, right)
    last = highest * highest
    narrow = last - first < _SLIM * last
    span, extent = law.scale * law.span, last - first
    if law.kind != CURVE:
        extent = span * math.sin(half) * math.sin(mid)
    elif narrow:
        extent = 0.0
    for j in range(NODES.size):
        x = mid + half * NODES[j]
        w, density, yh, signal, step = _law_point(law, which, x)
        y = math.sqrt(w)
        points[j, WEIGHT], points[j, VALUE] = half * WEIGHTS[j] * density, y
        points[j, TRANSFORM], points[j, DENOISED] = yh / y, signal / y
        rise = w - first
        if law.kind != CURVE:
            rise = span * math.sin(0.5 * (x - left)) * math.sin(0.5 * (x + left))
        elif narrow:
            extent += WEIGHTS[j] * half * step
        steps[j] = half * step
        points[j, DISTANCE] = max(rise, 0.0) / (y + lowest)
    if law.kind == CURVE and narrow:
        for j in range(NODES.size):
            rise = 0.0
            for i in range(NODES.size):
                rise += _INTEGRAL[j, i] * steps[i]
            points[j, DISTANCE] = max(rise, 0.0) / (points[j, VALUE] + lowest)
    return max(extent, 0.0) / (highest + lowest) if highest > 0.0 else 0.0


@jit
def _outliers(law, y, sums):
    """Fill a row with the outliers of a thin law, singular values 1/sqrt(rho) in noise."""
    rho, ratio, n = law.rho, 1.0 / law.beta, law.s * law.rho
    t = n * math.sqrt(ratio)
    square, kept = (1.0 + n) * (1.0 + n * ratio), (1.0 - t) * (1.0 + t)  # rho y^2, rho y (y - s h)
    yh, root = 1.0 + ratio + 2.0 * n * ratio, math.sqrt(rho * square)  # root = rho y
    y[:] = max(math.sqrt(square) / math.sqrt(rho), _law_y(law, 0, math.pi))
    sums[COUNT], sums[Y], sums[SQUARE] = rho, root, square
    sums[HILBERT], sums[Y_HILBERT] = rho * yh / y[0], rho * yh
    sums[SIGNAL], sums[Y_SIGNAL] = kept / y[0], kept


@jit
def _explicit_table(law):
    """Return the panels of a law whose points are explicit, with their sums."""
    bulk = np.empty(2 * _PANELS + 2, np.int64)
    x = np.zeros((2 * _PANELS + 2, 2))
    y = np.empty((2 * _PANELS + 2, 2))
    sums = np.zeros((2 * _PANELS + 2, _COLUMNS))
    reach = np.zeros(2 * _PANELS + 2)
    ends, points = np.empty((_PANELS, 2)), np.empty((NODES.size, 5))
    rows = 0
    mass, place = 0.0, 0.0
    if law.kind != CURVE:
        if law.span == 0.0:
            mass, place = 1.0, math.sqrt(law.scale + law.shift)
        elif law.kind == SHIFTED and law.span > 4.0:
            # the zeros of A A^T/r: their share is 1 - rho, and span = 4/sqrt(rho)
            mass, place = 1.0 - 16.0 / law.span**2, math.sqrt(law.shift)
    if mass > 0.0:
        base = 1.0 if law.span == 0.0 and law.kind != THIN else 0.0
        bulk[0], y[0, 0], y[0, 1] = -1, place, place
        sums[0, COUNT], sums[0, Y], sums[0, SQUARE] = mass, mass * place, mass * place**2
        # yh = 1 for an atom of either kind
        sums[0, Y_HILBERT], sums[0, Y_SIGNAL] = mass, mass * base
        if place > 0.0:
            sums[0, HILBERT], sums[0, SIGNAL] = mass / place, mass * base / place
        rows = 1
    bulks = law.c.bulks if law.kind == CURVE else (1 if law.span > 0.0 else 0)
    for which in range(bulks):
        if law.kind == CURVE:
            count = make_panels(law.c, law.first if which == 0 else law.second, ends)
        else:
            count = _marchenko_pastur_panels(law, ends)
        for k in range(count):
            bulk[rows] = which
            x[rows] = ends[k]
            y[rows, 0] = y[rows - 1, 1] if k > 0 else _law_y(law, which, ends[k, 0])
            y[rows, 1] = _law_y(law, which, ends[k, 1])
            reach[rows] = _law_points(law, which, ends[k, 0], ends[k, 1], y[rows, 0], points)
            _add_points(points, sums[rows])
            rows += 1
    n = law.s * law.rho
    if law.kind == THIN and n < math.sqrt(law.beta):
        bulk[rows] = -1
        _outliers(law, y[rows], sums[rows])
        rows += 1
    return _finish(law, rows, bulk, x, y, reach, sums, np.empty((0, 16, 5)))


@jit
def _between(nodes, place):
    """Return (y, density, h, denoised, dw/dx) at a place of [-1, 1] between the nodes of a panel.

    The barycentric form of the polynomial through them.
    """
    total, y, density, h, denoised, step = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for j in range(NODES.size):
        distance = place - NODES[j]
        share = _BARYCENTRIC[j] / (distance if distance != 0.0 else 1e-100)
        total += share
        y += share * nodes[j, NODE_Y]
        density += share * nodes[j, NODE_DENSITY]
        h += share * nodes[j, NODE_HILBERT]
        denoised += share * nodes[j, NODE_DENOISED]
        step += share * nodes[j, NODE_STEP]
    return y / total, density / total, h / total, denoised / total, step / total


@jit
def _table_point(t, k, x):
    """Return (w, rho dw/dx, y h, y (y - s h), dw/dx) at the position x of row k."""
    if t.law.kind != SAMPLED:
        return _law_point(t.law, t.bulk[k], x)
    place = (2.0 * x - t.x[k, 0] - t.x[k, 1]) / (t.x[k, 1] - t.x[k, 0])
    y, density, h, denoised, step = _between(t.nodes[k], place)
    y = max(y, 0.0)
    return y * y, density, y * h, y * denoised, step


@jit
def _sampled_table(source, beta, s):
    """Return the panels of a law that is known by its nodes, with their sums."""
    law = _arcless_law(SAMPLED, beta, 0.0, 0.0, 0.0, 1.0, 0.0, s, 0.0)
    bulk, x, nodes = tabulate(source, s, 1.0 / beta)
    rows = bulk.size
    y, sums, reach = np.empty((rows, 2)), np.zeros((rows, _COLUMNS)), np.empty(rows)
    points = np.empty((NODES.size, 5))
    for k in range(rows):
        if bulk[k] < 0:
            y[k] = nodes[k, 0, NODE_Y]
        else:
            y[k, 0], y[k, 1] = _between(nodes[k], -1.0)[0], _between(nodes[k], 1.0)[0]
        if k > 0:
            # rounding must not let y fall, nor part the panels of a bulk
            joined = bulk[k] >= 0 and bulk[k] == bulk[k - 1]
            y[k, 0] = y[k - 1, 1] if joined else max(y[k, 0], y[k - 1, 1])
            y[k, 1] = max(y[k, 1], y[k, 0])
        else:
            y[k, 0] = max(y[k, 0], 0.0)
        reach[k] = y[k, 1] - y[k, 0]
        half = 0.5 * (x[k, 1] - x[k, 0])
        for j in range(NODES.size):
            node = nodes[k, j]
            # an atom has a mass and no extent
            points[j, WEIGHT] = WEIGHTS[j] * node[NODE_DENSITY] * (0.5 if bulk[k] < 0 else half)
            points[j, VALUE], points[j, DISTANCE] = node[NODE_Y], max(node[NODE_Y] - y[k, 0], 0.0)
            points[j, TRANSFORM], points[j, DENOISED] = node[NODE_HILBERT], node[NODE_DENOISED]
        _add_points(points, sums[k])
    return _finish(law, rows, bulk, x, y, reach, sums, nodes)


@jit
def _table_of(source, beta, rho, s):
    if source is None:
        return _explicit_table(make_law(beta, rho, s))
    return _sampled_table(source, beta, max(s, _LEAST))


@jit
def make_table(signal, s):
    """Return the law of the singular values of ``(S + sqrt(s) Z)/sqrt(d2)``, as a table."""
    return _table_of(signal.source, signal.beta, signal.rho, s)


# --------------------------------------------------------------------------------------------
# A threshold: every functional of f(y) = (y - tau)_+
# --------------------------------------------------------------------------------------------

# Over y > tau: rank = int rho, hilbert = int rho h, nuclear = int rho f, norm = int rho f^2,
# divergence = int rho f h, overlap = int rho f (y - s h), signal = int rho (y - s h), and
# square, product, kept = int rho (y^2, y h, y (y - s h)), and rest = int rho ((y - s h) s h +
# (tau - s h)^2), what the error is there.  Over y < tau: low_square, low_product, low_kept = the
# same as those without low.
Cut = namedtuple(
    "Cut",
    "tau rank hilbert nuclear norm divergence overlap signal square product kept rest "
    "low_square low_product low_kept",
)


@jit
def _cut_below(t, k, tau, drop):
    """Return the functionals at a threshold between the rows k - 1 and k, ``drop`` below row k."""
    a, lost, below = np.empty(_COLUMNS), np.empty(_COLUMNS), t.below[k]
    _lowered(t.above[k], drop, a)
    _lowered(t.lost[k], drop, lost)
    kept, s = t.kept[k], t.law.s
    # both forms are sums of terms that do not cancel, one where the denoised y - s h is close to
    # y and one where it is far below
    rest = s * (kept[Y_HILBERT] - 2.0 * tau * kept[HILBERT]) + tau * (tau * kept[COUNT])
    rest += lost[Y_SIGNAL] - 2.0 * lost[AWAY_SIGNAL] + lost[AWAY_SQUARE]
    return Cut(
        tau, a[COUNT], a[HILBERT], a[AWAY], a[AWAY_SQUARE], a[AWAY_HILBERT], a[AWAY_SIGNAL],
        a[SIGNAL], a[SQUARE], a[Y_HILBERT], a[Y_SIGNAL], max(rest, 0.0),
        below[SQUARE], below[Y_HILBERT], below[Y_SIGNAL],
    )  # fmt: skip


@jit
def cut_between(t, k, tau):
    """Return the functionals at a given threshold between the rows k - 1 and k."""
    return _cut_below(t, k, tau, t.y[k, 0] - tau if k < t.rows else 0.0)


@jit
def _sampled_points(t, k, left, right, lowest, points):
    """Fill the points of a part of row k above the y ``lowest``; return its extent in y."""
    mid, half = 0.5 * (left + right), 0.5 * (right - left)
    for j in range(NODES.size):
        w, density, yh, signal, _ = _table_point(t, k, mid + half * NODES[j])
        y = max(math.sqrt(w), 1e-150)
        points[j, WEIGHT], points[j, VALUE] = half * WEIGHTS[j] * density, y
        points[j, DISTANCE] = max(y - lowest, 0.0)
        points[j, TRANSFORM], points[j, DENOISED] = yh / y, signal / y
    return max(t.y[k, 1] - lowest, 0.0)


@jit
def cut_inside(t, k, x, tau):
    """Return the functionals at a threshold at the position x of row k, where y is tau."""
    points, s = np.empty((NODES.size, 5)), t.law.s
    if t.law.kind == SAMPLED:
        extent = _sampled_points(t, k, x, t.x[k, 1], tau, points)
    else:
        extent = _law_points(t.law, t.bulk[k], x, t.x[k, 1], tau, points)
    gap = t.y[k + 1, 0] - t.y[k, 1] if k < t.rows - 1 else 0.0
    base = _cut_below(t, k + 1, tau, extent + gap)
    rank, hilbert, nuclear, norm = base.rank, base.hilbert, base.nuclear, base.norm
    divergence, overlap, signal = base.divergence, base.overlap, base.signal
    square, product, kept, rest = base.square, base.product, base.kept, base.rest
    for j in range(NODES.size):
        weight, y, f = points[j, WEIGHT], points[j, VALUE], points[j, DISTANCE]
        h, denoised = points[j, TRANSFORM], points[j, DENOISED]
        rank += weight
        hilbert += weight * h
        nuclear += weight * f
        norm += weight * f * f
        divergence += weight * f * h
        overlap += weight * f * denoised
        signal += weight * denoised
        square += weight * y * y
        product += weight * y * h
        kept += weight * y * denoised
        lack = tau - s * h if denoised > 0.5 * y else denoised - f
        rest += weight * (denoised * (s * h) + lack * lack)
    b = t.below[k]
    low_square, low_product, low_kept = b[SQUARE], b[Y_HILBERT], b[Y_SIGNAL]
    mid, half = 0.5 * (t.x[k, 0] + x), 0.5 * (x - t.x[k, 0])
    for j in range(NODES.size):
        w, density, yh, ys, _ = _table_point(t, k, mid + half * NODES[j])
        weight = half * WEIGHTS[j] * density
        low_square += weight * w
        low_product += weight * yh
        low_kept += weight * ys
    return Cut(
        tau, rank, hilbert, nuclear, norm, divergence, overlap, signal, square, product, kept,
        rest, low_square, low_product, low_kept,
    )  # fmt: skip


@jit
def _position(t, k, tau):
    """Return the position x in row k at which y is tau."""
    law = t.law
    if law.kind == SAMPLED:
        lo, hi = -1.0, 1.0
        place, half = 0.0, 0.5 * (t.x[k, 1] - t.x[k, 0])
        for _ in range(100):
            y, _, _, _, step = _between(t.nodes[k], place)
            if y < tau:
                lo = place
            else:
                hi = place
            new = place - (y - tau) * 2.0 * y / (step * half)
            if not lo < new < hi:
                new = 0.5 * (lo + hi)
            done = abs(new - place) <= 4e-16
            place = new
            if done:
                break
        return min(max(0.5 * (t.x[k, 0] + t.x[k, 1]) + half * place, t.x[k, 0]), t.x[k, 1])
    if law.kind == CURVE:
        b = law.first if t.bulk[k] == 0 else law.second
        left, right = math.sin(0.5 * t.x[k, 0]) ** 2, math.sin(0.5 * t.x[k, 1]) ** 2
        eta = locate(law.c, b, tau * tau, b.height * left, b.height * right)
        share = eta / b.height
    else:
        share = (tau * tau - law.shift - law.scale * law.low) / (law.scale * law.span)
    x = 2.0 * math.asin(math.sqrt(min(max(share, 0.0), 1.0)))
    return min(max(x, t.x[k, 0]), t.x[k, 1])


@jit
def cut_at(t, tau):
    """Return the functionals at a given threshold."""
    for k in range(t.rows):
        if tau <= t.y[k, 0]:
            return cut_between(t, k, tau)
        if tau < t.y[k, 1]:
            return cut_inside(t, k, _position(t, k, tau), tau)
    return _cut_below(t, t.rows, tau, 0.0)


@jit
def _free(cut, alpha):
    """Return alpha - D, from D or from 1 - D, whichever is the smaller."""
    if cut.divergence < 0.5:
        return alpha - cut.divergence
    return (alpha - 1.0) + (cut.low_product + cut.tau * cut.hilbert)


@jit
def _is_kept(cut):
    """Tell whether optimal denoising keeps most of what is above the threshold."""
    return cut.signal > 0.5 * (cut.nuclear + cut.tau * cut.rank)


@jit
def _excess(mode, cut, alpha, lam):
    """Return the left side of the equation that fixes the threshold; it grows through its zero.

    INTERPOLATE: alpha - D = 0.  PENALTY: tau (alpha - D) - lam = 0.  BEST (lam stands for s):
    tau - s int rho h / int rho = 0, which is dE/dtau = 0: over y > tau the means of f and of the
    denoised values agree.  MINIMAX (lam stands for rho): rho tau - (1 - rho) int rho f = 0.
    """
    if mode == INTERPOLATE:
        return _free(cut, alpha)
    if mode == PENALTY:
        return cut.tau * _free(cut, alpha) - lam
    if mode == BEST:
        if cut.rank == 0.0:
            return 1.0
        # both forms lose digits where the other does not
        if _is_kept(cut):
            return cut.tau - lam * cut.hilbert / cut.rank
        return (cut.signal - cut.nuclear) / cut.rank
    return lam * cut.tau - (1.0 - lam) * cut.nuclear


@jit
def _find_between(t, k, mode, alpha, lam):
    """Solve the equation of `_excess` between the rows k - 1 and k, where it is elementary."""
    highest = t.y[k, 0]
    low = t.y[k - 1, 1] if k > 0 else 0.0
    cut = cut_between(t, k, highest)
    hilbert, rank = cut.hilbert, cut.rank
    # alpha - D = free + hilbert tau = near - hilbert drop
    near = _free(cut, alpha)
    free = alpha - cut.product if cut.product < 0.5 else (alpha - 1.0) + cut.low_product
    if mode == INTERPOLATE:
        tau, drop = -free / hilbert, near / hilbert
    elif mode == PENALTY:
        root = math.sqrt(free * free + 4.0 * lam * hilbert)
        tau = 2.0 * lam / (free + root) if free > 0.0 else 0.5 * (root - free) / hilbert
        # hilbert drop^2 - both drop + excess = 0
        both, excess = near + hilbert * highest, highest * near - lam
        root = math.sqrt(max(both * both - 4.0 * hilbert * excess, 0.0))
        drop = 2.0 * excess / (both + root) if both > 0.0 else highest - tau
    elif mode == BEST:
        tau = lam * hilbert / rank
        drop = (cut.signal - cut.nuclear) / rank
        if _is_kept(cut):
            drop = highest - tau
        else:
            tau = highest - drop
    else:
        # lam tau = (1 - lam) (nuclear + rank drop)
        drop = (lam * highest - (1.0 - lam) * cut.nuclear) / (lam + (1.0 - lam) * rank)
        tau = highest - drop
    # of both, what is the smaller keeps its digits
    if tau < 0.5 * highest:
        tau = max(tau, low)
        return _cut_below(t, k, tau, highest - tau)
    drop = min(max(drop, 0.0), highest - low)
    return _cut_below(t, k, highest - drop, drop)


@jit
def _find_inside(t, k, mode, alpha, lam):
    """Solve the equation of `_excess` inside row k: Newton in x, bisection when it leaves."""
    lo, hi = t.x[k, 0], t.x[k, 1]
    x, last = 0.5 * (lo + hi), False
    cut = cut_between(t, k, t.y[k, 0])
    for _ in range(120):
        w, density, _, ys, step = _table_point(t, k, x)
        tau = math.sqrt(w)
        cut = cut_inside(t, k, x, tau)
        value = _excess(mode, cut, alpha, lam)
        if last or value == 0.0:
            break
        if value < 0.0:
            lo = x
        else:
            hi = x
        rise = 0.5 * step / tau
        if mode == INTERPOLATE:
            if cut.divergence < 0.5:
                # the divergence is a high power of the distance to the upper edge
                value, rise = math.log(alpha / cut.divergence), rise / cut.divergence
            slope = rise * cut.hilbert
        elif mode == PENALTY:
            slope = rise * (_free(cut, alpha) + tau * cut.hilbert)
        elif mode == BEST:
            slope = rise - density * (ys / tau - value) / cut.rank
        else:
            slope = rise * (lam + (1.0 - lam) * cut.rank)
        new = x - value / slope
        if not lo < new < hi:
            # also a position many decades below is found
            new = math.sqrt(hi * max(lo, 1e-12 * hi)) if lo < 1e-3 * hi else 0.5 * (lo + hi)
            last = hi - lo <= 4e-16 * hi
        else:
            last = abs(new - x) <= 1e-9 * min(x, math.pi - x)
        x = new
    return cut


@jit
def find_cut(t, mode, alpha, lam):
    """Return the functionals at the threshold that solves the equation of `_excess`."""
    if mode == PENALTY and alpha >= 1.0:
        free = alpha - 1.0
        tau = 2.0 * lam / (free + math.sqrt(free * free + 4.0 * lam * t.above[0, HILBERT]))
        if tau < _FAINT * min(math.sqrt(t.law.s), 1.0):
            return _cut_below(t, 0, tau, max(t.y[0, 0] - tau, 0.0))
    for k in range(t.rows):
        if _excess(mode, cut_between(t, k, t.y[k, 0]), alpha, lam) >= 0.0:
            return _find_between(t, k, mode, alpha, lam)
        if t.bulk[k] >= 0:
            gap = t.y[k + 1, 0] - t.y[k, 1] if k < t.rows - 1 else 0.0
            cut = _cut_below(t, k + 1, t.y[k, 1], gap)
            if _excess(mode, cut, alpha, lam) >= 0.0:
                return _find_inside(t, k, mode, alpha, lam)
    # above the spectrum: the estimate is 0
    top = t.y[t.rows - 1, 1]
    return _cut_below(t, t.rows, max(lam / alpha, top) if mode == PENALTY else top, 0.0)


@jit
def soft_error(cut, s):
    """Return the error of soft thresholding from the form that loses no digits."""
    if cut.rank == 0.0:
        return 1.0
    if cut.divergence >= 0.5:
        C = cut.low_product + cut.tau * cut.hilbert
        return s * (1.0 - 2.0 * C) + (cut.low_square + cut.tau * (cut.tau * cut.rank))
    return cut.low_kept + cut.rest


# --------------------------------------------------------------------------------------------
# Perfect recovery: the noise bulk alone
# --------------------------------------------------------------------------------------------


@jit
def _noise_table(beta, rho):
    """Return the law of the noise bulk as s -> 0, in units of sqrt(s (1 - rho/beta))."""
    ratio = 0.0 if beta == np.inf else (1.0 - rho) / (beta - rho)
    return _explicit_table(_marchenko_pastur_law(SCALED, 1.0 / ratio, ratio, 1.0, 0.0, 0.0))


@jit
def _noise_risk(beta, rho, cut):
    """Return lim E/s as s -> 0 at the threshold of ``cut``, in those units; nothing cancels."""
    K, signal = (1.0 - rho) * (1.0 - rho / beta), (1.0 - rho / beta) * cut.tau * cut.tau
    # a thin signal leaves less of the noise, rho^(7/5), than positions next to the edge resolve
    noise = K * cut.norm if rho > 1e-30 else 0.0
    return rho * (1.0 + (1.0 - rho) / beta + signal) + noise


@jit
def recovery(beta, rho):
    """Return (alpha_star, 1 - alpha_star, l): where perfect recovery with the nuclear norm starts.

    alpha_star is the least ``lim E/s`` as s -> 0 and ``l sqrt(s (1 - rho/beta))`` its threshold.
    """
    if rho >= 1.0:
        return 1.0, 0.0, 0.0
    cut = find_cut(_noise_table(beta, rho), MINIMAX, 1.0, rho)
    K = (1.0 - rho) * (1.0 - rho / beta)
    return _noise_risk(beta, rho, cut), K * (cut.low_square + cut.tau * cut.hilbert), cut.tau


@jit
def _recovery_slack(beta, rho, alpha, gap, mode):
    """Return (lim E/s, alpha - lim E/s) as s -> 0; ``gap`` is alpha - alpha_star.

    The difference keeps the relative precision of ``gap``.
    """
    star, _, best = recovery(beta, rho)
    if mode == BEST:
        return star, gap
    # the interpolator's threshold: C = K int min(y, l) h = 1 - alpha
    t = _noise_table(beta, rho)
    K = (1.0 - rho) * (1.0 - rho / beta)
    cut = find_cut(t, INTERPOLATE, 1.0 - (1.0 - alpha) / K, 0.0)
    last, rise = cut.tau, 0.0
    for j in range(NODES.size):
        part = cut_at(t, 0.5 * (best + last) + 0.5 * (last - best) * NODES[j])
        slope = 2.0 * (1.0 - rho / beta) * rho * part.tau - 2.0 * K * part.nuclear
        rise += 0.5 * (last - best) * WEIGHTS[j] * slope
    return _noise_risk(beta, rho, cut), gap - rise


# --------------------------------------------------------------------------------------------
# Nuclear-norm least squares
# --------------------------------------------------------------------------------------------

# Just around perfect recovery E/s differs from its limit e0 by sqrt(s) c(sqrt(s)), which is
# lost in rounding: c is extrapolated from `samples` at multiples of `step`.
Near = namedtuple("Near", "active e0 slack step samples")
Point = namedtuple("Point", "signal alpha delta lam mode near")


@jit
def _find_threshold(p, s):
    lam = s if p.mode == BEST else p.lam
    return find_cut(make_table(p.signal, s), p.mode, p.alpha, lam)


@jit
def _lack(p, s):
    cut = _find_threshold(p, s)
    if p.mode == INTERPOLATE:
        square = cut.low_square + cut.tau * cut.tau * cut.rank
        return 2.0 * (1.0 - p.alpha) - square / s
    return (
        2.0 * (cut.low_product + cut.tau * cut.hilbert)
        - (cut.low_square + cut.tau * cut.tau * cut.rank) / s
    )


@jit
def _parting_noise(source, beta, rho):
    """Return the noise below which, roughly, the zeros of S have a bulk of their own, or 0."""
    if source is None:
        if beta == np.inf:
            return (1.0 / math.sqrt(rho) - 1.0) ** 2
        return _splitting_noise(beta, rho)
    return parting_noise(source, 1.0 / beta)


@jit
def make_near(p, gap):
    """Return what `balance` needs close to perfect recovery."""
    samples = np.zeros(_SAMPLES)
    beta, rho = p.signal.beta, p.signal.rho
    scale = _parting_noise(p.signal.source, beta, rho)
    if scale == 0.0:
        # E/s is no power series in sqrt(s)
        return Near(False, 0.0, 0.0, 0.0, samples)
    e0, slack = _recovery_slack(beta, rho, p.alpha, gap, p.mode)
    # the noise bulk has its own scale: with rho -> 1 it is gone
    step = _STEP * min(math.sqrt(scale), (1.0 - rho) * (1.0 - rho / beta))
    for k in range(_SAMPLES):
        root = (k + 1) * step
        samples[k] = (_lack(p, root * root) - (1.0 - e0)) / root
    return Near(True, e0, slack, step, samples)


@jit
def balance(p, s):
    """Return (log(alpha s/(delta + E)), E, functionals) at the noise s."""
    cut = _find_threshold(p, s)
    if p.near.active and s < (2.0 * p.near.step) ** 2:
        root, total = math.sqrt(s), 0.0
        for k in range(_SAMPLES):
            weight = 1.0
            for j in range(_SAMPLES):
                if j != k:
                    weight *= (root / p.near.step - (j + 1)) / (k - j)
            total += weight * p.near.samples[k]
        e = p.near.e0 - root * total
        left = p.near.slack + root * total - p.delta / s
        return math.log1p(left / (p.delta / s + e)), s * e, cut
    if cut.divergence < 0.5:
        error = soft_error(cut, s)
        return math.log(p.alpha) + math.log(s / (p.delta + error)), error, cut
    C = cut.low_product + cut.tau * cut.hilbert
    if p.mode == INTERPOLATE:
        C = 1.0 - p.alpha
    free = 0.0 if p.mode == INTERPOLATE else p.alpha - 1.0 + C
    if p.mode == PENALTY:
        free = p.lam / cut.tau
    b = (cut.low_square + cut.tau * cut.tau * cut.rank) / s
    e = 1.0 - 2.0 * C + b
    left = free + (C - b) - p.delta / s
    return math.log1p(left / (p.delta / s + e)), s * e, cut


@jit
def _visible(p):
    """Return the problem in units in which its noise can be seen, and the unit.

    Far below all that S has to show, s, delta, tau^2 and lam^2 scale together; far above the
    noise, a threshold does not see it.
    """
    unit, least = 1.0, _least_noise(p.signal.source, p.signal.rho)
    for _ in range(150):  # from the least to the largest number
        if not (p.delta < p.alpha * least and p.delta + p.lam > 0.0):
            break
        excess, _, cut = balance(p, least)
        if not (excess > 0.0 and cut.tau < _CLEAR * math.sqrt(least)):
            break
        unit *= _GRADE
        delta, lam = p.delta * _GRADE * _GRADE, p.lam * _GRADE
        p = Point(p.signal, p.alpha, delta, lam, p.mode, p.near)
    return p, unit


@jit
def _solve_noise(p):
    """Return (log s, log residual, evaluations) of the root of `balance`."""
    floor = -690.0
    if p.delta > 0.0:
        floor = max(floor, math.log(p.delta) - math.log(p.alpha))
    x1 = math.log(1.0 + p.delta) - math.log(p.alpha)
    f1 = balance(p, math.exp(x1))[0]
    calls, step = 1, 1.0
    x2, f2 = x1, f1
    while f2 * f1 > 0.0 and calls < 40:
        x1, f1 = x2, f2
        x2 = max(x1 - step, floor) if f1 > 0.0 else max(min(x1 + step, 690.0), x1)
        f2 = balance(p, math.exp(x2))[0]
        calls += 1
        step *= 2.0
        if x2 == x1:
            return x2, f2, calls
    # Chandrupatla's method: inverse quadratic interpolation where it can be trusted
    x3, f3, share = x1, f1, 0.5
    for _ in range(100):
        if f2 == 0.0:
            return x2, 0.0, calls
        x = x2 + share * (x1 - x2)
        f = balance(p, math.exp(x))[0]
        calls += 1
        if not math.isfinite(f):
            return x, f, calls
        if (f > 0.0) == (f2 > 0.0):
            x3, f3 = x2, f2
        else:
            x3, f3 = x1, f1
            x1, f1 = x2, f2
        x2, f2 = x, f
        best, error = (x2, f2) if abs(f2) < abs(f1) else (x1, f1)
        tolerance = 2e-16 * (1.0 + abs(best))
        width = abs(x1 - x2)
        if error == 0.0 or width <= 2.0 * tolerance:
            return best, error, calls
        xi, phi = (x2 - x1) / (x3 - x1), (f2 - f1) / (f3 - f1)
        if phi * phi < xi and (1.0 - phi) ** 2 < 1.0 - xi:
            share = f2 / (f1 - f2) * f3 / (f1 - f3) + (x3 - x2) / (x1 - x2) * f2 / (
                f3 - f2
            ) * f1 / (f3 - f1)
        else:
            share = 0.5
        share = min(max(share, tolerance / width), 1.0 - tolerance / width)
    return x2, f2, calls


@jit
def _store(out, p, s, error, cut, free):
    out[MSE], out[NOISE], out[THRESHOLD] = error, s, cut.tau
    out[OVERLAP], out[NORM] = cut.overlap, cut.norm
    # noise leaves no singular value at 0: without a threshold all of them are kept
    out[RANK] = 1.0 if cut.tau == 0.0 and s > 0.0 else cut.rank
    out[NUCLEAR], out[LAM] = cut.nuclear, cut.tau * free
    out[TRAIN] = (math.sqrt(s) * (free / math.sqrt(p.alpha))) ** 2


@jit
def _refuse(out, failed):
    """Leave no numbers where the equations were not solved."""
    if failed:
        out[:RESIDUAL] = np.nan
        out[STATUS] = FAILED


@jit
def nuclear_norm_point(signal, alpha, delta, lam, mode, gap, refine, tolerance, out):
    """Fill one row: the estimate of one problem.  ``gap`` is alpha - alpha_star."""
    out[:] = np.nan
    out[CALLS] = 0.0
    if not (
        signal.beta >= 1.0 and signal.rho > 0.0 and alpha > 0.0 and delta >= 0.0 and lam >= 0.0
    ):
        out[STATUS] = INVALID
        return
    none = Near(False, 0.0, 0.0, 0.0, np.zeros(_SAMPLES))
    p = Point(signal, alpha, delta, lam, mode, none)
    out[RESIDUAL], out[STATUS] = 0.0, CONVERGED
    if mode != PENALTY and delta == 0.0 and gap >= 0.0:
        cut = cut_between(make_table(signal, 0.0), 0, 0.0)
        _store(out, p, 0.0, 0.0, cut, 0.0)
        out[OVERLAP], out[NORM], out[RANK], out[STATUS] = 1.0, 1.0, min(signal.rho, 1.0), PERFECT
        return
    if mode == INTERPOLATE and alpha >= 1.0:
        # least squares
        if alpha == 1.0:
            out[MSE], out[NOISE], out[NORM], out[NUCLEAR] = np.inf, np.inf, np.inf, np.inf
            out[OVERLAP], out[RANK], out[THRESHOLD] = 1.0, 1.0, 0.0
            out[LAM], out[TRAIN] = 0.0, 0.0
            return
        s = delta / (alpha - 1.0)
        _store(out, p, s, s, cut_between(make_table(signal, s), 0, 0.0), alpha - 1.0)
        _refuse(out, np.isnan(out[:RESIDUAL]).any())
        return
    if refine:
        p = Point(signal, alpha, delta, lam, mode, make_near(p, gap))
    p, unit = _visible(p)
    logs, left, calls = _solve_noise(p)
    s = math.exp(logs)
    _, error, cut = balance(p, s)
    free = 0.0
    if mode == PENALTY:
        free = p.lam / cut.tau
    elif mode == BEST:
        # alpha - D = (delta + int_{y < tau} rho y (y - s h))/s at the best threshold
        free = max(p.delta + cut.low_kept, 0.0) / s
    _store(out, p, s, error, cut, free)
    for column, power in ((MSE, 2), (NOISE, 2), (TRAIN, 2), (THRESHOLD, 1), (LAM, 1)):
        out[column] /= unit
        if power == 2:
            out[column] /= unit
    out[RESIDUAL], out[CALLS] = abs(math.expm1(left)), calls
    # a number out of range makes others NaN
    _refuse(out, not out[RESIDUAL] <= tolerance or np.isnan(out[:RESIDUAL]).any())


@jit
def nuclear_norm_array(source, beta, rho, alpha, delta, lam, mode, gap, refine, tolerance, out):
    """Fill out (n, 12); NaN where an input is not valid."""
    for i in range(alpha.size):
        signal = Signal(beta[i], rho[i], source)
        nuclear_norm_point(
            signal, alpha[i], delta[i], lam[i], mode[i], gap[i], refine[i], tolerance, out[i]
        )


@jit
def recovery_array(beta, rho, out):
    """Fill out (n, 3) with `recovery`; NaN where an input is not valid."""
    for i in range(rho.size):
        if beta[i] >= 1.0 and rho[i] > 0.0:
            out[i] = recovery(beta[i], rho[i])
        else:
            out[i] = np.nan


# --------------------------------------------------------------------------------------------
# Thresholding for its own sake
# --------------------------------------------------------------------------------------------


@jit
def hard_error(cut, s):
    """Return the error of hard thresholding, y kept above the threshold of ``cut``."""
    if cut.rank == 0.0:
        return 1.0
    return cut.low_kept + s * cut.product


@jit
def _worth(t, k, x):
    """Return by how much keeping y at x of row k reduces the error, 2 (y - s h)/y - 1."""
    if t.bulk[k] < 0:
        return 2.0 * t.sums[k, Y_SIGNAL] / t.sums[k, SQUARE] - 1.0
    w, _, _, signal, _ = _table_point(t, k, x)
    return 2.0 * signal / w - 1.0


@jit
def _find_half(t, k, lo, hi):
    """Return the functionals where the denoised value passes y/2, at a position in [lo, hi].

    hi is in row k, lo in it or in the row before, of the same bulk.
    """
    while hi - lo > 4e-16 * hi:
        x = 0.5 * (lo + hi)
        if not lo < x < hi:
            break
        if _worth(t, k if x >= t.x[k, 0] else k - 1, x) > 0.0:
            hi = x
        else:
            lo = x
    row = k if hi >= t.x[k, 0] else k - 1
    return cut_inside(t, row, hi, math.sqrt(_table_point(t, row, hi)[0]))


@jit
def find_hard(t, s):
    """Return the functionals at the best hard threshold; in a gap, at its middle.

    It is where the denoised value passes y/2 from below; of several such points, and of keeping
    all or nothing, the one of least error.
    """
    best = cut_between(t, 0, 0.0)
    cut = cut_between(t, t.rows, t.y[t.rows - 1, 1])
    if hard_error(cut, s) <= hard_error(best, s):
        best = cut
    last_x, last_bulk, last_sign = 0.0, -1, -1.0
    for k in range(t.rows):
        which = t.bulk[k]
        mid, half = 0.5 * (t.x[k, 0] + t.x[k, 1]), 0.5 * (t.x[k, 1] - t.x[k, 0])
        for j in range(NODES.size if which >= 0 else 1):
            x = mid + half * NODES[j]
            sign = _worth(t, k, x)
            if sign > 0.0 and last_sign <= 0.0:
                if which >= 0 and which == last_bulk:
                    cut = _find_half(t, k, last_x, x)
                elif which < 0 or _worth(t, k, t.x[k, 0] + 1e-9 * half) > 0.0:
                    below = t.y[k - 1, 1] if k > 0 else t.y[k, 0]
                    cut = cut_between(t, k, 0.5 * (t.y[k, 0] + below))
                else:
                    cut = _find_half(t, k, t.x[k, 0], x)
                if hard_error(cut, s) <= hard_error(best, s):
                    best = cut
            last_x, last_bulk, last_sign = x, which, sign
    return best


@jit
def _quiet_noise(signal, s, tau, best):
    """Return (noise, unit) with the noise, in that unit, large enough for the law to show it.

    Far below all that S has to show, s, tau^2 and the error scale together; and a threshold far
    above the noise sees none.
    """
    # within an atom h is of order 1/sqrt(s) and cancels
    least = _least_noise(None, signal.rho) if signal.source is None else _QUIET
    if s >= least:
        return s, 1.0
    if not best:
        s = max(s, tau * ((1e-18 if signal.source is None else 1e-8) * tau))
    if s >= least or s == 0.0:
        return least, (1.0 if s > 0.0 else np.inf)
    return least, math.sqrt(least / s)


@jit
def threshold_point(signal, s, tau, best, hard, out):
    """Fill (mse, overlap, norm, rank, nuclear norm, divergence, threshold) of one threshold."""
    out[:] = np.nan
    if not (signal.beta >= 1.0 and signal.rho > 0.0 and s >= 0.0 and (best or tau >= 0.0)):
        return
    if s == np.inf or (not best and tau == np.inf):
        # nothing is kept, or everything and then the error is infinite
        out[:] = 0.0
        out[0], out[6] = (1.0 if best or tau == np.inf else np.inf), (np.inf if best else tau)
        if out[0] == np.inf:
            out[1:6] = np.nan
        return
    noise, unit = _quiet_noise(signal, s, tau, best)
    t = make_table(signal, noise)
    if not best:
        if tau >= t.y[t.rows - 1, 1]:
            out[:6] = 0.0
            out[0], out[6] = 1.0, tau
            return
        seen = tau * unit if unit < np.inf else 0.0
        cut = cut_at(t, seen) if seen > _NOTHING else _cut_below(t, 0, seen, t.y[0, 0])
    elif hard:
        cut = find_hard(t, noise)
    else:
        cut = find_cut(t, BEST, 1.0, noise)
    shown, noise = noise, s * unit * unit if unit < np.inf else noise
    out[3], out[6] = cut.rank, tau
    if hard:
        out[0], out[1], out[2] = hard_error(cut, shown), cut.kept, cut.square
        if out[0] <= 4.0 * shown:  # no part of S is dropped
            out[0] *= noise / shown
        out[4], out[5] = cut.nuclear + cut.tau * cut.rank, cut.product
    else:
        out[0], out[1], out[2] = soft_error(cut, noise), cut.overlap, cut.norm
        out[4], out[5] = cut.nuclear, cut.divergence
    for column in range(5):
        out[column] = max(out[column], 0.0)  # interpolated densities fall below 0 by rounding
    out[0] /= unit * unit
    if best:
        # a gap of S does not scale
        out[6] = cut.tau if hard else cut.tau / unit


@jit
def threshold_array(source, beta, rho, s, tau, best, hard, out):
    """Fill out (n, 7) with `threshold_point`; NaN where an input is not valid."""
    for i in range(s.size):
        threshold_point(Signal(beta[i], rho[i], source), s[i], tau[i], best, hard, out[i])


@jit
def mean_singular_value_array(source, beta, rho, s, out):
    """Fill out (n,) with the mean of y; NaN where an input is not valid."""
    for i in range(s.size):
        if beta[i] >= 1.0 and rho[i] > 0.0 and 0.0 <= s[i] < np.inf:
            out[i] = make_table(Signal(beta[i], rho[i], source), s[i]).above[0, Y]
        else:
            out[i] = s[i] if s[i] == np.inf else np.nan


# --------------------------------------------------------------------------------------------
# Labels +-1: any of three losses with a nuclear-norm penalty
# --------------------------------------------------------------------------------------------

SQUARED, LOGISTIC, HINGE = range(3)
_RANGE = 9.0  # standard deviations; beyond, less than 1e-18 of a Gaussian
_GROWTH = 2.5  # of the panels away from the step of a noiseless label
_PIECE = 1.5  # longest panel in the output of the logistic loss, whose poles are pi away
_FLAT = 40.0  # output from which on the logistic loss is linear or constant
_PLAIN = 40  # iterations before Newton's method

# Means over a label y and the output omega: of f^2, of f d log Z/d w* (the pull towards S), of
# -df/domega and of the loss; f = (prox(omega) - omega)/V.
Labels = namedtuple("Labels", "square pull stiffness loss")


@jit
def _normal_tail(x):
    return 0.5 * math.erfc(-x / math.sqrt(2.0))


@jit
def _logistic_output(omega, V):
    """Return p with p - V/(1 + exp(p)) = omega: the proximal map for the label 1."""
    lo, hi = omega, omega + V
    p, last = omega + 0.5 * V, V
    for _ in range(200):
        tail = 1.0 / (1.0 + math.exp(min(p, 700.0)))
        value = p - V * tail - omega
        if value > 0.0:
            hi = p
        else:
            lo = p
        new = p - value / (1.0 + V * tail * (1.0 - tail))
        # around the bend of the loss Newton's steps would swing from side to side
        if not lo <= new <= hi or abs(new - p) > 0.5 * last:
            new = 0.5 * (lo + hi)
        done = abs(new - p) <= 1e-15 * (1.0 + abs(p))
        p, last = new, abs(new - p)
        if done:
            break
    return p


@jit
def _label_sums(loss, a, reach, root_q, V, lo, hi):
    """Return the four sums of `label_means` over omega/root_q from lo to hi, without kinks.

    For the logistic loss the variable is the output p of the proximal map, of which omega is an
    explicit function: nothing is solved for at the nodes.
    """
    square, pull, stiffness, total = 0.0, 0.0, 0.0, 0.0
    left, right, pieces = lo, hi, 1
    if loss == LOGISTIC:
        left, right = _logistic_output(root_q * lo, V), _logistic_output(root_q * hi, V)
        if left < _FLAT and right > -_FLAT:
            span = min(right, _FLAT) - max(left, -_FLAT)
            pieces = 1 + int(span / _PIECE) + (left < -_FLAT) + (right > _FLAT)
    start = left
    for piece in range(pieces):
        end = right
        if piece < pieces - 1:
            if start < -_FLAT:
                end = -_FLAT
            else:
                end = min(start + _PIECE, right)
        mid, half = 0.5 * (start + end), 0.5 * (end - start)
        for j in range(NODES.size):
            x = mid + half * NODES[j]
            weight = half * WEIGHTS[j]
            if loss == LOGISTIC:
                tail = 1.0 / (1.0 + math.exp(min(x, 700.0)))
                curve = tail * (1.0 - tail)
                z = (x - V * tail) / root_q
                weight *= (1.0 + V * curve) / root_q
                f, slope = tail, curve / (1.0 + V * curve)
                value = math.log1p(math.exp(-x)) if x > 0.0 else math.log1p(math.exp(x)) - x
            elif loss == SQUARED:
                z = x
                f, slope = (1.0 - root_q * z) / (1.0 + V), 1.0 / (1.0 + V)
                value = 0.5 * f * f
            else:
                z = x
                miss = 1.0 - root_q * z
                if miss <= 0.0:
                    f, slope, value = 0.0, 0.0, 0.0
                elif miss >= V:
                    f, slope, value = 1.0, 0.0, miss - V
                else:
                    f, slope, value = miss / V, 1.0 / V, 0.0
            weight *= 2.0 * math.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)
            chance = weight * _normal_tail(a * z)
            square += chance * f * f
            stiffness += chance * slope
            total += chance * value
            step = a * z
            pull += weight * f * math.exp(-0.5 * step * step) / (math.sqrt(2.0 * math.pi) * reach)
        start = end
    return square, pull, stiffness, total


@jit
def label_means(loss, delta, missing, root_q, V):
    """Return the means of `Labels` for labels sign(h + sqrt(delta) xi).

    ``missing`` is ``1 - m^2/q``, of the cosine m/sqrt(q) of the estimate with S.  The two labels
    contribute alike.  The rule is graded towards the step of ``P(y | omega)`` and cut at kinks.
    """
    reach = math.sqrt(missing + delta)
    a = math.sqrt(1.0 - missing) / reach
    square, pull, stiffness, total = 0.0, 0.0, 0.0, 0.0
    kink1, kink2 = _RANGE, _RANGE
    if loss == HINGE:
        kink1, kink2 = (1.0 - V) / root_q, 1.0 / root_q
    width = 2.0 / max(a, 1.0)
    for sign in (-1.0, 1.0):
        near = 0.0
        far = min(width, _RANGE)
        while near < _RANGE:
            lo, hi = (near, far) if sign > 0.0 else (-far, -near)
            first, second = min(max(kink1, lo), hi), min(max(kink2, lo), hi)
            for left, right in ((lo, first), (first, second), (second, hi)):
                if right > left:
                    part = _label_sums(loss, a, reach, root_q, V, left, right)
                    square += part[0]
                    pull += part[1]
                    stiffness += part[2]
                    total += part[3]
            near, far = far, min(far * _GROWTH, _RANGE)
    return Labels(square, pull, stiffness, total)


@jit
def _classifier_step(signal, alpha, delta, lam, loss, x, out):
    """Fill ``out`` with the residuals at x = log (s, tau, c); return (cut, labels, fault).

    The estimate is c times the soft threshold at tau of ``S + sqrt(s) Z``.  Faults: 0 none, 1 tau
    is above the spectrum, 2 no label resists a change of the scale c.
    """
    s, tau, c = math.exp(x[0]), math.exp(x[1]), math.exp(x[2])
    cut = cut_at(make_table(signal, s), tau)
    if not (cut.norm > 0.0 and cut.overlap > 0.0 and cut.divergence > 0.0):
        return cut, Labels(0.0, 0.0, 0.0, 0.0), 1
    # 1 - cosine^2 is the error per entry of the estimate scaled best
    missing = max(1.0 - cut.overlap * cut.overlap / cut.norm, 1e-15)
    V = cut.divergence * tau * c / lam
    labels = label_means(loss, delta, missing, c * math.sqrt(cut.norm), V)
    pull = alpha * labels.pull * tau / lam
    if not (labels.stiffness > 0.0 and pull > 0.0):
        return cut, labels, 2
    out[0] = math.log(alpha * labels.square * (tau / lam) ** 2 / s)
    out[1] = math.log(pull)
    out[2] = math.log(alpha * labels.stiffness * c * tau / lam)
    return cut, labels, 0


@jit
def _newton_direction(J, r, out):
    """Fill out with the solution of J out = -r (3 by 3); return whether there is one."""
    det = (
        J[0, 0] * (J[1, 1] * J[2, 2] - J[1, 2] * J[2, 1])
        - J[0, 1] * (J[1, 0] * J[2, 2] - J[1, 2] * J[2, 0])
        + J[0, 2] * (J[1, 0] * J[2, 1] - J[1, 1] * J[2, 0])
    )
    for k in range(3):
        M = J.copy()
        M[:, k] = -r
        out[k] = (
            M[0, 0] * (M[1, 1] * M[2, 2] - M[1, 2] * M[2, 1])
            - M[0, 1] * (M[1, 0] * M[2, 2] - M[1, 2] * M[2, 0])
            + M[0, 2] * (M[1, 0] * M[2, 1] - M[1, 1] * M[2, 0])
        ) / det
    return math.isfinite(out[0]) and math.isfinite(out[1]) and math.isfinite(out[2])


@jit
def _plain_iterations(signal, alpha, delta, lam, loss, x):
    """Iterate the equations from x, half of each step, until they are roughly solved."""
    r = np.empty(3)
    for k in range(_PLAIN):
        _, _, fault = _classifier_step(signal, alpha, delta, lam, loss, x, r)
        if fault > 0:
            if fault == 1:
                x[1] -= 0.3
            else:
                x[2] += 0.5
            continue
        if np.max(np.abs(r)) < 0.02:
            return k + 1
        # s' = s e^(r0 - 2 r1), tau' = tau e^(-r1), c' = c e^(r1 - r2)
        x[0] += 0.5 * min(max(r[0] - 2.0 * r[1], -2.0), 2.0)
        x[1] += 0.5 * min(max(-r[1], -2.0), 2.0)
        x[2] += 0.5 * min(max(r[1] - r[2], -2.0), 2.0)
    return _PLAIN


@jit
def _newton_iterations(signal, alpha, delta, lam, loss, x):
    """Improve x by Newton's method with backtracking; return (residual, evaluations)."""
    r, moved, trial, change = np.empty(3), np.empty(3), np.empty(3), np.empty(3)
    J = np.empty((3, 3))
    _, _, fault = _classifier_step(signal, alpha, delta, lam, loss, x, r)
    calls = 1
    if fault > 0:
        return np.inf, calls
    size = np.max(np.abs(r))
    for _ in range(40):
        if size < 1e-13:
            break
        for k in range(3):
            trial[:] = x
            trial[k] += 1e-6
            _classifier_step(signal, alpha, delta, lam, loss, trial, moved)
            J[:, k] = (moved - r) / 1e-6
        calls += 3
        if not _newton_direction(J, r, change):
            break
        length, better = 1.0 / max(1.0, np.max(np.abs(change))), False
        for _ in range(12):
            trial[:] = x + length * change
            _, _, fault = _classifier_step(signal, alpha, delta, lam, loss, trial, moved)
            calls += 1
            if fault == 0 and np.max(np.abs(moved)) < size:
                better = True
                break
            length *= 0.5
        if not better:
            break
        x[:], r[:] = trial, moved
        size = np.max(np.abs(r))
    return size, calls


@jit
def _follow(signal, alpha, delta, lam, loss, start, x):
    """Lower the penalty from ``start``, where x is near the solution, to lam.

    Each solution, extrapolated in log lam, starts the next; a step that fails is halved.
    """
    last, trial = x.copy(), np.empty(3)
    here, step, known = math.log(start), math.log(2.0), 0.0
    calls = _plain_iterations(signal, alpha, delta, start, loss, x)
    size, more = _newton_iterations(signal, alpha, delta, start, loss, x)
    calls += more
    target = math.log(lam)
    while size < 1e-9 and here > target and step > 1e-3:
        step = min(step, here - target)
        value = lam if here - step <= target else math.exp(here - step)
        trial[:] = x
        if known > 0.0:
            trial += (x - last) * (step / known)
        error, more = _newton_iterations(signal, alpha, delta, value, loss, trial)
        calls += more
        if error < 1e-9:
            last[:], known = x, step
            x[:], here, size = trial, here - step, error
            step *= 1.5
        else:
            step *= 0.4
    return (size if here <= target else np.inf), calls


@jit
def classifier_point(signal, alpha, delta, lam, loss, tolerance, out):
    """Fill one row: the columns of `nuclear_norm_point`, for labels +-1."""
    out[:] = np.nan
    out[CALLS] = 0.0
    if not (signal.beta >= 1.0 and signal.rho > 0.0 and alpha > 0.0 and delta >= 0.0 and lam > 0.0):
        out[STATUS] = INVALID
        return
    out[LAM] = lam
    # without an estimate, omega = V = 0, every label pulls with f = -l'(0)
    f = 0.5 if loss == LOGISTIC else 1.0
    share = math.sqrt(2.0 / (math.pi * (1.0 + delta)))
    s = 1.0 / (alpha * share * share)
    t = make_table(signal, s)
    top = t.y[t.rows - 1, 1]
    largest = top * alpha * f * share
    if lam >= largest:
        out[:LAM] = 0.0
        out[MSE], out[NOISE], out[THRESHOLD] = 1.0, s, lam / (alpha * f * share)
        out[TRAIN] = math.log(2.0) if loss == LOGISTIC else (0.5 if loss == SQUARED else 1.0)
        out[RESIDUAL], out[STATUS] = 0.0, CONVERGED
        return
    first = np.array([math.log(s), math.log(top * min(lam / largest, 0.7)), math.log(share)])
    x = first.copy()
    calls = _plain_iterations(signal, alpha, delta, lam, loss, x)
    size, more = _newton_iterations(signal, alpha, delta, lam, loss, x)
    calls += more
    # the hinge acts only from a finite scale on: other starts, down from larger penalties
    for scale in (0.0, 1.0, 2.0, 3.0):
        for start in (0.6, 0.9, 0.97, 0.99):
            if size < 1e-9 or lam > start * largest:
                continue
            x[0], x[1], x[2] = first[0], math.log(start * top), first[2] + scale
            size, more = _follow(signal, alpha, delta, lam, loss, start * largest, x)
            calls += more
    out[RESIDUAL], out[CALLS] = size, calls
    if not size <= tolerance:
        out[:RESIDUAL] = np.nan
        out[STATUS] = FAILED
        return
    cut, labels, _ = _classifier_step(signal, alpha, delta, lam, loss, x, first)
    c = math.exp(x[2])
    out[NOISE], out[THRESHOLD] = math.exp(x[0]), math.exp(x[1])
    out[OVERLAP], out[NORM] = c * cut.overlap, c * c * cut.norm
    out[MSE] = 1.0 - 2.0 * out[OVERLAP] + out[NORM]
    out[RANK], out[NUCLEAR], out[TRAIN] = cut.rank, c * cut.nuclear, labels.loss
    out[STATUS] = CONVERGED


@jit
def classifier_array(source, beta, rho, alpha, delta, lam, loss, tolerance, out):
    """Fill out (n, 12) with `classifier_point`; NaN where an input is not valid."""
    for i in range(alpha.size):
        signal = Signal(beta[i], rho[i], source)
        classifier_point(signal, alpha[i], delta[i], lam[i], loss, tolerance, out[i])
