"""The law of ``S + sqrt(s) Z`` for a Wishart matrix S and a symmetric Gaussian Z.

With ``S = W W^T/sqrt(r)``, ``a = sqrt(rho)`` and ``A = sqrt(s rho)``, the eigenvalues ``y`` of
``Y/sqrt(d)`` in units of ``sqrt(s)`` and their Stieltjes transform ``G = sqrt(s) g`` obey::

    y = 1/G + G + rho/(A - G)

a cubic in G with real coefficients.  Inside a bulk it has one pair of complex roots, and for a
pair ``y(G) = y(conj(G))`` says ``1/|G|^2 = 1 + rho/|A - G|^2``: everything is a rational function
of the one real variable ``w = |A - G|^2``::

    |G|^2 = w/(w + rho),    2 A Re G = A^2 + |G|^2 - w,    y = 2 Re G + rho A/w

A cubic has no room for two pairs, so no pair is a critical point of y(G) and y falls strictly as
w grows along a bulk: no root finding, no branch to choose.  The denoised eigenvalue
``y - 2 Re G`` is ``rho A/w``.

Edges are the real solutions of ``(1 - G^2)(A - G)^2 = rho G^2``: one below 0, one in (0, A) and,
when ``rho^(1/3) + (s rho)^(1/3) < 1``, two in (A, 1) on the sides of a gap.  With
``log w = log w_0 + H sin^2(x/2)`` every integral over a bulk is analytic in x.

Positions are kept relative to the edge ``w_0`` of their bulk: this is what keeps full relative
precision at tiny and huge noise.
"""

from __future__ import annotations

import cmath
import math
from collections import namedtuple

import numpy as np

from . import jit

__all__: list[str] = []

_ELLIPSE = 2.2  # (sum of distances to the panel ends) / (panel length): 16 nodes err by 1e-20
_NECK = 1e-3  # a closing gap of width x contributes x^6 to the error: no need to go below
_SPAN = 3.0  # largest step of log w: the integrands grow like its third power
_PANELS = 96  # more than any parameters have asked for (16)
_NEWTON = 1e-9  # relative Newton step after which the next one is below rounding
_TINY = 1e-40  # noise below which mmse is its limit to all digits
_THIN = 1e-20  # width that counts as zero
_HUGE = 1e17  # rho or s rho from which on S cannot be told from a matrix of independent entries
_SERIES = 0.15  # below this e - log(1 + e) is summed as a series of _TERMS terms
_TERMS = 20

MASS, CUBE, GAIN, ERROR, LOGS = range(5)  # what bulk_sums accumulates


# --------------------------------------------------------------------------------------------
# Edges
# --------------------------------------------------------------------------------------------

# g_lower < 0 < g_upper < A < g_gap1 < g_gap2 are the real critical points of y(G); with one bulk
# the last two are the complex pair g_neck, conj(g_neck).
Curve = namedtuple("Curve", "rho less s kappa a A g_lower g_upper bulks g_gap1 g_gap2 g_neck")


@jit
def _edge(a, A, sign, side, lo, hi):
    """Solve ``a sin = side (A - sign sin) cos`` on (lo, hi), where it has one root.

    The edge is ``G = sign sin``.  Returns the sine.
    """
    rising = a * math.sin(hi) - side * (A - sign * math.sin(hi)) * math.cos(hi) > 0.0
    phi = 0.5 * (lo + hi)
    for _ in range(100):
        sin, cos = math.sin(phi), math.cos(phi)
        rest = A - sign * sin
        f = a * sin - side * rest * cos
        if (f > 0.0) == rising:
            hi = phi
        else:
            lo = phi
        df = a * cos + side * (sign * cos * cos + rest * sin)
        new = phi - f / df
        newton = lo <= new <= hi
        if not newton:
            new = 0.5 * (lo + hi) if lo > 0.1 * hi else math.sqrt(max(lo, 1e-30 * hi) * hi)
        done = abs(new - phi) <= (_NEWTON if newton else 4e-16) * phi
        phi = new
        if done:
            break
    return math.sin(phi)


@jit
def make_curve(rho, s):
    """Return the critical points of y(G) for finite rho and s > 0."""
    kappa = s * rho
    a, A = math.sqrt(rho), math.sqrt(kappa)
    top = 0.5 * math.pi
    lower = -_edge(a, A, -1.0, 1.0, 0.0, top)
    upper = _edge(a, A, 1.0, 1.0, 0.0, top)
    # the four critical points have sum 2 A and product -kappa
    total, product = 2.0 * A - lower - upper, -kappa / (lower * upper)
    root = cmath.sqrt(complex(product - 0.25 * total * total))
    neck = 0.5 * total + 1j * root
    if A < 1.0:
        cusp = A ** (1.0 / 3.0)
        middle = math.asin(cusp)
        if a * cusp < (cusp - A) * math.cos(middle):
            gap1 = _edge(a, A, 1.0, -1.0, math.asin(A), middle)
            gap2 = _edge(a, A, 1.0, -1.0, middle, top)
            return Curve(rho, rho - 1.0, s, kappa, a, A, lower, upper, 2, gap1, gap2, neck)
    return Curve(rho, rho - 1.0, s, kappa, a, A, lower, upper, 1, 0.0, 0.0, neck)


# --------------------------------------------------------------------------------------------
# One bulk: from its upper edge (smallest w) to its lower edge
# --------------------------------------------------------------------------------------------

# g0, w0: G and w at the upper edge; far = A - g0; rest = kappa - w0; height = the range H of log w;
# other_gap = the edge across the gap.
Bulk = namedtuple("Bulk", "g0 far w0 rest height other_gap")
Point = namedtuple("Point", "w rest x y slope")  # rest = kappa - w, G = x - i y, slope = -dy/dlog w


@jit
def make_bulk(c, which):
    """Return bulk ``which`` (0 the lowest in y) of the curve."""
    if c.bulks == 1:
        g0, other = c.g_upper, 0.0
        height = 2.0 * math.log1p((c.g_upper - c.g_lower) / (c.A - c.g_upper))
    elif which == 0:
        # 2 A - g_gap2 - g_lower is the sum of the other two: no cancellation at small noise
        g0, other = c.g_gap2, c.g_gap1
        height = 2.0 * math.log1p((c.g_upper + c.g_gap1) / (c.g_gap2 - c.A))
    else:
        g0, other = c.g_upper, c.g_gap2
        height = 2.0 * math.log((c.g_gap1 - c.A) / (c.A - c.g_upper))
    far = c.A - g0
    square = (1.0 - g0) * (1.0 + g0)
    if 0.0 < far < c.A * square:
        # at an edge sin(phi) the distance to A is a tan(phi): all digits of a thin bulk next to A
        far = c.a * g0 / math.sqrt(square)
        g1 = c.g_gap1
        square1 = (1.0 - g1) * (1.0 + g1)
        if c.bulks == 2 and g1 - c.A < c.A * square1:
            cos, cos1 = math.sqrt(square), math.sqrt(square1)
            sin = (far + c.a * g1 / cos1) * (g0 + g1) / (g1 * cos + g0 * cos1)  # sin(phi1 - phi0)
            height = 2.0 * math.log1p(sin / (cos1 * g0))  # of (tan(phi1)/tan(phi0))^2
    return Bulk(g0, far, far * far, g0 * (2.0 * c.A - g0), height, other)


@jit
def arc_point(c, b, eta):
    """Return the pair of the bulk at log w = log w0 + eta."""
    e = math.expm1(eta)
    d = b.w0 * e
    w = b.w0 + d
    rho = c.rho
    far = w + rho
    q = 1.0 / (far * (b.w0 + rho))
    # differences to the edge, where |G|^2 = (Re G)^2 and w = (A - Re G)^2
    dx = -0.5 * d * (w * b.w0 + rho * (w + b.w0 + c.less)) * q / c.A
    y2 = rho * d * q - dx * (2.0 * b.g0 + dx)
    if b.w0 < b.g0 * b.g0:  # the same around A, to which G is nearer than to 0
        y2 = d + dx * (2.0 * b.far - dx)
    slope = w * (w * (w + 2.0 * rho) + rho * c.less) / (far * far * c.A) + rho * c.A / w
    return Point(w, b.rest - d, b.g0 + dx, math.sqrt(max(y2, 0.0)), slope)


@jit
def eigenvalue(c, z):
    """Return y in units of sqrt(s)."""
    return 2.0 * z.x + c.rho * c.A / z.w


@jit
def _logs(c, z):
    """Return rho (e - log(1 + e)) + log(1 + rho/w), 1 + e = kappa/w: see `factor_information`."""
    e = z.rest / z.w
    if abs(e) > _SERIES:
        excess = e - math.log(c.kappa / z.w)
    else:
        total = 0.0
        for k in range(_TERMS, 1, -1):
            total = total * -e + 1.0 / k
        excess = total * e * e
    return c.rho * excess + math.log1p(c.rho / z.w)


@jit
def _potential(c, z):
    """Return int log|y - y'| over the law at a point of a bulk, in units of sqrt(s)."""
    return z.x * z.x - 0.5 + 0.5 * _logs(c, z)


# --------------------------------------------------------------------------------------------
# Panels: Gauss-Legendre in x, log w = log w0 + H sin^2(x/2)
# --------------------------------------------------------------------------------------------


@jit
def _x_plane(eta, height):
    return cmath.acos(1.0 - eta * (2.0 / height))


@jit
def make_panels(c, b, ends):
    """Fill ``ends`` (k, 2) with panels of [0, pi] that keep every singularity at its distance.

    They are the branch points at a neck or across a gap, and the pole w = -rho.
    """
    near = np.empty(3, np.complex128)
    start = math.log(b.w0)
    if c.bulks == 2:
        near[0] = _x_plane(complex(2.0 * math.log(abs(b.other_gap - c.A)) - start), b.height)
        near[1] = near[0]
    else:
        place = cmath.log((c.g_neck - c.A) ** 2) - start
        near[0] = _x_plane(place, b.height)
        near[1] = _x_plane(place.conjugate(), b.height)
    near[2] = _x_plane(complex(math.log(c.rho) - start, math.pi), b.height)
    todo = np.empty((_PANELS, 2))
    todo[0, 0], todo[0, 1] = 0.0, math.pi
    k, count = 1, 0
    while k > 0:
        k -= 1
        left, right = todo[k, 0], todo[k, 1]
        length = right - left
        split = b.height * (math.sin(0.5 * right) ** 2 - math.sin(0.5 * left) ** 2) > _SPAN
        for i in range(3):
            close = abs(near[i] - left) + abs(near[i] - right) < _ELLIPSE * length
            if close and (i == 2 or length > _NECK):
                split = True
        if split and k + 2 < _PANELS and k + 2 + count < _PANELS:
            middle = 0.5 * (left + right)
            todo[k, 0], todo[k, 1] = middle, right
            todo[k + 1, 0], todo[k + 1, 1] = left, middle
            k += 2
        else:
            ends[count, 0], ends[count, 1] = left, right
            count += 1
    return count


@jit
def curve_sums(c, nodes, weights, with_logs, sums):
    """Fill ``sums`` with pi times the integrals of the density over the bulks.

    MASS of 1, CUBE of (Im G)^2, GAIN of (kappa/w - 1)^2, ERROR of Re G (1/w - 1/(1 + A^2)), LOGS of
    `_logs`; returns the number of nodes.
    """
    middle = 1.0 + c.A * c.A  # w on the bulk of the noise below a thin signal, where G = -+ i
    sums[:] = 0.0
    ends = np.empty((_PANELS, 2))
    used = 0
    for which in range(c.bulks):
        b = make_bulk(c, which)
        count = make_panels(c, b, ends)
        used += count * nodes.size
        for k in range(count):
            mid, half = 0.5 * (ends[k, 0] + ends[k, 1]), 0.5 * (ends[k, 1] - ends[k, 0])
            for j in range(nodes.size):
                sin = math.sin(0.5 * (mid + half * nodes[j]))
                z = arc_point(c, b, b.height * sin * sin)
                eta = half * weights[j] * b.height * sin * math.sqrt((1.0 - sin) * (1.0 + sin))
                density = z.y * eta * z.slope
                sums[MASS] += density
                sums[CUBE] += density * z.y * z.y
                sums[GAIN] += density * (z.rest / z.w) ** 2
                sums[ERROR] += density * z.x * (middle - z.w) / (middle * z.w)
                if with_logs:
                    sums[LOGS] += density * _logs(c, z)
    return used


# --------------------------------------------------------------------------------------------
# Mmse, overlap, deficit, information
# --------------------------------------------------------------------------------------------


@jit
def factor_mmse(rho, s, nodes, weights, sums):
    """Return (mmse, 1 - mmse, 1 - mmse/s), each to relative precision where it is small.

    ``1 - mmse/s = (4 pi^2/3) s int density^3 dy`` and ``1 - mmse``, the variance of the denoised
    eigenvalues, are integrals of positive functions.
    """
    if s < _TINY:
        slope = strong_threshold(rho)
        return slope * s, 1.0, (1.0 - rho) ** 2 if rho < 1.0 else 0.0
    if s == np.inf:
        return 1.0, 0.0, 1.0
    if rho < _THIN:  # r outliers that do not interact
        n = s * rho
        # noise hides them from n = 1 on, over a share rho^(1/3) of it
        least = 1.0 / (1.0 + s) / max(abs(1.0 - 1.0 / n), rho ** (1.0 / 3.0)) if n > 0.5 else 0.0
        if n >= 1.0:
            return 1.0 - least, least, 1.0 - (1.0 - least) / s
        return n * (2.0 - n), max((1.0 - n) ** 2, least), 1.0 - rho * (2.0 - n)
    if rho > _HUGE or s * rho > _HUGE:
        return s / (1.0 + s), 1.0 / (1.0 + s), s / (1.0 + s)
    c = make_curve(rho, s)
    curve_sums(c, nodes, weights, False, sums)
    return _errors(c, sums)


@jit
def _errors(c, sums):
    """Return what `factor_mmse` does, from the sums over the curve.

    Where mmse/s is small it is the integral of the denoised eigenvalue times h = 2 Re G; a
    constant in the former, chosen such that nothing cancels, adds nothing.
    """
    rho, s = c.rho, c.s
    # the bounds are those of a matrix of independent entries and of the limit s = 0
    mmse = s * min(2.0 * rho * c.A * sums[ERROR] / math.pi, strong_threshold(rho), 1.0 / (1.0 + s))
    if s < 1.0:
        least = (1.0 - rho) ** 2 if rho < 1.0 else 0.0
        deficit = min(max(4.0 * sums[CUBE] / (3.0 * math.pi), s / (1.0 + s), least), 1.0)
        if deficit < 0.5:
            mmse = s * (1.0 - deficit)
        return mmse, 1.0 - mmse, deficit
    gain = min(max(rho * sums[GAIN] / math.pi, 1.0 / (1.0 + s)), 1.0)
    if gain < 0.5:
        mmse = 1.0 - gain
    return mmse, gain, 1.0 - mmse / s


@jit
def strong_threshold(rho):
    """Return lim mmse/s as s -> 0: the degrees of freedom of S over d^2/2."""
    return 1.0 if rho >= 1.0 else rho * (2.0 - rho)


@jit
def _excess(rho, s, nodes, weights, sums):
    """Return strong_threshold - mmse/s for rho < 1, from the smaller pair of equal difference."""
    mmse, _, deficit = factor_mmse(rho, s, nodes, weights, sums)
    if deficit > 0.5:
        return strong_threshold(rho) - mmse / s
    return deficit - (1.0 - rho) ** 2


@jit
def factor_deficit(rho, s, nodes, weights, sums):
    """Return strong_threshold - mmse/s to relative precision.

    For rho < 1 the difference loses its digits as s -> 0, where it is analytic in s with the
    scale of the noise at which the bulks meet: the ratio to s is extrapolated from six noises.
    """
    if s == 0.0:
        return 0.0
    if rho < _THIN and s < np.inf:
        return rho * (s * rho) if s * rho < 1.0 else 2.0 * rho - 1.0 / s
    if rho >= 1.0 or s == np.inf:
        lack = (1.0 - rho) ** 2 if rho < 1.0 else 0.0
        return factor_mmse(rho, s, nodes, weights, sums)[2] - lack
    step = max(2e-3 * (1.0 - rho ** (1.0 / 3.0)) ** 3 / rho, _TINY)
    if s >= step:
        return max(_excess(rho, s, nodes, weights, sums), 0.0)
    total = 0.0
    for k in range(1, 7):
        weight = 1.0
        for i in range(1, 7):
            if i != k:
                weight *= (s / step - i) / (k - i)
        total += weight * _excess(rho, k * step, nodes, weights, sums) / (k * step)
    return max(s * total, 0.0)


@jit
def factor_information(rho, s, nodes, weights, sums):
    """Return lim 2 I(S; S + sqrt(s) Z)/d^2 in nats.

    It is ``1/4 - log(s)/2`` plus the logarithmic energy of the law of Y.  The potential on a pair
    is ``(Re G)^2 - 1/2 + log(s)/2 + (rho (e - log(1 + e)) + log(1 + rho/w))/2``, with
    ``1 + e = kappa/w``, and ``int density (Re G)^2 = (1 - mmse/s)/4``: what is left has no
    cancellation at small snr.
    """
    if s == 0.0:
        return np.inf
    if s == np.inf:
        return 0.0
    if rho < _THIN:
        log_snr = -math.log(s) - math.log(rho)
        return 0.5 / s if log_snr <= 0.0 else rho * log_snr + 0.5 * rho * min(s * rho, 1.0)
    if s < _TINY:
        # mmse is proportional to s from here on
        more = 0.5 * strong_threshold(rho) * (math.log(_TINY) - math.log(s))
        return factor_information(rho, _TINY, nodes, weights, sums) + more
    gaussian = 0.5 * (math.log1p(1.0 / s) if s > 1.0 else math.log1p(s) - math.log(s))
    # the first correction is of relative order 1/(rho s^2) where the signal is hidden
    if rho > _HUGE or s * rho > _HUGE or (s * rho > 2.0 and s * rho * s > 1e17):
        return gaussian
    c = make_curve(rho, s)
    curve_sums(c, nodes, weights, True, sums)
    ratio = _errors(c, sums)[0] / s
    return min(max(0.5 * sums[LOGS] / math.pi - 0.25 * ratio, 0.0), gaussian)


# --------------------------------------------------------------------------------------------
# The law: quadrature nodes, points by their eigenvalue, real points off the bulks
# --------------------------------------------------------------------------------------------


@jit
def curve_edges(c):
    """Return the edges of the bulks, increasing, as a (bulks, 2) array of eigenvalues."""
    out = np.empty((c.bulks, 2))
    root = math.sqrt(c.s)
    for which in range(c.bulks):
        b = make_bulk(c, which)
        out[which, 0] = root * eigenvalue(c, arc_point(c, b, b.height))
        out[which, 1] = root * eigenvalue(c, arc_point(c, b, 0.0))
    return out


@jit
def quadrature(rho, s, nodes, weights):
    """Return (y, weight, bulk), one row a node, by increasing y."""
    c = make_curve(rho, s)
    out = np.empty((2 * _PANELS * nodes.size, 3))
    ends = np.empty((_PANELS, 2))
    row, root = 0, math.sqrt(s)
    for which in range(c.bulks):
        b = make_bulk(c, which)
        count = make_panels(c, b, ends)
        # panels come out by increasing x, which is decreasing y
        for k in range(count - 1, -1, -1):
            mid, half = 0.5 * (ends[k, 0] + ends[k, 1]), 0.5 * (ends[k, 1] - ends[k, 0])
            for j in range(nodes.size - 1, -1, -1):
                x = mid + half * nodes[j]
                z = arc_point(c, b, b.height * math.sin(0.5 * x) ** 2)
                step = 0.5 * half * weights[j] * b.height * math.sin(x)
                out[row, 0] = root * eigenvalue(c, z)
                out[row, 1] = z.y * z.slope * step / math.pi
                out[row, 2] = which
                row += 1
    return out[:row].copy()


@jit
def locate(c, b, y):
    """Return log(w/w0) where the bulk passes the eigenvalue y (in units of sqrt(s))."""
    # Newton in x, in which y is smooth also at the edges
    lo, hi = 0.0, math.pi
    x = 0.5 * math.pi
    for _ in range(100):
        sin = math.sin(0.5 * x)
        z = arc_point(c, b, b.height * sin * sin)
        f = eigenvalue(c, z) - y
        if f > 0.0:
            lo = x
        else:
            hi = x
        new = x + f / (z.slope * 0.5 * b.height * math.sin(x))
        if not lo <= new <= hi:
            new = 0.5 * (lo + hi)
        done = abs(new - x) <= 4e-16 * x or hi - lo <= 4e-16 * hi
        x = new
        if done:
            break
    return b.height * math.sin(0.5 * x) ** 2


@jit
def off_bulk(c, y, gap):
    """Return G(y) off the bulks, y in units of sqrt(s): real, and monotone on each interval.

    Above the spectrum G runs over (0, g_upper), below it over (g_lower, 0), in the gap over
    (g_gap1, g_gap2): bisection, sharpened by Newton, cannot meet a wrong branch.
    """
    if gap:
        lo, hi = c.g_gap1, c.g_gap2
    elif y > eigenvalue(c, arc_point(c, make_bulk(c, c.bulks - 1), 0.0)):
        lo, hi = 0.0, c.g_upper
    else:
        lo, hi = c.g_lower, 0.0
    G = 0.5 * (lo + hi)
    for _ in range(200):
        f = 1.0 / G + G + c.rho / (c.A - G) - y
        if f > 0.0:
            lo = G
        else:
            hi = G
        df = 1.0 - 1.0 / (G * G) + c.rho / (c.A - G) ** 2
        # Newton for 1/G, which y is close to far from the spectrum
        new = G / (1.0 + f / (df * G))
        if not lo <= new <= hi:
            new = 0.5 * (lo + hi)
        done = abs(new - G) <= 4e-16 * abs(G)
        G = new
        if done:
            break
    return G


@jit
def spectral_values(rho, s, y, edges, out):
    """Fill out (n, 4) with (density, Re g, log potential, denoised) at the eigenvalues ``y``."""
    c = make_curve(rho, s)
    first, second = make_bulk(c, 0), make_bulk(c, c.bulks - 1)
    root = math.sqrt(s)
    for i in range(y.size):
        which = -1
        for k in range(c.bulks):
            if edges[k, 0] <= y[i] <= edges[k, 1]:
                which = k
        if math.isnan(y[i]):
            out[i] = np.nan
        elif which >= 0:
            b = first if which == 0 else second
            z = arc_point(c, b, locate(c, b, y[i] / root))
            out[i, 0], out[i, 1] = z.y / (math.pi * root), z.x / root
            out[i, 2] = _potential(c, z) + 0.5 * math.log(s)
            out[i, 3] = root * c.rho * c.A / z.w
        elif abs(y[i]) == np.inf:
            out[i, 0], out[i, 1], out[i, 2], out[i, 3] = 0.0, 0.0, np.inf, y[i]
        else:
            gap = c.bulks == 2 and edges[0, 1] < y[i] < edges[1, 0]
            G = off_bulk(c, y[i] / root, gap)
            value = y[i] / root
            out[i, 0], out[i, 1] = 0.0, G / root
            out[i, 2] = (
                G * value
                - math.log(abs(G))
                + rho * math.log(abs(1.0 - G / c.A))
                - 0.5 * G * G
                - 1.0
                + 0.5 * math.log(s)
            )
            out[i, 3] = root * (1.0 / G - G + rho / (c.A - G))


# --------------------------------------------------------------------------------------------
# Array loops
# --------------------------------------------------------------------------------------------


@jit
def mmse_array(rho, s, nodes, weights, out):
    """Fill out (n, 2) with (mmse, 1 - mmse); NaN where an input is not valid."""
    sums = np.empty(5)
    for i in range(s.size):
        if 0.0 < rho[i] < np.inf and s[i] >= 0.0:
            out[i] = factor_mmse(rho[i], s[i], nodes, weights, sums)[:2]
        else:
            out[i] = np.nan


@jit
def deficit_array(rho, s, nodes, weights, out):
    """Fill out (n,) with strong_threshold - mmse/s; NaN where an input is not valid."""
    sums = np.empty(5)
    for i in range(s.size):
        if 0.0 < rho[i] < np.inf and s[i] >= 0.0:
            out[i] = factor_deficit(rho[i], s[i], nodes, weights, sums)
        else:
            out[i] = np.nan


@jit
def information_array(rho, s, nodes, weights, out):
    """Fill out (n,) with the mutual information over d^2/2; NaN where an input is not valid."""
    sums = np.empty(5)
    for i in range(s.size):
        if 0.0 < rho[i] < np.inf and s[i] >= 0.0:
            out[i] = factor_information(rho[i], s[i], nodes, weights, sums)
        else:
            out[i] = np.nan
