r"""The law of ``S + sqrt(s) Z`` for a signal S of any singular values (or eigenvalues).

With ``c = 1/beta``, ``mu`` the law of eigenvalues ``l = sigma^2`` of ``S S^T/d2`` and ``g0`` its
Stieltjes transform, the equation of Dozier and Silverstein reads

    w(z) = z A^2 + k A,     A = 1 + s c g0(z),     k = s (1 - c),     g = g0/A:

the eigenvalue ``w`` of the noisy matrix is explicit in the subordination variable ``z``.  On a
bulk ``Im w(z) = 0`` with ``Im z > 0``.  Divided by ``Im z`` this is, with ``I_j`` the integral of
``l^j/|z - l|^2`` over mu, ``p = 1 - s c I_1`` and ``q = s c I_0``,

    p^2 = q^2 |z|^2 + k q                                                               (*)

and along the curve everything is a sum of positive terms:

    w = |A|^2 p/q,   |A|^2 = (p - q|z|)^2 + 4 p q (Re sqrt z)^2,   pi w density = p Im z/(s c),
    denoised singular value = sqrt(w) (1 - p)/p.

Put ``z = (a + i b)^2``.  At fixed ``a`` the two sides of

    1 = T := s c int (|z| + l)/|z - l|^2 mu(dl) + k/(|z| + sqrt(|z|^2 + k/q)),

which is (*), cross once, since T decreases with b: the curve is a graph over ``a``, and the bulks
are where ``T(a, 0) > 1``.  On the real axis (*) is ``U = 1`` with
``U = s c I_1 + sqrt((s c z I_0)^2 + k s c I_0)``, a convex function between two neighbouring
atoms and a monotone one outside: there is at most one gap between them.

For a symmetric S of eigenvalue law mu and symmetric noise, ``w = z + s g0(z)``, the curve is
``s I_0 = 1`` over ``a = Re z``, the density ``b/(pi s)`` and the denoised eigenvalue ``s I_1``, the
mean of l with weights ``1/|z - l|^2`` (P. Biane, Indiana Univ. Math. J. 46, 705).

``a = o + t`` is kept as a distance t from an origin o in the bulk, for relative precision when
bulks are tiny.
"""

from __future__ import annotations

import cmath
import math
from collections import namedtuple

import numpy as np

from . import jit

__all__: list[str] = []

NODES, WEIGHTS = np.polynomial.legendre.leggauss(16)
_LAST = np.polynomial.legendre.legvander(NODES, 15)[:, 14:] * WEIGHTS[:, None] * [14.5, 15.5]
_NEAR = 1.535  # (sum of distances to the panel ends)/(panel length) where the 16 nodes suffice
_MASS, _CUBE = 3e-13, 1e-10  # errors of a panel: see `_is_resolved`
_SHORT = 1e-12  # panels of the angle are not cut shorter
_END = 1e-100  # distance from the end of a panel, relative, that stands for 0
_POINT = 3e-14  # error of a panel of `tabulate`, which is interpolated
_NEWTON = 3e-8  # relative Newton step after which the next one is below rounding
_SMALL = 0.05  # snr, in units of the square of the largest singular value, of the expansion
_SUM = {"reassoc", "contract", "nsz"}  # lets sums be vectorised

MASS, CUBE, GAIN, POTENTIAL = range(4)
(I0, I1, D0, D1, HR, HI) = range(6)
NODE_Y, NODE_DENSITY, NODE_HILBERT, NODE_DENOISED, NODE_STEP = range(5)  # of `tabulate`

# The law of S: atoms (sigma, its square, mass) and panels [low, high] on which the density is a
# Legendre series ``coef`` of some degree, or seen from afar 16 atoms of mass ``share`` at ``node``;
# components [left, right] of the support and the mass of those that are one atom; mean and
# variance (rectangular: 0 and the second moment).
Source = namedtuple(
    "Source",
    "symmetric sigma square mass low high coef degree node nodesquare share left right single "
    "mean variance",
)


# --------------------------------------------------------------------------------------------
# Integrals over the law of S
# --------------------------------------------------------------------------------------------


@jit
def _legendre(half, coef, degree, below, above):
    """Return the Cauchy transform, its derivative and the log transform of one panel.

    ``below = z - low`` and ``above = z - high``, Im z >= 0.  By Legendre functions of the second
    kind, whose recurrence loses what the coefficients gain while z is near.
    """
    x = 0.5 * (below + above) / half
    # on an end itself: what diverges there has no weight, or the search for an edge ends
    below = below if below != 0.0 else complex(_END * half, 0.0)
    above = above if above != 0.0 else complex(_END * half, 0.0)
    previous = 0.5 * cmath.log(below / above)
    slope = -half * half / (below * above)
    value, current = coef[0] * previous, x * previous - 1.0
    derivative, slope1 = coef[0] * slope, previous + x * slope
    log = coef[0] * ((below * cmath.log(below) - above * cmath.log(above)) / half - 2.0)
    for k in range(1, degree + 1):
        following = ((2 * k + 1) * x * current - k * previous) / (k + 1)
        value += coef[k] * current
        derivative += coef[k] * slope1
        log += coef[k] * 2.0 * (following - previous) / (2 * k + 1)
        slope, slope1 = slope1, slope + (2 * k + 1) * current
        previous, current = current, following
    return 2.0 * value / half, 2.0 * derivative / (half * half), log


@jit
def _transforms(L, k, below, above):
    """Return int f/(z - x), its derivative and int f log(z - x) over panel k, Im z >= 0."""
    length = L.high[k] - L.low[k]
    if abs(below) + abs(above) < _NEAR * length:
        return _legendre(0.5 * length, L.coef[k], L.degree[k], below, above)
    value, derivative, log = 0j, 0j, 0j
    for j in range(16 * k, 16 * k + 16):
        distance = below - (L.node[j] - L.low[k])
        inverse = 1.0 / distance
        value += L.share[j] * inverse
        derivative -= L.share[j] * inverse * inverse
        log += L.share[j] * cmath.log(distance)
    return value, derivative, log


@jit(fastmath=_SUM)
def _add_rectangular(sigma, square, mass, o, t, B, z):
    a, b = o + t, math.sqrt(B)
    i0, i1, d0, d1, hr, hi = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for j in range(sigma.size):
        minus, plus = (o - sigma[j]) + t, a + sigma[j]
        e, f = minus * minus + B, plus * plus + B
        inverse = 1.0 / (e * f)
        m = mass[j] * inverse
        n = m * (e + f) * inverse
        re, im = minus * plus - B, b * (minus + plus)
        i0 += m
        i1 += m * square[j]
        d0 -= n
        d1 -= n * square[j]
        hr -= m * inverse * (re * re - im * im)
        hi += m * inverse * 2.0 * re * im
    z[I0] += i0
    z[I1] += i1
    z[D0] += d0
    z[D1] += d1
    z[HR] += hr
    z[HI] += hi


@jit(fastmath=_SUM)
def _add_symmetric(sigma, mass, o, t, B, z):
    b = math.sqrt(B)
    i0, i1, d0, hr, hi = 0.0, 0.0, 0.0, 0.0, 0.0
    for j in range(sigma.size):
        minus = (o - sigma[j]) + t
        inverse = 1.0 / (minus * minus + B)
        m = mass[j] * inverse
        n = m * inverse
        i0 += m
        i1 -= m * (minus - t)
        d0 -= n
        hr -= n * (minus * minus - B)
        hi += n * 2.0 * minus * b
    z[I0] += i0
    z[I1] += i1
    z[D0] += d0
    z[HR] += hr
    z[HI] += hi


@jit
def _is_near(L, k, o, t, b):
    """Tell whether a + i b or its mirror image is too near to panel k for its nodes."""
    limit, a = _NEAR * (L.high[k] - L.low[k]), o + t
    below, above = (o - L.low[k]) + t, (o - L.high[k]) + t
    if math.hypot(below, b) + math.hypot(above, b) < limit:
        return True
    return (not L.symmetric) and math.hypot(a + L.low[k], b) + math.hypot(a + L.high[k], b) < limit


@jit
def _add_near(L, k, o, t, B, z):
    """Add panel k by its transforms."""
    b, a = math.sqrt(B), o + t
    below, above = complex((o - L.low[k]) + t, b), complex((o - L.high[k]) + t, b)
    value, slope, _ = _transforms(L, k, below, above)
    if L.symmetric:
        i0 = -value.imag / b if B > 0.0 else -slope.real
        z[I0] += i0
        z[I1] += t * i0 - value.real
        z[D0] += 0.5 * (-slope.real - i0) / B if B > 0.0 else 0.0
        z[HR] += slope.real
        z[HI] += slope.imag
        return
    mirror_below, mirror_above = complex(-a - L.low[k], b), complex(-a - L.high[k], b)
    value2, slope2, _ = _transforms(L, k, mirror_below, mirror_above)
    # z g0(z^2), at omega = a + i b
    value = 0.5 * (value - value2.conjugate())
    slope = 0.5 * (slope + slope2.conjugate())
    R = a * a + B
    minus = value.real / a if a > 1e-9 * b else slope.real
    plus = -value.imag / b if b > 0.0 else -slope.real
    z[I0] += 0.5 * (plus + minus) / R
    z[I1] += 0.5 * (plus - minus)
    if b > 0.0 and a > 0.0:
        dminus = -0.5 * slope.imag / (a * b)
        dplus = 0.5 * (-slope.real - plus) / B
        z[D0] += 0.5 * ((dplus + dminus) - (plus + minus) / R) / R
        z[D1] += 0.5 * (dplus - dminus)
    omega = complex(a, b)
    h = 0.5 * (slope - value / omega) / (omega * omega)
    z[HR] += h.real
    z[HI] += h.imag


@jit
def _add_panels(L, o, t, B, z):
    """Add all panels: near ones by their transforms, runs of others as atoms."""
    start, n, b = 0, L.low.size, math.sqrt(B)
    for k in range(n + 1):
        if k == n or _is_near(L, k, o, t, b):
            far = slice(16 * start, 16 * k)
            if k > start and L.symmetric:
                _add_symmetric(L.node[far], L.share[far], o, t, B, z)
            elif k > start:
                _add_rectangular(L.node[far], L.nodesquare[far], L.share[far], o, t, B, z)
            if k < n:
                _add_near(L, k, o, t, B, z)
            start = k + 1


@jit
def _integrals(L, o, t, B, z):
    """Fill z with I0, I1, their derivatives in B = b^2 and g0'(z) at a = o + t.

    For a symmetric S, I1 is the integral of (l - o)/|z - l|^2.
    """
    z[:] = 0.0
    if L.symmetric:
        _add_symmetric(L.sigma, L.mass, o, t, B, z)
    else:
        _add_rectangular(L.sigma, L.square, L.mass, o, t, B, z)
    if L.low.size:
        _add_panels(L, o, t, B, z)


@jit
def _transforms_at(L, o, t):
    """Return `transforms` at omega = o + t, with the precision of distances from o."""
    omega = o + t
    value, slope, log = 0j, 0j, 0j
    if L.symmetric:
        for j in range(L.sigma.size):
            minus = (o - L.sigma[j]) + t
            inverse = 1.0 / minus
            value += L.mass[j] * inverse
            slope -= L.mass[j] * inverse * inverse
            log += L.mass[j] * cmath.log(minus)
        for k in range(L.low.size):
            v, d, p = _transforms(L, k, (o - L.low[k]) + t, (o - L.high[k]) + t)
            value, slope, log = value + v, slope + d, log + p
        return value, slope, log
    for j in range(L.sigma.size):
        minus, plus = (o - L.sigma[j]) + t, omega + L.sigma[j]
        inverse = 1.0 / (minus * plus)
        value += L.mass[j] * inverse
        slope -= L.mass[j] * inverse * inverse
        log += L.mass[j] * (cmath.log(minus) + cmath.log(plus))
    mirror = complex(-omega.real, omega.imag)
    for k in range(L.low.size):
        v, d, p = _transforms(L, k, (o - L.low[k]) + t, (o - L.high[k]) + t)
        v2, d2, p2 = _transforms(L, k, mirror - L.low[k], mirror - L.high[k])
        v, d = 0.5 * (v - v2.conjugate()), 0.5 * (d + d2.conjugate())
        value += v / omega
        slope += 0.5 * (d - v / omega) / (omega * omega)
        # log(-omega - x) is log(omega + x) up to its imaginary part
        log += p + p2.conjugate()
    return value, slope, log


@jit
def transforms(L, omega):
    """Return g0, g0' and the log potential of mu, in z = omega^2 (z = omega when symmetric).

    Re omega >= 0 (any when symmetric) and Im omega >= 0.
    """
    return _transforms_at(L, 0.0, omega)


# --------------------------------------------------------------------------------------------
# The curve over a
# --------------------------------------------------------------------------------------------


@jit
def _height(L, s, c, o, t, guess, z):
    """Return B = b^2 of the curve at a = o + t, 0 off the bulks, with z evaluated there.

    Newton for 1/T, which for the sum alone is increasing and concave in B, inside a bracket.
    """
    k, a = s * (1.0 - c), o + t
    lo, hi, B = 0.0, np.inf, guess
    for _ in range(200):
        _integrals(L, o, t, B, z)
        if L.symmetric:
            T, dT = s * z[I0], s * z[D0]
        else:
            R = a * a + B
            T = s * c * (R * z[I0] + z[I1])
            dT = s * c * (z[I0] + R * z[D0] + z[D1])
            if k > 0.0:
                root = math.sqrt(R * R + k / (s * c * z[I0]))
                droot = (R - 0.5 * k * z[D0] / (s * c * z[I0] * z[I0])) / root
                T += k / (root + R)
                dT -= k * (droot + 1.0) / (root + R) ** 2
        # T is infinite on an atom or in a density, where b > 0
        f = 1.0 / T - 1.0
        if f < 0.0:
            lo = B
        else:
            hi = B
        if hi == 0.0:
            return 0.0
        new = B + f * T * T / dT if dT < 0.0 else np.nan
        newton = lo <= new <= hi
        if not newton:
            if hi == np.inf:
                new = 4.0 * B + 1e-3 * s * math.sqrt(c)
            elif lo > 0.0:
                new = math.sqrt(lo * hi)
            else:
                new = 0.01 * hi
        step = abs(new - B)
        B = new
        if step <= (_NEWTON if newton else 4e-16) * B or B < 1e-300:
            _integrals(L, o, t, B, z)
            break
    return B


# B = b^2 and its slope, w (the eigenvalue itself when symmetric), pi times the density of w,
# dw/dt, the shrinkage (1 - p)/p of a singular value or the denoised eigenvalue less the mean.
Point = namedtuple("Point", "B dB w density slope shrunk")


@jit
def _point(L, s, c, o, t, B, z):
    """Return the point of the curve at a = o + t, whose integrals are in z."""
    b, a = math.sqrt(B), o + t
    h = complex(z[HR], z[HI])
    if L.symmetric:
        w, density = o + 2.0 * t - s * z[I1], b / s
        shrunk = (o - L.mean) + s * z[I1]
        dw = 1.0 + s * h
    else:
        k, R = s * (1.0 - c), a * a + B
        p, q = 1.0 - s * c * z[I1], s * c * z[I0]
        gap = k / (math.sqrt(R * R + k / q) + R)  # p - q R
        size = gap * gap + 4.0 * p * q * a * a
        w = p * size / q
        x, y = a * a - B, 2.0 * a * b
        density = q * y / (s * c * size) if size > 0.0 else 0.0
        shrunk = s * c * z[I1] / p
        A = complex(p + q * x, -q * y)
        dw = 2.0 * complex(a, b) * (A * A + (2.0 * complex(x, y) * A + k) * s * c * h)
    if dw.real > 0.0 and b > 0.0:
        slope = abs(dw) ** 2 / dw.real
        db = -dw.imag / dw.real
    else:
        slope, db = 0.0, 0.0
    return Point(B, 2.0 * b * db, w, density, slope, shrunk)


@jit
def _excess(L, s, c, o, t, z):
    """Return 1/sqrt(U) - 1 at a = o + t on the real axis: positive off the bulks."""
    _integrals(L, o, t, 0.0, z)
    if L.symmetric:
        U = s * z[I0]
    else:
        R = (o + t) ** 2
        U = s * c * (z[I1] + math.sqrt((R * z[I0]) ** 2 + (1.0 / c - 1.0) * z[I0]))
    # inside a density the transform is not that of positive terms
    return 1.0 / math.sqrt(U) - 1.0 if U > 0.0 and U < np.inf else (-1.0 if U != 0.0 else np.inf)


@jit
def _edge(L, s, c, o, outside, value, z):
    """Return the edge between t = 0, an end of the support, and t = outside."""
    x0, f0, x1, f1 = 0.0, -1.0, outside, value
    side = 0
    for i in range(200):
        # Illinois: exact at once next to a single atom; every third step a bisection
        x = x1 - f1 * (x1 - x0) / (f1 - f0) if i % 3 != 2 else 0.5 * (x0 + x1)
        f = _excess(L, s, c, o, x, z)
        if abs(f) <= 1e-15 or abs(x1 - x0) <= 4e-16 * abs(x):
            return x
        if f > 0.0:
            x1, f1 = x, f
            f0 *= 0.5 if side == 1 else 1.0
            side = 1
        else:
            x0, f0 = x, f
            f1 *= 0.5 if side == -1 else 1.0
            side = -1
    return x1


@jit
def _gap(L, s, c, i, z):
    """Return (t, excess) of a point of the gap behind component i, seen from its right end.

    (0, -1) if there is none.  Golden section for the minimum of the convex U, left as soon as it
    is below 1 or a chord shows that it never is.
    """
    left, right = L.right[i], L.left[i + 1]
    length = right - left
    m0, m1 = L.single[i] ** (1.0 / 3.0), L.single[i + 1] ** (1.0 / 3.0)
    strength = s if L.symmetric else 0.5 * s * c
    if strength * (m0 + m1) ** 3 >= length * length:
        return 0.0, -1.0
    xl, ul, xr, ur = 0.0, np.inf, length, np.inf
    xm = length * (m0 / (m0 + m1) if m0 > 0.0 and m1 > 0.0 else 0.5)
    f = _excess(L, s, c, left, xm, z)
    um = 1.0 / (1.0 + f) ** 2
    for _ in range(80):
        if f > 0.0:
            return xm, f
        floor = min(um - (ul - um) / (xm - xl) * (xr - xm), um - (ur - um) / (xr - xm) * (xm - xl))
        if floor > 1.0 or xr - xl < 1e-9 * length:
            break
        to_right = xr - xm > xm - xl
        x = xm + 0.382 * (xr - xm if to_right else xl - xm)
        f = _excess(L, s, c, left, x, z)
        u = 1.0 / (1.0 + f) ** 2
        if u < um:
            if to_right:
                xl, ul = xm, um
            else:
                xr, ur = xm, um
            xm, um = x, u
        elif to_right:
            xr, ur = x, u
        else:
            xl, ul = x, u
    return 0.0, -1.0


@jit
def _reach(L, s, c, end):
    """Return how far from the end of the support the edge of a bulk is, roughly."""
    if L.symmetric:
        return math.sqrt(s)
    # |z - l|^2 is s c |z| or else, where columns average the noise, s^2 c
    wide = s * math.sqrt(c)
    return math.sqrt(s * c) + wide / (end + math.sqrt(wide))


@jit
def make_bulks(L, s, c):
    """Return the bulks as rows (origin, t at the lower edge, t at the upper edge, central).

    A central bulk (rectangular) is one half of a bulk symmetric in a: its lower edge is at a = 0.
    """
    z = np.empty(6)
    n = L.left.size
    out = np.empty((n, 4))
    count, first = 0, 0
    # lower edge of the first bulk
    start = -_reach(L, s, c, 0.0)
    if L.symmetric:
        f = _excess(L, s, c, L.left[0], start, z)
        while f <= 0.0:
            start *= 2.0
            f = _excess(L, s, c, L.left[0], start, z)
        lower, central = _edge(L, s, c, L.left[0], start, f, z), False
    else:
        f = -1.0
        if L.left[0] > 0.0:
            f = _excess(L, s, c, L.left[0], -L.left[0], z)
        central = f <= 0.0
        lower = 0.0 if central else _edge(L, s, c, L.left[0], -L.left[0], f, z)
    for i in range(n):
        if i + 1 < n:
            t, f = _gap(L, s, c, i, z)
            if f <= 0.0:
                continue
            upper = _edge(L, s, c, L.right[i], t, f, z)
        else:
            t = _reach(L, s, c, L.right[i])
            f = _excess(L, s, c, L.right[i], t, z)
            while f <= 0.0:
                t *= 2.0
                f = _excess(L, s, c, L.right[i], t, z)
            upper = _edge(L, s, c, L.right[i], t, f, z)
        o = 0.0 if central else L.left[first]
        upper += L.right[i] - o
        out[count, 0], out[count, 1], out[count, 2] = o, -upper if central else lower, upper
        out[count, 3] = 1.0 if central else 0.0
        count += 1
        if i + 1 < n:
            t = (L.right[i] - L.left[i + 1]) + t
            lower, central, first = _edge(L, s, c, L.left[i + 1], t, f, z), False, i + 1
    return out[:count].copy()


# --------------------------------------------------------------------------------------------
# Quadrature: t = t1 + (t2 - t1) sin^2(x/2) on each bulk, panels of x until they are resolved
# --------------------------------------------------------------------------------------------


@jit
def _place(bulk, x):
    """Return t and dt/dx; the half of a central bulk is t = t2 sin x, 0 < x < pi/2."""
    if bulk[3]:
        return bulk[2] * math.sin(x), bulk[2] * math.cos(x)
    width = bulk[2] - bulk[1]
    return bulk[1] + width * math.sin(0.5 * x) ** 2, 0.5 * width * math.sin(x)


@jit
def _guess(old, t0, t, reach):
    """Return B at t from the point before, the noise reaching ``s sqrt(c)`` in z at most."""
    if old.B <= 0.0:
        return 0.01 * reach
    guess = old.B + old.dB * (t - t0)
    return min(max(guess, 0.3 * old.B), 3.0 * old.B)


@jit
def _panel(L, s, c, bulk, left, right, nodes, weights, old, rows, z):
    """Fill rows with (w, weight, pi density, shrunk, t, B) at the nodes of a panel of x.

    Returns the last point.
    """
    o = bulk[0]
    mid, half = 0.5 * (left + right), 0.5 * (right - left)
    before, _ = _place(bulk, left)
    for j in range(nodes.size):
        t, dt = _place(bulk, mid + half * nodes[j])
        B = _height(L, s, c, o, t, _guess(old, before, t, s * math.sqrt(c)), z)
        old, before = _point(L, s, c, o, t, B, z), t
        rows[j, 0] = old.w
        rows[j, 1] = old.density * old.slope * dt * half * weights[j]
        rows[j, 1] /= math.pi
        rows[j, 2], rows[j, 3] = old.density, old.shrunk
        rows[j, 4], rows[j, 5] = t, B
    return old


@jit
def _is_resolved(L, rows):
    """Tell whether the 16 nodes of a panel suffice.

    The rule is exact to twice the degree that they resolve: where Legendre coefficients fall
    geometrically its error is the square of the last ones.  A weak but sharp feature falls slower
    than the rest, hence the power 3/2.  The cube has three times the frequencies of the density
    and the same singularities.
    """
    mass = 0.0
    for j in range(16):
        mass += rows[j, 1]
    for cubed in range(2):
        top, a, b = 0.0, 0.0, 0.0
        for j in range(16):
            f = rows[j, 1] / WEIGHTS[j]
            if cubed:
                f *= rows[j, 2] ** 2 * (1.0 if L.symmetric else rows[j, 0])
            top = max(top, abs(f))
            a += _LAST[j, 0] * f
            b += _LAST[j, 1] * f
        tail = (abs(a) + abs(b)) / top if top > 0.0 else 0.0
        if mass * (tail * tail if cubed else tail * math.sqrt(tail)) > (_CUBE if cubed else _MASS):
            return False
    return True


@jit
def _potential(L, s, c, o, t, B):
    """Return int log|w - w'| over the law of w at a point of the curve, for origin o."""
    a, b = o + t, math.sqrt(B)
    g, _, log = _transforms_at(L, o, complex(t, b))
    if L.symmetric:
        return (log + 0.5 * s * g * g).real
    omega = complex(a, b)
    A = 1.0 + s * c * g
    value = log + s * c * (omega * omega * g * g)
    if c < 1.0:
        value += (1.0 / c - 1.0) * (A - 1.0 - cmath.log(A))
    return value.real


@jit
def _first_panels(todo, top, c, central):
    """Fill a stack with the first panels of [0, top], the lowest last; returns their number.

    They shrink towards a nearly hard edge, which 16 nodes do not see: it is of size 1 - sqrt(c).
    """
    k = 0
    if central and c < 1.0:
        size = 0.5 * (1.0 - c)
        while top > 8.0 * size and k < 20:
            todo[k, 0], todo[k, 1] = 0.125 * top, top
            top *= 0.125
            k += 1
    todo[k, 0], todo[k, 1] = 0.0, top
    return k + 1


@jit
def trace(L, s, c, bulks, with_potential, sums):
    """Fill ``sums`` with integrals over the law of w; returns the panels (left, right, bulk).

    MASS of 1, CUBE of (pi density)^2 w (without w when symmetric), GAIN of the square of what is
    denoised, POTENTIAL of the log potential.
    """
    sums[:] = 0.0
    z, rows = np.empty(6), np.empty((16, 6))
    todo = np.empty((64, 2))
    cap = 512 + 32 * L.left.size
    panels = np.empty((cap, 3))
    count = 0
    for i in range(bulks.shape[0]):
        old = Point(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
        k = _first_panels(todo, 0.5 * math.pi if bulks[i, 3] else math.pi, c, bulks[i, 3] > 0.0)
        while k > 0:
            k -= 1
            left, right = todo[k, 0], todo[k, 1]
            last = _panel(L, s, c, bulks[i], left, right, NODES, WEIGHTS, old, rows, z)
            split = right - left > _SHORT and not _is_resolved(L, rows)
            if split and k + 2 < 64 and count + k + bulks.shape[0] - i < cap:
                middle = 0.5 * (left + right)
                todo[k, 0], todo[k, 1] = middle, right
                todo[k + 1, 0], todo[k + 1, 1] = left, middle
                k += 2
                continue
            old = last
            panels[count, 0], panels[count, 1], panels[count, 2] = left, right, i
            count += 1
            for j in range(16):
                w, weight = rows[j, 0], rows[j, 1]
                unit = 1.0 if L.symmetric else w
                sums[MASS] += weight
                sums[CUBE] += weight * rows[j, 2] ** 2 * unit
                sums[GAIN] += weight * rows[j, 3] ** 2 * unit
                if with_potential:
                    level = _potential(L, s, c, bulks[i, 0], rows[j, 4], rows[j, 5])
                    sums[POTENTIAL] += weight * level
    return panels[:count].copy()


@jit
def quadrature(L, s, c, bulks, panels, nodes, weights):
    """Return rows (w, weight, pi density, shrunk, t, B), a rule on each panel."""
    n = nodes.size
    out, z = np.empty((panels.shape[0] * n, 6)), np.empty(6)
    old = Point(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    for k in range(panels.shape[0]):
        bulk = bulks[int(panels[k, 2])]
        rows = out[k * n : (k + 1) * n]
        old = _panel(L, s, c, bulk, panels[k, 0], panels[k, 1], nodes, weights, old, rows, z)
    return out


# --------------------------------------------------------------------------------------------
# The law as a table: what integrals of rho, y and h from any threshold on are made from
# --------------------------------------------------------------------------------------------


@jit
def _re_g0(L, o, t, B):
    """Return Re g0 at z = (a + i b)^2 (rectangular), from distances to the atoms."""
    a, b = o + t, math.sqrt(B)
    total = 0.0
    for j in range(L.sigma.size):
        minus, plus = (o - L.sigma[j]) + t, a + L.sigma[j]
        total += L.mass[j] * (minus * plus - B) / ((minus * minus + B) * (plus * plus + B))
    for k in range(L.low.size):
        if not _is_near(L, k, o, t, b):
            for j in range(16 * k, 16 * k + 16):
                minus, plus = (o - L.node[j]) + t, a + L.node[j]
                part = (minus * plus - B) / ((minus * minus + B) * (plus * plus + B))
                total += L.share[j] * part
            continue
        below, above = complex((o - L.low[k]) + t, b), complex((o - L.high[k]) + t, b)
        value, _, _ = _transforms(L, k, below, above)
        mirror, _, _ = _transforms(L, k, complex(-a - L.low[k], b), complex(-a - L.high[k], b))
        # omega g0(omega^2)
        value = 0.5 * (value - mirror.conjugate())
        total += (a * value.real + b * value.imag) / (a * a + B)
    return total


@jit
def _curve_rows(L, s, c, bulk, left, right, old, rows, z):
    """Fill rows with the columns of `tabulate` on a panel of the angle; returns the last point.

    The Hilbert transform is ``y h = 1 - c + 2 c w Re g`` with
    ``w Re g = p (I0 (Im z)^2 + (Re z + p/q) Re g0)``, in which nothing cancels at small noise.
    """
    o = bulk[0]
    mid, half = 0.5 * (left + right), 0.5 * (right - left)
    # a central bulk is traced over half of its angle
    unit = 0.5 if bulk[3] else 1.0
    before, _ = _place(bulk, unit * left)
    for j in range(NODES.size):
        t, dt = _place(bulk, unit * (mid + half * NODES[j]))
        B = _height(L, s, c, o, t, _guess(old, before, t, s * math.sqrt(c)), z)
        old, before = _point(L, s, c, o, t, B, z), t
        a, k = o + t, s * (1.0 - c)
        p, q, R = 1.0 - s * c * z[I1], s * c * z[I0], a * a + B
        # p/q - |z|
        rest = k / (q * (math.sqrt(R * R + k / q) + R))
        w_re_g = p * (4.0 * a * a * B * z[I0] + (2.0 * a * a + rest) * _re_g0(L, o, t, B))
        y = math.sqrt(old.w)
        rows[j, NODE_Y] = y
        rows[j, NODE_STEP] = old.slope * dt * unit
        rows[j, NODE_DENSITY] = old.density * rows[j, NODE_STEP] / math.pi
        rows[j, NODE_HILBERT] = (1.0 - c + 2.0 * c * w_re_g) / y
        rows[j, NODE_DENOISED] = y * old.shrunk
    return old


@jit
def _is_smooth(rows, half):
    """Tell whether the polynomials through the nodes of a panel are as good as the columns."""
    mass = 0.0
    for j in range(NODES.size):
        mass += half * WEIGHTS[j] * rows[j, NODE_DENSITY]
    for column in range(NODE_STEP):
        top, a, b = 0.0, 0.0, 0.0
        for j in range(NODES.size):
            f = rows[j, column]
            top = max(top, abs(f))
            a += _LAST[j, 0] * f
            b += _LAST[j, 1] * f
        if mass * (abs(a) + abs(b)) > _POINT * top:
            return False
    return True


@jit
def _grown(bulk, panels, nodes):
    """Return copies of twice the length."""
    n = bulk.size
    more, wider = np.empty(2 * n, np.int64), np.empty((2 * n, 2))
    longer = np.empty((2 * n, 16, 5))
    more[:n], wider[:n], longer[:n] = bulk, panels, nodes
    return more, wider, longer


@jit
def _plain_row(sigma, density, s, stretch, row):
    """Fill a row of `tabulate` for c = 0."""
    y = math.sqrt(sigma * sigma + s)
    row[NODE_Y], row[NODE_DENSITY], row[NODE_HILBERT] = y, density, 1.0 / y
    row[NODE_DENOISED], row[NODE_STEP] = sigma * sigma / y, 2.0 * sigma * stretch


@jit
def _density_at(L, k, sigma):
    """Return the density of S at a point of panel k."""
    half = 0.5 * (L.high[k] - L.low[k])
    x = (sigma - 0.5 * (L.low[k] + L.high[k])) / half
    total, previous, current = L.coef[k, 0], 1.0, x
    for j in range(1, L.coef.shape[1]):
        total += L.coef[k, j] * current
        previous, current = current, ((2 * j + 1) * x * current - j * previous) / (j + 1)
    return total / half


@jit
def _tabulate_columns(L, s):
    """Return `tabulate` for c = 0, where ``y^2 = sigma^2 + s`` and ``h = 1/y``.

    The angle is sigma in other units.  An atom is a row without extent whose bulk is -1 and whose
    density is its mass.
    """
    stretch = L.right[-1] / math.pi
    bulk, panels, nodes = np.empty(64, np.int64), np.empty((64, 2)), np.empty((64, 16, 5))
    count, atom, which = 0, 0, 0
    for k in range(L.low.size + 1):
        left = L.low[k] if k < L.low.size else np.inf
        end = L.high[k] if k < L.low.size else np.inf
        if k > 0 and left > L.high[k - 1]:
            which += 1
        while True:
            if count == bulk.size:
                bulk, panels, nodes = _grown(bulk, panels, nodes)
            if atom < L.sigma.size and L.sigma[atom] <= left:
                bulk[count], panels[count, 0], panels[count, 1] = -1, 0.0, 0.0
                for j in range(NODES.size):
                    _plain_row(L.sigma[atom], L.mass[atom], s, stretch, nodes[count, j])
                count += 1
                atom += 1
                continue
            if not left < end:
                break
            # y bends at a distance of sqrt(s) from 0
            right = min(end, left + 0.5 * math.hypot(left, math.sqrt(s)))
            if atom < L.sigma.size:
                right = min(right, L.sigma[atom])
            bulk[count] = which
            panels[count, 0], panels[count, 1] = left / stretch, right / stretch
            for j in range(NODES.size):
                sigma = left + 0.5 * (right - left) * (1.0 + NODES[j])
                _plain_row(sigma, _density_at(L, k, sigma) * stretch, s, stretch, nodes[count, j])
            count += 1
            left = right
    return bulk[:count].copy(), panels[:count].copy(), nodes[:count].copy()


@jit
def tabulate(L, s, c):
    """Return (bulk, panels, nodes): the law at noise s > 0, cut into panels of an angle x.

    Row k of the panels, increasing, is an interval of [0, pi], which is bulk[k] as a whole.
    nodes[k] holds at its Gauss nodes, as columns: y, the density of x, h(y), the denoised value
    ``y - s h`` and ``d(y^2)/dx``.  Rectangular; for c = 0 see `_tabulate_columns`.
    """
    if c == 0.0:
        return _tabulate_columns(L, s)
    bulks = make_bulks(L, s, c)
    z, rows, todo = np.empty(6), np.empty((16, 5)), np.empty((64, 2))
    bulk, panels, nodes = np.empty(64, np.int64), np.empty((64, 2)), np.empty((64, 16, 5))
    count = 0
    cap = 1024 + 64 * L.left.size
    for i in range(bulks.shape[0]):
        old = Point(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
        k = _first_panels(todo, math.pi, c, bulks[i, 3] > 0.0)
        while k > 0:
            k -= 1
            left, right = todo[k, 0], todo[k, 1]
            last = _curve_rows(L, s, c, bulks[i], left, right, old, rows, z)
            # numbers are dense at the end a = 0 of a central bulk
            short = 1e-18 if left == 0.0 and bulks[i, 3] else _SHORT
            split = right - left > short and not _is_smooth(rows, 0.5 * (right - left))
            if split and k + 2 < 64 and count + k + bulks.shape[0] - i < cap:
                middle = 0.5 * (left + right)
                todo[k, 0], todo[k, 1] = middle, right
                todo[k + 1, 0], todo[k + 1, 1] = left, middle
                k += 2
                continue
            old = last
            if count == bulk.size:
                bulk, panels, nodes = _grown(bulk, panels, nodes)
            bulk[count], panels[count, 0], panels[count, 1] = i, left, right
            nodes[count] = rows
            count += 1
    return bulk[:count].copy(), panels[:count].copy(), nodes[:count].copy()


@jit
def parting_noise(L, c):
    """Return a noise below which the zeros of S have a bulk of their own, 0 if there is none."""
    if L.left.size < 2 or L.left[0] != 0.0 or L.single[0] == 0.0:
        return 0.0
    s = L.left[1] ** 2
    if c == 0.0:
        return s
    for _ in range(200):
        first = make_bulks(L, s, c)[0]
        if first[0] + first[2] < L.left[1]:
            return s
        s *= 0.5
    return 0.0


# --------------------------------------------------------------------------------------------
# Mmse and information
# --------------------------------------------------------------------------------------------


@jit
def _origin(L, s, c, z):
    """Return R with z = -R where w = 0 (rectangular): 1 = k/R + s c int mu/(R + l)."""
    k = s * (1.0 - c)
    lo, hi = k, s
    R = s
    for _ in range(200):
        _integrals(L, 0.0, 0.0, R, z)
        T = k / R + s * c * (R * z[I0] + z[I1])
        dT = -k / (R * R) + s * c * (z[I0] + R * z[D0] + z[D1])
        f = 1.0 / T - 1.0
        if f < 0.0:
            lo = R
        else:
            hi = R
        new = R + f * T * T / dT if dT < 0.0 else np.nan
        newton = lo <= new <= hi
        if not newton:
            new = math.sqrt(lo * hi) if lo > 0.0 else 0.01 * hi
        step = abs(new - R)
        R = new
        if step <= (1e-9 if newton else 4e-16) * R or R < 1e-300:
            break
    return R


@jit
def _inner(L, s, c, z):
    """Return (1 - c) int R mu/(R + l), which is s (1 - c)^2 int rho_W dw/w."""
    if c == 1.0:
        return 0.0
    R = _origin(L, s, c, z)
    _integrals(L, 0.0, 0.0, R, z)
    return (1.0 - c) * R * (R * z[I0] + z[I1])


@jit
def deficit(L, s, c, sums, z):
    """Return (1 - mmse/s, overlap with the centred signal) for finite s > 0."""
    trace(L, s, c, make_bulks(L, s, c), False, sums)
    if L.symmetric:
        return 4.0 / 3.0 * s * sums[CUBE], sums[GAIN]
    return _inner(L, s, c, z) + 4.0 / 3.0 * c * c * s * sums[CUBE], sums[GAIN]


@jit
def mmse_array(L, c, s, out):
    """Fill out (n, 3) with (mmse, variance - mmse, 1 - mmse/s) for finite s > 0."""
    sums, z = np.empty(4), np.empty(6)
    for i in range(s.size):
        if not (s[i] > 0.0 and s[i] < np.inf):
            out[i] = np.nan
            continue
        lack, gain = deficit(L, s[i], c, sums, z)
        if s[i] < L.variance:
            mmse = s[i] * (1.0 - lack)
            out[i, 0], out[i, 1], out[i, 2] = mmse, L.variance - mmse, lack
        else:
            mmse = L.variance - gain
            out[i, 0], out[i, 1], out[i, 2] = mmse, gain, 1.0 - mmse / s[i]


@jit
def information_array(L, c, s, out):
    """Fill out (n,) with the mutual information per entry at finite noise s > 0."""
    sums, z = np.empty(4), np.empty(6)
    top = L.right[-1] if not L.symmetric else max(abs(L.left[0] - L.mean), L.right[-1] - L.mean)
    for i in range(s.size):
        if not (s[i] > 0.0 and s[i] < np.inf):
            out[i] = np.nan
            continue
        if top * top < _SMALL * s[i]:
            # half the integral of mmse over snr: the logarithms below would cancel
            total = 0.0
            for j in range(NODES.size):
                part = 0.5 + 0.5 * NODES[j]
                _, gain = deficit(L, s[i] / part, c, sums, z)
                total += WEIGHTS[j] * (L.variance - gain)
            out[i] = 0.25 * total / s[i]
            continue
        trace(L, s[i], c, make_bulks(L, s[i], c), True, sums)
        if L.symmetric:
            out[i] = sums[POTENTIAL] + 0.25 - 0.5 * math.log(s[i])
            continue
        value = 0.5 * c * sums[POTENTIAL] - 0.5 * math.log(s[i]) + 0.25
        if c < 1.0:
            R = _origin(L, s[i], c, z)
            # w = 0, where A = s (1 - c)/R
            A = s[i] * (1.0 - c) / R
            g, _, log = transforms(L, complex(0.0, math.sqrt(R)))
            level = log.real - s[i] * c * R * g.real**2
            level += (1.0 / c - 1.0) * (A - 1.0 - math.log(A))
            value += 0.5 * (1.0 - c) * level
            value += 0.25 * (1.0 - c) ** 2 / c * math.log1p(-c)
        out[i] = value - 0.25 * c * math.log(c)


# --------------------------------------------------------------------------------------------
# The law at given points
# --------------------------------------------------------------------------------------------


@jit
def _real_transforms(L, o, t, B, z):
    """Return z, g0 and g0' on the real axis: z = a^2 or -B (rectangular), a (symmetric)."""
    _integrals(L, o, t, B, z)
    if L.symmetric:
        return o + t, t * z[I0] - z[I1], -z[I0]
    R = (o + t) ** 2 + B
    if B > 0.0:
        return -R, -(R * z[I0] + z[I1]), -z[I0]
    return R, R * z[I0] - z[I1], -z[I0]


@jit
def _real_w(L, s, c, o, t, B, z):
    """Return w and its derivative in z on the real axis."""
    x, g, h = _real_transforms(L, o, t, B, z)
    if L.symmetric:
        return x + s * g, 1.0 + s * h
    A = 1.0 + s * c * g
    k = s * (1.0 - c)
    return A * (x * A + k), A * A + (2.0 * x * A + k) * s * c * h


@jit
def edges(L, s, c, bulks):
    """Return the edges w of the bulks, increasing, as a (bulks, 2) array."""
    out, z = np.empty((bulks.shape[0], 2)), np.empty(6)
    for i in range(bulks.shape[0]):
        o = bulks[i, 0]
        for j in range(2):
            if j == 0 and bulks[i, 3]:
                B = _height(L, s, c, 0.0, 0.0, 0.5 * s, z)
                out[i, j] = max(_real_w(L, s, c, 0.0, 0.0, B, z)[0], 0.0) if c < 1.0 else 0.0
            else:
                out[i, j] = _real_w(L, s, c, o, bulks[i, 1 + j], 0.0, z)[0]
    return out


@jit
def _locate(L, s, c, bulk, w, z):
    """Return (t, point) where the curve of a bulk passes w: Newton in x inside a bracket."""
    o = bulk[0]
    lo, hi = 0.0, (0.5 * math.pi if bulk[3] else math.pi)
    x = 0.5 * (lo + hi)
    t, dt = _place(bulk, x)
    old = _point(L, s, c, o, t, _height(L, s, c, o, t, 0.01 * s, z), z)
    for _ in range(100):
        f = old.w - w
        if f > 0.0:
            hi = x
        else:
            lo = x
        slope = old.slope * dt
        new = x - f / slope if slope > 0.0 else np.nan
        if not lo < new < hi:
            new = 0.5 * (lo + hi)
        done = abs(new - x) <= 1e-15 * x or hi - lo <= 4e-16 * hi
        before, x = t, new
        t, dt = _place(bulk, x)
        B = _height(L, s, c, o, t, _guess(old, before, t, s * math.sqrt(c)), z)
        old = _point(L, s, c, o, t, B, z)
        if done:
            break
    return t, old


@jit
def _off_bulk(L, s, c, bulks, i, w, z):
    """Return (o, t, B) with w(z) = w on the real axis between bulks i - 1 and i."""
    n = bulks.shape[0]
    # places on the axis: u = t from an origin when z > 0 or symmetric, else u = -sqrt(-z)
    if i == n:
        o, lo = bulks[n - 1, 0], bulks[n - 1, 2]
        hi = lo + max(math.sqrt(s), 1e-14 * abs(lo))
        while _real_w(L, s, c, o, hi, 0.0, z)[0] < w:
            hi = lo + 2.0 * (hi - lo)
    elif i > 0:
        o, hi = bulks[i, 0], bulks[i, 1]
        lo = (bulks[i - 1, 0] - o) + bulks[i - 1, 2]
    elif L.symmetric:
        o, hi = bulks[0, 0], bulks[0, 1]
        lo = hi - max(math.sqrt(s), 1e-14 * abs(hi))
        while _real_w(L, s, c, o, lo, 0.0, z)[0] > w:
            lo = hi - 2.0 * (hi - lo)
    else:
        o, lo = 0.0, -math.sqrt(_origin(L, s, c, z))
        if w < 0.0:
            hi, lo = lo, 2.0 * lo - math.sqrt(s)
            while _real_w(L, s, c, o, 0.0, lo * lo, z)[0] > w:
                lo *= 2.0
        elif bulks[0, 3]:
            hi = -math.sqrt(_height(L, s, c, 0.0, 0.0, 0.5 * s, z))
        else:
            hi = bulks[0, 0] + bulks[0, 1]
    axis = L.symmetric or i > 0
    for _ in range(200):
        u = 0.5 * (lo + hi)
        if u == lo or u == hi:
            break
        t, B = (u, 0.0) if axis or u > 0.0 else (0.0, u * u)
        if _real_w(L, s, c, o, t, B, z)[0] > w:
            hi = u
        else:
            lo = u
    u = 0.5 * (lo + hi)
    return (o, u, 0.0) if axis or u > 0.0 else (o, 0.0, u * u)


@jit
def values(L, s, c, bulks, ends, w, with_potential, out):
    """Fill out (n, 4) with density of w, Re g, log potential and what is denoised, at each w.

    Denoised is sqrt(w) times the singular value, or the eigenvalue less the mean.
    """
    z = np.empty(6)
    n = bulks.shape[0]
    for i in range(w.size):
        if math.isnan(w[i]):
            out[i] = np.nan
            continue
        if abs(w[i]) == np.inf:
            out[i, 0], out[i, 1], out[i, 2], out[i, 3] = 0.0, 0.0, np.inf, w[i]
            continue
        below = 0
        while below < n and w[i] > ends[below, 1]:
            below += 1
        if below < n and w[i] >= ends[below, 0]:
            o = bulks[below, 0]
            t, point = _locate(L, s, c, bulks[below], w[i], z)
            out[i, 0] = point.density / math.pi
            if L.symmetric:
                out[i, 1] = (w[i] - point.shrunk - L.mean) / (2.0 * s)
                out[i, 3] = point.shrunk
            else:
                out[i, 3] = w[i] * point.shrunk
                # w - k - 2 s c w Re g = w shrunk
                out[i, 1] = (1.0 - point.shrunk - s * (1.0 - c) / w[i]) / (2.0 * s * c)
            if with_potential:
                out[i, 2] = _potential(L, s, c, o, t, point.B)
            continue
        o, t, B = _off_bulk(L, s, c, bulks, below, w[i], z)
        x, g, _ = _real_transforms(L, o, t, B, z)
        out[i, 0] = 0.0
        if L.symmetric:
            out[i, 1], out[i, 3] = g, w[i] - 2.0 * s * g - L.mean
        else:
            A = 1.0 + s * c * g
            out[i, 1] = g / A
            out[i, 3] = x * A * (2.0 - A) + s * (1.0 - c) * (1.0 - A)
        if with_potential:
            out[i, 2] = _potential(L, s, c, o, t, B)


@jit
def _w_complex(L, s, c, omega):
    """Return w and dw/domega in the upper half plane."""
    g, h, _ = transforms(L, omega)
    if L.symmetric:
        return omega + s * g, 1.0 + s * h, g
    A, k = 1.0 + s * c * g, s * (1.0 - c)
    x = omega * omega
    return A * (x * A + k), 2.0 * omega * (A * A + (2.0 * x * A + k) * s * c * h), g / A


@jit
def _newton(L, s, c, target, omega):
    """Return (omega, converged): damped Newton for w(omega) = target inside the half plane."""
    w, dw, _ = _w_complex(L, s, c, omega)
    for _ in range(60):
        if abs(w - target) <= 1e-15 * abs(target):
            return omega, True
        step = (target - w) / dw
        best = abs(w - target)
        damping = 1.0
        while damping > 1e-3:
            trial = omega + damping * step
            if trial.imag > 0.0 and (L.symmetric or trial.real > 0.0):
                v, dv, _ = _w_complex(L, s, c, trial)
                if abs(v - target) < best:
                    break
            damping *= 0.5
        if damping <= 1e-3:
            return omega, best <= 1e-12 * abs(target)
        omega, w, dw = trial, v, dv
        if damping * abs(step) <= 2e-16 * abs(omega):
            return omega, True
    return omega, False


@jit
def stieltjes(L, s, c, target, out):
    """Fill out with g at points of the open upper half plane.

    Continuation from far above, where omega is known, down to the point: a step that Newton does
    not follow is halved.
    """
    scale = s + L.variance + L.mean**2 + max(abs(L.left[0]), abs(L.right[-1])) ** 2
    if L.symmetric:
        scale = math.sqrt(scale)
    for i in range(target.size):
        z = target[i]
        rise = 10.0 * scale + 10.0 * abs(z)
        top = z + 1j * rise
        omega = top if L.symmetric else cmath.sqrt(top)
        omega, good = _newton(L, s, c, top, omega)
        ratio = 0.1
        while rise > 0.0 and ratio < 0.999:
            lower = rise * ratio if rise * ratio > 1e-3 * z.imag else 0.0
            trial, good = _newton(L, s, c, z + 1j * lower, omega)
            if good:
                omega, rise = trial, lower
            else:
                ratio = math.sqrt(ratio)
        out[i] = _w_complex(L, s, c, omega)[2] if rise == 0.0 else np.nan


# --------------------------------------------------------------------------------------------
# The law of given singular values: smoothed by a kernel
# --------------------------------------------------------------------------------------------

_ROOT5 = math.sqrt(5.0)
_FAR = 60.0  # where the closed form has lost as many digits as the series in 1/x is short


@jit
def epanechnikov(x):
    """Return the Hilbert transform of Epanechnikov's kernel of variance 1 and its slope.

    ``int k(u)/(x - u) du`` with ``k(u) = 3/(4 sqrt 5) (1 - u^2/5)``, ``|u| < sqrt 5``.
    """
    if abs(x) > _FAR:
        # the moments of the kernel are 1, 1, 15/7, 125/21
        i = 1.0 / (x * x)
        value = (1.0 + i * (1.0 + i * (15.0 / 7.0 + i * (125.0 / 21.0)))) / x
        return value, -i * (1.0 + i * (3.0 + i * (75.0 / 7.0 + i * (125.0 / 3.0))))
    log = math.log(abs((_ROOT5 - x) / (_ROOT5 + x)))
    factor = 0.15 * _ROOT5 * (1.0 - x * x / 5.0)
    if factor == 0.0:
        return 0.3 * x, -np.inf
    return 0.3 * x - factor * log, 0.6 + 0.06 * _ROOT5 * x * log


@jit
def smoothed_scores(y, width, d2, h, slope):
    """Fill h(y_i) = ((d2 - d1)/y_i + sum_j (k(y_i - y_j) + k(y_i + y_j)))/d2, j != i.

    k is 1/y smoothed; ``slope`` is the derivative of h_i in y_i.
    """
    n = y.size
    for i in range(n):
        h[i] = (d2 - n) / (d2 * y[i])
        slope[i] = -h[i] / y[i]
    scale = 1.0 / (width * d2)
    for i in range(n):
        for j in range(i):
            minus, dminus = epanechnikov((y[i] - y[j]) / width)
            plus, dplus = epanechnikov((y[i] + y[j]) / width)
            h[i] += scale * (plus + minus)
            h[j] += scale * (plus - minus)
            d = scale / width * (dplus + dminus)
            slope[i] += d
            slope[j] += d


@jit
def spectral_divergence(y, f, slope, d2):
    """Return the divergence of Y -> U f V^T per entry, slope = d f_i/d y_i, others held fixed."""
    n = y.size
    total = 0.0
    for i in range(n):
        total += slope[i] + (d2 - n) * f[i] / y[i]
        for j in range(i):
            gap = y[i] * y[i] - y[j] * y[j]
            if abs(gap) > 1e-12 * y[j] * y[j]:
                total += 2.0 * (y[i] * f[i] - y[j] * f[j]) / gap
            else:
                total += slope[i] + f[i] / y[i]
    return total / (n * d2)
