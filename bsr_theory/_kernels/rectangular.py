"""The law of ``S + sqrt(s) Z`` for a product S of two Gaussian matrices.

Everything here rests on one fact.  On a bulk of the spectrum of ``W = Y Y^T / d2`` with
``Y = S + sqrt(s) Z`` and ``S = A B / sqrt(r)``, the quartic ``w(t) = w`` has one pair of complex
conjugate roots, and the pairs ``(t + conj(t), |t|^2)`` lie on a plane cubic that is uniformised
by the single real variable ``chi = log(zeta)``.  With ``p = sqrt(beta)``, ``kappa = s rho``,
``u = t + rho`` and ``h = (beta + 1)/2 + kappa``::

    xi^2  = h^2 - p^2 - kappa^2 + p kappa (zeta + 1/zeta),      2 Re t = xi - h - rho
    |u|^2 = rho kappa (p zeta - kappa) / (xi + h)
    |t|^2 = rho p (p - kappa / zeta) / (xi + h)                 zeta = (p / kappa) |u / t|^2

so that along a bulk ``t``, ``g`` and ``w`` are explicit: no root finding, no branch to choose.
``w`` grows with ``chi`` from edge to edge, an edge is a simple zero of ``(Im t)^2``, and with
``chi = chi_a + H sin^2(x/2)`` every bulk integral is analytic in ``x``.  The theory page of the
documentation derives this.

All positions are kept relative to the lower edge of their bulk and in the gauge (``u`` or ``t``)
whose origin the bulk winds around: this is what keeps full relative precision from ``s = 1e-8``
to ``s = 1e6``.
"""

from __future__ import annotations

import cmath
import math
from collections import namedtuple

import numpy as np

from . import jit

__all__: list[str] = []

# A Gauss-Legendre rule of 16 points on a panel whose nearest singularity lies outside the
# Bernstein ellipse of parameter 2.88 errs by 2.88^-32 = 2e-15.
NODES, WEIGHTS = np.polynomial.legendre.leggauss(16)
_ELLIPSE = 1.62  # (sum of distances to the panel ends) / (panel length) on that ellipse
_RATIO = 3.5  # growth of the panels away from a hard edge, same ellipse
_NECK = 1e-3  # a closing gap of width x contributes x^6 to the error: no need to go below
_SPAN = 3.0  # largest step of chi: the integrands grow like exp(k chi), k up to 4
_PANELS = 96  # more than any parameters have asked for (36)

_NEWTON = 1e-9  # relative Newton step after which the next one is below rounding
_TINY = 1e-40  # noise below which mmse is its limit to all digits
_HUGE = 1e20  # width that counts as infinite
_MANY = 1e50  # aspect ratio beyond which either the signal or the noise counts as infinite
_MET = 1e-8  # s rho, in units of sqrt(beta), below which it is the number of columns
_THIN = 1e-20  # width that counts as zero
_NARROW = 1e-4  # width below which the difference of energies has few digits
_FAR = 1e100  # s rho from which on only the first term in 1/s is left

CUBE, OVERLAP, ERROR, ENERGY = range(4)  # what bulk_sums accumulates


# --------------------------------------------------------------------------------------------
# The rational curve: zeros, poles and critical points of w(t), in both gauges
# --------------------------------------------------------------------------------------------

# A = (t - a1)(t - a2), B = (t - b1)(t - b2); u = t + rho.  `lower` = t_lower - a2 >= 0
# and `rest` = b2 - t_lower >= 0 are kept apart since both vanish with beta - 1.
# bulks: 1, or 2 with the gap between u_gap1 < u_gap2 (the signal bulk's lower and the noise
# bulk's upper edge).  With one bulk, neck = u_neck +- i v_neck are the two critical points that
# would be the gap, and `neck_real` tells when they are real (then far from the physical arc).
# ipr = 1/(p rho).
Curve = namedtuple(
    "Curve",
    "beta rho s kappa p ipr h xplus ua1 ua2 ub1 ub2 ta1 ta2 tb1 tb2 lower rest "
    "u_lower t_lower u_upper t_upper bulks u_gap1 u_gap2 neck_real u_neck v_neck",
)


@jit
def _q(t, u, rho):
    """Return Q = t - rho/t, also where t is near -rho and rho near 1."""
    return (rho * (rho - 1.0) + u * (u - 2.0 * rho)) / t if abs(u) < abs(t) else t - rho / t


@jit
def _between_zeros(ua, ub, tb, width, far_a, far_b, kappa, rho):
    """Solve w' = 0 between two adjacent zeros of w, one of A at ua and one of B at ub to its right.

    Returns the distances to both.  In (log w)' = P/A + Q/B, P = u + kappa rho/u and Q = t - rho/t,
    nothing cancels however flat w is; Newton solves the equation freed of the poles, for the
    fraction theta of the width or for phi = 1 - theta, whichever is smaller.
    """
    theta, phi, lo, hi = 0.5, 0.5, 0.0, 0.5
    for i in range(100):
        t = tb - phi * width
        u = ua + theta * width if ua > 0.0 else ub - phi * width
        ia, ib, ku, rt = 1.0 / (u - far_a), 1.0 / (u - far_b), kappa * rho / u, rho / t
        a, b = (u + ku) * ia, _q(t, u, rho) * ib
        f = phi * a - theta * b
        if i == 0:
            right = f > 0.0
        x = phi if right else theta
        if (f > 0.0) == right:
            hi = x
        else:
            lo = x
        df = phi * (1.0 - ku / u - a) * ia - theta * (1.0 + rt / t - b) * ib
        df = width * df - a - b
        new = x + f / df if right else x - f / df
        newton = lo <= new <= hi
        if not newton:
            new = 0.5 * (lo + hi)
        theta, phi = (1.0 - new, new) if right else (new, 1.0 - new)
        if abs(new - x) <= (_NEWTON if newton else 4e-16) * new:
            break
    return theta * width, phi * width


@jit
def _upper_edge(ta1, ta2, tb1, tb2, kappa, rho):
    """Return the positive critical point of w(t): the unique zero of t (log w)' on t > 0."""
    t, lo, hi = math.sqrt(ta2 * tb2), 0.0, np.inf
    for _ in range(200):
        u = t + rho
        ku = kappa * rho / u
        a1, a2, b1, b2 = 1.0 / (t - ta1), 1.0 / (t - ta2), 1.0 / (t - tb1), 1.0 / (t - tb2)
        a, b = a1 * a2 * t, b1 * b2
        f = a * (u + ku) + b * (t * t - rho)
        if f < 0.0:
            lo = t
        else:
            hi = t
        # d f / d log t
        df = a * ((u + ku) * (1.0 - t * (a1 + a2)) + t * (1.0 - ku / u)) + b * t * (
            2.0 * t - (t * t - rho) * (b1 + b2)
        )
        step = min(max(-f / df, -2.0), 2.0) if df > 0.0 else (2.0 if f < 0.0 else -2.0)
        new = t * math.exp(step)
        newton = lo <= new <= hi
        if not newton:
            new = math.sqrt(lo * hi) if lo > 0.0 and hi < np.inf else (4 * t if f < 0 else t / 4)
        done = abs(new - t) <= (_NEWTON if newton else 4e-16) * t
        t = new
        if done:
            break
    return t


@jit
def _gap_edge(u, reach, ua1, ua2, ub1, ub2, kappa, rho):
    """Return the zero of (log w)' near u < 0, by two Newton steps of at most ``reach``."""
    for _ in range(2):
        t = u - rho
        a1, a2, b1, b2 = 1.0 / (u - ua1), 1.0 / (u - ua2), 1.0 / (u - ub1), 1.0 / (u - ub2)
        ku, rt = kappa * rho / u, rho / t
        a, b = (u + ku) * a1 * a2, _q(t, u, rho) * b1 * b2
        da = (1.0 - ku / u) * a1 * a2 - a * (a1 + a2)
        db = (1.0 + rt / t) * b1 * b2 - b * (b1 + b2)
        step = (a + b) / (da + db)
        if not abs(step) < reach:
            break
        u -= step
    return u


@jit
def make_curve(beta, rho, s):
    """Return the zeros, poles and critical points of w(t) for finite beta, rho and s > 0."""
    kappa = s * rho
    # A = u^2 + au u - kappa rho = t^2 + at t + beta rho, B the same with 1 instead of beta.
    au, at = beta - rho + kappa, beta + rho + kappa
    bu, bt = 1.0 - rho + kappa, 1.0 + rho + kappa
    ra = math.sqrt(au * au + 4.0 * kappa * rho)
    rb = math.sqrt(bu * bu + 4.0 * kappa * rho)
    ua2 = 2.0 * kappa * rho / (au + ra) if au > 0.0 else 0.5 * (ra - au)
    ua1 = -0.5 * (au + ra) if au > 0.0 else -2.0 * kappa * rho / (ra - au)
    ub2 = 2.0 * kappa * rho / (bu + rb) if bu > 0.0 else 0.5 * (rb - bu)
    ub1 = -0.5 * (bu + rb) if bu > 0.0 else -2.0 * kappa * rho / (rb - bu)
    ta2, ta1 = -2.0 * beta * rho / (at + ra), -0.5 * (at + ra)
    tb2, tb1 = -2.0 * rho / (bt + rb), -0.5 * (bt + rb)

    # From A(u) - B(u) = (beta - 1) u: the distances of the zeros without cancellation.
    split = (beta - 1.0) * ub2 / (ub2 - ua1)
    lower, rest = 0.0, 0.0
    if split > 0.0:
        lower, rest = _between_zeros(ua2, ub2, tb2, split, ua1, ub1, kappa, rho)
    u_lower, t_lower = ua2 + lower, tb2 - rest
    t_upper = _upper_edge(ta1, ta2, tb1, tb2, kappa, rho)
    u_upper = t_upper + rho
    split1 = (beta - 1.0) * ua1 / (ua1 - ub2)
    u_spurious = ub1
    if split1 > 0.0:
        u_spurious -= _between_zeros(ua1, ub1, tb1, split1, ua2, ub2, kappa, rho)[1]

    # The five critical points have product -kappa^2 rho^3/2 and inverse sum 2/rho in u.
    prod = -(kappa**2) * rho**3 / (2.0 * u_upper * u_lower * u_spurious)
    total = prod * (2.0 / rho - 1.0 / u_upper - 1.0 / u_lower - 1.0 / u_spurious)
    disc = total * total - 4.0 * prod
    root = 0.5 * math.sqrt(abs(disc))
    bulks, gap1, gap2 = 1, 0.0, 0.0
    if disc > 0.0 and total < 0.0:
        bulks, gap1 = 2, 0.5 * total - root
        gap2 = prod / gap1
        # lost digits come back where the gap is not about to close
        reach = 0.01 * min(2.0 * root, -gap2)
        gap1 = _gap_edge(gap1, reach, ua1, ua2, ub1, ub2, kappa, rho)
        gap2 = _gap_edge(gap2, reach, ua1, ua2, ub1, ub2, kappa, rho)
    p, h = math.sqrt(beta), 0.5 * (beta + 1.0) + kappa
    xplus = (0.5 * (p - 1.0) ** 2 + 2.0 * kappa) * 0.5 * (p + 1.0) ** 2
    return Curve(
        beta, rho, s, kappa, p, 1.0 / (p * rho), h, xplus, ua1, ua2, ub1, ub2, ta1, ta2, tb1, tb2,
        lower, rest, u_lower, t_lower, u_upper, t_upper, bulks, gap1, gap2, disc > 0.0,
        0.5 * total, root,
    )  # fmt: skip


# --------------------------------------------------------------------------------------------
# One bulk: the arc of conjugate pairs between two edges
# --------------------------------------------------------------------------------------------

# gauge_u: positions are u's (else t's).  z = the lower edge there, a1 b1 the far zeros, da2 db2 =
# (lower edge) - (near zeros).  zeta, xi, kp = p zeta - kappa at the lower edge; height = the
# range H of chi; iFa = 1/(xi + h) and scale are constants of the arc; hard: the pole at w = 0
# is a singularity to grade towards.
Bulk = namedtuple("Bulk", "gauge_u z a1 b1 da2 db2 zeta xi kp iFa scale height hard other_gap")


@jit
def _xi(c, zeta):
    return math.sqrt(c.xplus + c.p * c.kappa * (zeta - 1.0) ** 2 / zeta)


@jit
def _chi_distance(zeta, rise, guess):
    """Return chi - chi_a where xi^2 has risen by p kappa ``rise``; ``guess`` picks the root.

    With f = exp(chi - chi_a) - 1:  zeta f^2 + (zeta - 1/zeta - rise) f - rise = 0.
    """
    b = zeta - 1.0 / zeta - rise
    disc = math.sqrt(max(b * b + 4.0 * zeta * rise, 0.0))
    big = -0.5 * (b + disc) if b > 0.0 else -0.5 * (b - disc)
    best, error = guess, np.inf
    for f in (big / zeta, -rise / big):
        if f > -1.0:
            chi = math.log1p(f)
            if abs(chi - guess) < error:
                best, error = chi, abs(chi - guess)
    return best


@jit
def make_bulk(c, which):
    """Return bulk ``which`` (0 the lowest) of the curve."""
    u0, t0, u1, t1 = c.u_lower, c.t_lower, c.u_upper, c.t_upper
    hard, other = c.rest > 0.0, 0.0
    da2, db2 = c.lower, -c.rest
    gauge_u = c.bulks == 2 or c.u_lower < -c.t_lower
    if c.bulks == 2:
        if which == 0:
            u1, t1, other = c.u_gap2, c.u_gap2 - c.rho, c.u_gap1
        else:
            u0, t0, other, hard = c.u_gap1, c.u_gap1 - c.rho, c.u_gap2, False
            da2, db2 = u0 - c.ua2, u0 - c.ub2
    z, a1, b1 = (u0, c.ua1, c.ub1) if gauge_u else (t0, c.ta1, c.tb1)
    zeta = c.p / c.kappa * (u0 / t0) ** 2
    xi0, xi1 = _xi(c, zeta), _xi(c, c.p / c.kappa * (u1 / t1) ** 2)
    # 2 Re t rises by 2 (u1 - u0) and xi by the same: exact also when the arc is tiny.
    span = t1 - t0 if c.bulks == 1 else u1 - u0
    rise = 2.0 * span * (xi0 + xi1) / (c.p * c.kappa)
    height = _chi_distance(zeta, rise, 2.0 * math.log(abs(u1 * t0 / (u0 * t1))))
    kp = u0 * u0 * (xi0 + c.h) / (c.rho * c.kappa)
    scale = 1.0 / (c.beta * c.rho**2 * math.sqrt(c.kappa * c.p))
    iFa = 1.0 / (xi0 + c.h)
    return Bulk(gauge_u, z, a1, b1, da2, db2, zeta, xi0, kp, iFa, scale, height, hard, other)


# A point of the arc: Re t = x and Re u = xu, y = -Im t >= 0, |t|^2 = pt, |u|^2 = pu,
# |A|^2 = 1/iqa, F = xi + h = 1/iF, iz = 1/zeta, slope = d log w / d chi.
Point = namedtuple("Point", "iz x xu y pt pu iqa F iF w slope")


@jit
def arc_point(c, b, eta):
    """Return the point of the arc at chi = chi_a + eta."""
    rho, kappa, p = c.rho, c.kappa, c.p
    e = math.expm1(eta)
    zeta = b.zeta * (1.0 + e)
    iz = 1.0 / zeta
    rise = p * kappa * e * (b.zeta - iz)  # xi^2 - xi_a^2
    xi = math.sqrt(b.xi * b.xi + rise)
    ds = rise / (xi + b.xi)  # 2 Re t - 2 t_a
    dxi = 0.5 * p * kappa * (zeta - iz) / xi
    F, Fa = xi + c.h, b.xi + c.h
    iF = 1.0 / F
    step = p * b.zeta * e
    kp = b.kp + step
    ikp = 1.0 / kp
    pu = rho * kappa * kp * iF
    pt = rho * p * kp * iz * iF
    # y^2 = |.|^2 - Re^2, as a difference to its zero at the edge
    if b.gauge_u:
        dpi = (rho * kappa * p * zeta - pu * dxi) * iF
        y2 = rho * kappa * (step * Fa - b.kp * ds) * iF * b.iFa
    else:
        dpi = (rho * p * kappa * iz - pt * dxi) * iF
        y2 = rho * p * (e * (p * b.zeta * Fa - b.kp * F) - b.kp * ds) * iz * iF * b.iFa
    # positive inside, though rounding may hide it where a gap has just closed
    y2 = max(y2 - ds * (b.z + 0.25 * ds), 1e-32 * min(pu, pt) * min(eta, 1.0))
    half = 0.5 * ds
    X = b.z + half
    x, xu = (X - rho, X) if b.gauge_u else (X, X + rho)
    # A and B: real parts, imaginary parts over y
    ra, ia = (X - b.a1) * (b.da2 + half) - y2, (X - b.a1) + (b.da2 + half)
    rb, ib = (X - b.b1) * (b.db2 + half) - y2, (X - b.b1) + (b.db2 + half)
    qa, qb = ra * ra + y2 * ia * ia, rb * rb + y2 * ib * ib
    iqa, iqb = 1.0 / qa, 1.0 / qb
    # (log w)' = P/A + Q/B as in `_between_zeros`, and d t / d chi
    ku = F * ikp  # kappa rho / |u|^2
    rp, ip = xu * (1.0 + ku), 1.0 - ku
    ipt = ku * zeta * c.ipr  # 1 / |t|^2
    square = rho * (rho - 1.0) - 2.0 * rho * xu + xu * xu if pu < pt else x * x - rho
    square -= y2  # Re(t^2 - rho)
    rq, iq = x * (square + 2.0 * y2) * ipt, (2.0 * x * x - square) * ipt
    re = (rp * ra + y2 * ip * ia) * iqa + (rq * rb + y2 * iq * ib) * iqb
    im = (ip * ra - rp * ia) * iqa + (iq * rb - rq * ib) * iqb
    slope = max(re * dxi - im * (dpi - X * dxi), 1e-300)  # 0 on the neck of a closing gap
    # |t u|^2 = rho^2 kappa p kp^2 / (zeta F^2)
    w = math.sqrt(qa * qb * zeta) * F * ikp * b.scale
    return Point(iz, x, xu, math.sqrt(y2), pt, pu, iqa, F, iF, w, 0.5 * slope)


@jit
def _pi_density(c, z):
    """Pi times the density of W: -Im g."""
    br = c.beta * c.rho
    return br * br * (z.F - 1.0 + c.kappa / c.p * z.iz) * z.iF * z.y * z.iqa


@jit
def _w_re_g(c, z):
    """Re(w g) = Re(B / u) = 1 + Re t + kappa Re(t / u)."""
    return 1.0 + z.x + c.kappa * _re_tu(c, z) / z.pu


@jit
def _re_tu(c, z):
    """Re(t conj(u)), without cancellation in either gauge."""
    return z.pu - c.rho * z.xu if z.pu < z.pt else z.pt + c.rho * z.x


@jit
def _w_shrunk(c, z):
    """Return y times the denoised singular value, (y - s h(y)) y, of arXiv:2410.18858.

    Re[u (beta+t)(1+t)/(beta rho t) - s^2 rho t/(beta u)] after the two terms of order s, which
    cancel, have been taken together by the formulas of the pair curve.
    """
    return _w_shrunk_by_u(c, z) if z.pu < z.pt else _w_shrunk_by_t(c, z)


@jit
def _w_shrunk_by_t(c, z):
    br = c.beta * c.rho
    return (
        1.0
        + 1.0 / c.beta
        + (z.F * (z.x + z.pt / c.rho) + (1.0 + c.beta + c.rho) * z.x) / br
        + (2.0 * z.x * z.x - z.pt) / br
    )


@jit
def _w_shrunk_by_u(c, z):
    """Keep its digits near u = 0, on the bulk of the noise below a thin signal."""
    return (z.pu * (z.F / c.rho - 1.0) - 2.0 * c.kappa * z.xu) / (c.beta * c.rho)


@jit
def _y_h(c, z):
    """Return y h(y) = (1 - 1/beta) + (2/beta) Re(w g)."""
    return (1.0 - 1.0 / c.beta) + 2.0 / c.beta * _w_re_g(c, z)


@jit
def _log_potential(c, z):
    """Return the integral of log|w - w'| over the law of W minus log(1 + s), for w on the bulk.

    The scale of w is taken out so that the information keeps its digits at large noise.
    """
    more = (2.0 * z.x + z.pt / c.rho) / c.rho  # |u/rho|^2 - 1
    log_u = math.log1p(more) if abs(more) < 0.5 else math.log(z.pu / c.rho**2)
    return (
        2.0 * z.x
        + c.kappa * _re_tu(c, z) / z.pu
        + 0.5 * (1.0 - c.rho) * log_u
        - 0.5 * (c.beta - 1.0) * math.log(1.0 / (z.iqa * c.beta**2 * z.pu))
        - 0.5 * math.log(z.pt * (1.0 + c.s) ** 2)
    )


# --------------------------------------------------------------------------------------------
# Panels: Gauss-Legendre in x, chi = chi_a + H sin^2(x/2)
# --------------------------------------------------------------------------------------------


@jit
def _x_plane(eta, height):
    """Return x with eta = H sin^2(x/2)."""
    return cmath.acos(1.0 - eta * (2.0 / height))


@jit
def _x_of_u(c, b, u):
    """Return x of the double point t = conj(t) = u - rho of the pair curve."""
    t = u - c.rho
    zeta = (
        2.0 * (cmath.log(u) - cmath.log(t)) + math.log(c.p / c.kappa)
        if abs(t) > 0.0
        else 700.0 + 0j
    )
    if zeta.imag > math.pi:
        zeta -= 2j * math.pi
    elif zeta.imag < -math.pi:
        zeta += 2j * math.pi
    return _x_plane(zeta - math.log(b.zeta), b.height)


@jit
def make_panels(c, b, ends):
    """Fill ``ends`` (k, 2) with panels of [0, pi] that keep every singularity at its distance.

    The singularities that come near: the pair above w = 0 (hard edge), the two critical points
    of w at a neck or across a gap, and the branch points and poles on Im chi = pi.
    """
    near = np.empty(12, np.complex128)
    m = 0
    chi = math.log(b.zeta)
    # the neck, or the other side of the gap: limited strength, see _NECK
    if c.bulks == 2:
        near[m] = _x_of_u(c, b, complex(b.other_gap))
        m += 1
    else:
        for sign in (-1.0, 1.0):
            u = (
                complex(c.u_neck + sign * c.v_neck)
                if c.neck_real
                else complex(c.u_neck, sign * c.v_neck)
            )
            near[m] = _x_of_u(c, b, u)
            m += 1
    necks = m
    # w = infinity: zeta = kappa / p
    if b.kp < c.p * b.zeta:
        near[m] = _x_plane(complex(math.log1p(-b.kp / (c.p * b.zeta))), b.height)
        m += 1
    # xi = 0 and the mixed zeros of A and B, all on Im chi = pi: out of reach of a short arc
    if b.height > 0.8:
        cosh = (c.h**2 - c.beta - c.kappa**2) / (2.0 * c.p * c.kappa)
        width = math.acosh(max(cosh, 1.0))
        for shift in (
            -width,
            width,
            math.log(abs(c.ua1 * c.ua2 / (c.ta1 * c.ta2)) * c.p / c.kappa),
            math.log(abs(c.ua1 * c.ub2 / (c.ta1 * c.tb2)) * c.p / c.kappa),
            math.log(abs(c.ub1 * c.ua2 / (c.tb1 * c.ta2)) * c.p / c.kappa),
            math.log(abs(c.ub1 * c.ub2 / (c.tb1 * c.tb2)) * c.p / c.kappa),
        ):
            near[m] = _x_plane(complex(shift - chi, math.pi), b.height)
            m += 1

    todo = np.empty((_PANELS, 2))
    k = 1
    todo[0, 0], todo[0, 1] = 0.0, math.pi
    if b.hard:
        # geometric panels towards the pair (a2, b2) above w = 0, just left of the arc
        zero = c.p / c.kappa * (c.ua2 * c.ub2 / (c.ta2 * c.tb2))
        rise = (c.rest - c.lower) * (_xi(c, zero) + b.xi) / (c.p * c.kappa)
        eta = _chi_distance(b.zeta, rise, math.log(zero / b.zeta))
        first = 0.8 * max(abs(_x_plane(complex(eta), b.height)), 1e-13)
        if first < math.pi:
            k = 1 + math.ceil(math.log(math.pi / first) / math.log(_RATIO))
            ratio = (math.pi / first) ** (1.0 / (k - 1))
            # the last is taken first: from right to left here
            left, right = 0.0, first
            for i in range(k - 1, -1, -1):
                todo[i, 0], todo[i, 1] = left, (right if i else math.pi)
                left, right = right, right * ratio

    span = _SPAN if c.bulks == 1 else 0.5 * _SPAN  # a gap is near for longer
    count = 0
    while k > 0:
        k -= 1
        left, right = todo[k, 0], todo[k, 1]
        length = right - left
        split = b.height * (math.sin(0.5 * right) ** 2 - math.sin(0.5 * left) ** 2) > span
        for i in range(m):
            if abs(near[i] - left) + abs(near[i] - right) < _ELLIPSE * length:
                if i >= necks or length > _NECK:
                    split = True
                    break
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
def bulk_sums(c, b, nodes, weights, with_energy, sums):
    """Add pi times this bulk's integrals to CUBE, OVERLAP, ERROR and ENERGY.

    They are int pi^2 rho^3 w dw, int rho f^2 dw, int rho f h dw with the denoised f = y - s h, and
    int rho Phi dw.  No term of the first three is negative; the third is mmse/s.
    """
    ends = np.empty((_PANELS, 2))
    count = make_panels(c, b, ends)
    cube, overlap, error, energy = 0.0, 0.0, 0.0, 0.0
    for k in range(count):
        mid, half = 0.5 * (ends[k, 0] + ends[k, 1]), 0.5 * (ends[k, 1] - ends[k, 0])
        for j in range(nodes.size):
            x = mid + half * nodes[j]
            sin = math.sin(0.5 * x)
            z = arc_point(c, b, b.height * sin * sin)
            w = z.w
            r = _pi_density(c, z)
            chi = half * weights[j] * b.height * sin * math.sqrt((1.0 - sin) * (1.0 + sin))
            density = r * chi * z.slope  # pi rho dw / w
            cube += density * (r * w) ** 2
            yshat = _w_shrunk(c, z)
            overlap += density * yshat * yshat
            error += density * yshat * _y_h(c, z)
            if with_energy:
                energy += density * w * _log_potential(c, z)
    sums[CUBE] += cube
    sums[OVERLAP] += overlap
    sums[ERROR] += error
    sums[ENERGY] += energy
    return count * nodes.size


@jit
def curve_sums(c, nodes, weights, with_energy, sums):
    """Sum over the bulks; returns the number of quadrature nodes."""
    sums[:] = 0.0
    used = 0
    for which in range(c.bulks):
        used += bulk_sums(c, make_bulk(c, which), nodes, weights, with_energy, sums)
    return used


# --------------------------------------------------------------------------------------------
# The product of two Gaussian factors: mmse, overlap, deficit, information
# --------------------------------------------------------------------------------------------


@jit
def _marchenko_pastur_root(rho, s):
    """Return (t0, u0), the point w = 0 of the physical sheet; m(s) = -rho t0/u0."""
    kappa = s * rho
    b, r = 1.0 - rho + kappa, 1.0 + rho + kappa
    root = math.sqrt(b * b + 4.0 * kappa * rho)
    u0 = 2.0 * kappa * rho / (b + root) if b > 0.0 else 0.5 * (root - b)
    return -2.0 * rho / (r + root), u0


@jit
def _is_gaussian(beta, rho, s):
    """Tell whether S cannot be told from a matrix of independent entries.

    The first corrections are beta/rho^2 and beta/(s rho)^2 of the overlap, 1/rho for beta = inf.
    """
    root = math.sqrt(beta)
    return rho > min(_HUGE, 1e8 * root) or s * rho > 1e8 * root


@jit
def _is_thin(beta, rho, s):
    """Tell whether the outliers of a thin signal do not interact, or noise hides them far away."""
    return rho < _THIN or (rho < 1e-12 and s * rho > 1e4 * math.sqrt(beta))


@jit
def _thin_mmse(beta, rho, s):
    """Return what `factor_mmse` does in the limit rho -> 0: r outliers that do not interact.

    Where noise hides them, what is left is learned as of a matrix of independent entries, more of
    it near the noise t = 1 that begins to hide them.
    """
    c, n = 1.0 / beta, s * rho
    t = n * math.sqrt(c)
    gap = (1.0 - t) * (1.0 + t)
    least = 1.0 / (1.0 + s)
    if t > 0.5:
        least /= max(abs(1.0 / t / t - 1.0), rho ** (1.0 / 3.0))  # the width of the transition
    if t >= 1.0:
        return 1.0 - least, least, 1.0 - (1.0 - least) / s
    below = (1.0 + n * c) * (1.0 + n)
    ratio = (1.0 + c + 3.0 * n * c - n * c * t * t) / below
    return n * ratio, max(gap * gap / below, least), 1.0 - rho * ratio


@jit
def factor_mmse(beta, rho, s, nodes, weights, sums):
    """Return (mmse, overlap, deficit) with mmse + overlap = 1 and deficit = 1 - mmse/s.

    Each is accurate to relative precision where it is small.  beta = inf, rho = inf, s = 0 and
    s = inf are their limits.  arXiv:2410.18858; docs/theory.
    """
    if beta > _MANY and s * rho < _MET * math.sqrt(beta):
        beta = np.inf
    if s < _TINY:
        # the correction, of relative order sqrt(s) at most, is below rounding
        slope = strong_threshold(beta, rho)
        return slope * s, 1.0, 1.0 - slope
    if s == np.inf:
        return 1.0, 0.0, 1.0
    if _is_thin(beta, rho, s):
        return _thin_mmse(beta, rho, s)
    if _is_gaussian(beta, rho, s):
        return s / (1.0 + s), 1.0 / (1.0 + s), s / (1.0 + s)
    if _MANY < beta < np.inf:
        # s is far above the eigenvalues of S S^T: what is learned of them, beyond what is of
        # independent entries, depends on s/sqrt(beta) alone
        ratio = math.sqrt(_MANY) / math.sqrt(beta)
        many = factor_mmse(_MANY, rho, ratio * s, nodes, weights, sums)[1]
        more = ratio * (many - 1.0 / (1.0 + ratio * s))
        return s / (1.0 + s) - more, 1.0 / (1.0 + s) + more, s / (1.0 + s) + more / s
    if beta == np.inf:
        # columns of S are N(0, A A^T/r) and A is learned for free: M = -s t0
        kappa = s * rho
        if kappa > _FAR:
            overlap = (1.0 + 1.0 / rho) / s
            return 1.0 - overlap, overlap, 1.0 - (1.0 - overlap) / s
        b = 1.0 - rho + kappa
        root = math.sqrt(b * b + 4.0 * kappa * rho)
        total = 1.0 + rho + kappa + root
        over = 1.0 + rho + ((1.0 - rho) ** 2 + 2.0 * kappa * (1.0 + rho)) / (root + kappa)
        lack = b + root if b > 0.0 else 4.0 * kappa * rho / (root - b)
        return 2.0 * rho * s / total, min(over / total, 1.0), lack / total
    c = make_curve(beta, rho, s)
    curve_sums(c, nodes, weights, False, sums)
    # the bounds are those of a matrix of independent entries and of the limit s = 0
    mmse = s * min(sums[ERROR] / math.pi, strong_threshold(beta, rho), 1.0 / (1.0 + s))
    if s < 1.0:
        m = -rho * c.tb2 / c.ub2
        deficit = s * ((1.0 - 1.0 / beta) * m + 4.0 * sums[CUBE] / (3.0 * math.pi * beta * beta))
        deficit = min(max(deficit, s / (1.0 + s), 1.0 - strong_threshold(beta, rho)), 1.0)
        if deficit < 0.5:
            mmse = s * (1.0 - deficit)
        return mmse, 1.0 - mmse, deficit
    overlap = min(max(sums[OVERLAP] / math.pi, 1.0 / (1.0 + s)), 1.0)
    if overlap < 0.5:
        mmse = 1.0 - overlap
    return mmse, overlap, 1.0 - mmse / s


@jit
def strong_threshold(beta, rho):
    """Return lim mmse/s as s -> 0: the degrees of freedom per entry."""
    if rho >= 1.0:
        return 1.0
    return rho + rho * (1.0 - rho) / beta


@jit
def _splitting_noise(beta, rho):
    """Return the noise below which the spectrum has two bulks (rho < 1, beta finite)."""
    lo, hi = math.log(_TINY), 50.0
    for _ in range(60):
        mid = 0.5 * (lo + hi)
        if make_curve(beta, rho, math.exp(mid)).bulks == 2:
            lo = mid
        else:
            hi = mid
    return math.exp(lo)


@jit
def _rise(rho, s):
    """Return s m(s) - (1 - rho) for rho < 1, which is the deficit for beta = inf."""
    kappa = s * rho
    b = 1.0 - rho + kappa
    root = math.sqrt(b * b + 4.0 * kappa * rho)
    # rho - 2 rho/(1 + rho + kappa + root) with root - (1 - rho) expanded
    rise = (kappa * (2.0 * (1.0 - rho) + kappa) + 4.0 * kappa * rho) / (root + 1.0 - rho)
    return rho * (kappa + rise) / (1.0 + rho + kappa + root)


@jit
def _excess(beta, rho, s, nodes, weights, sums):
    """Return strong_threshold - mmse/s for rho < 1."""
    curve_sums(make_curve(beta, rho, s), nodes, weights, False, sums)
    if beta * rho < 1.0:
        return strong_threshold(beta, rho) - sums[ERROR] / math.pi
    # two parts that share what cancels
    cube = 4.0 * s * sums[CUBE] / (3.0 * math.pi * beta * beta)
    return (1.0 - 1.0 / beta) * _rise(rho, s) + (cube - (1.0 - rho) ** 2 / beta)


@jit
def factor_deficit(beta, rho, s, nodes, weights, sums):
    """Return strong_threshold - mmse/s to relative precision.

    For rho < 1 the difference loses its digits as s -> 0, where it is analytic in s with the
    scale of the splitting noise or of the signal: the ratio to s is extrapolated from six noises.
    """
    if s == 0.0:
        return 0.0
    if beta > _MANY:
        beta = np.inf  # mmse/s is below rounding where it is not so
    if s < np.inf and _is_thin(beta, rho, s):
        c, n = 1.0 / beta, s * rho
        t = n * math.sqrt(c)
        if t >= 1.0:
            return rho * (1.0 + c - 1.0 / n)
        top = n * (1.0 - c + c * c + (c + c * c) * n + c * t * t)
        return rho * top / ((1.0 + n * c) * (1.0 + n))
    if beta == np.inf and rho < 1.0 and s * rho <= _FAR:
        return _rise(rho, s)
    if rho >= 1.0:
        return factor_mmse(beta, rho, s, nodes, weights, sums)[2]
    if beta == np.inf or s == np.inf or _is_gaussian(beta, rho, s):
        mmse = factor_mmse(beta, rho, s, nodes, weights, sums)[0]
        return strong_threshold(beta, rho) - mmse / s
    step = max(2e-3 * min(_splitting_noise(beta, rho), (1.0 - rho) ** 2 / rho), _TINY)
    if s >= step:
        return max(_excess(beta, rho, s, nodes, weights, sums), 0.0)
    total = 0.0
    for k in range(1, 7):
        weight = 1.0
        for i in range(1, 7):
            if i != k:
                weight *= (s / step - i) / (k - i)
        total += weight * _excess(beta, rho, k * step, nodes, weights, sums) / (k * step)
    return max(s * total, 0.0)


@jit
def _direct_information(beta, rho, s, nodes, weights, sums):
    """I_S = (1/2) log(1/s) + E/(2 beta) + (beta-1)/(2 beta) L - C_beta, in nats per entry.

    E = double integral of log|w-w'|, L = integral of log w; both with log(1+s) taken out.
    """
    t0, u0 = _marchenko_pastur_root(rho, s)
    log_u = math.log1p(t0 / rho) if t0 > -0.5 * rho else math.log(u0 / rho)
    logs = t0 + (1.0 - rho) * log_u - math.log(-t0 * (1.0 + s))
    c = make_curve(beta, rho, s)
    curve_sums(c, nodes, weights, True, sums)
    energy = sums[ENERGY] / math.pi
    tail = (beta - 1.0) * math.log1p(-1.0 / beta) if beta > 1.0 else 0.0
    logs += -1.0 - tail
    # Laguerre-Selberg: the same functional of pure noise
    const = -0.25 - 0.25 * math.log(beta) / beta - 0.25 * (beta - 1.0) / beta * tail
    return 0.5 * math.log1p(1.0 / s) + 0.5 * energy / beta + 0.5 * (1.0 - 1.0 / beta) * logs - const


@jit
def _thin_information(beta, rho, s):
    """Return `factor_information` in the limit rho -> 0."""
    c, log_snr = 1.0 / beta, -math.log(s) - math.log(rho)
    if log_snr <= 0.5 * math.log(c) if c > 0.0 else False:
        return 0.5 / s
    if log_snr > 600.0:  # of 1/snr nothing is left
        total = (1.0 + c) * log_snr
    else:
        n = s * rho
        total = c * n + (1.0 - c) * (math.log1p(1.0 / n) - math.log1p(c * n)) + 2.0 * c * log_snr
    return 0.5 * rho * (total - (c * math.log(c) if c > 0.0 else 0.0))


@jit
def _long_information(rho, s):
    """Return `factor_information` for beta = inf, the capacity of a Gaussian matrix channel.

    With y = M/s it is ``-[log(1 - y) + rho log(1 - y/rho) + y]/2``, and
    ``(1 - y)(1 - y/rho) = s y``.
    """
    kappa = s * rho
    if kappa > _FAR:
        return 0.5 / s
    b = 1.0 - rho + kappa
    root = math.sqrt(b * b + 4.0 * kappa * rho)
    total = 1.0 + rho + kappa + root
    y, x = 2.0 * rho / total, 2.0 / total
    lack = b + root if b > 0.0 else 4.0 * kappa * rho / (root - b)
    first = math.log1p(-y) if y < 0.5 else math.log(lack / total)
    if x < 0.5:
        second = math.log1p(-x)
    elif rho >= 1.0:
        second = math.log((rho - 1.0 + kappa + root) / total)
    else:
        second = math.log(s * y) - first
    return -0.5 * (first + rho * second + y)


@jit
def _integrated_mmse(beta, rho, s, nodes, weights, sums):
    """Return the information as (1/2) int_0^{1/s} mmse dq, a sum of positive terms.

    Panels keep away from q = 0 and from the q where a thin signal is seen, rounded over a share
    rho^(1/3) of it; where the bulks part, the second derivative of the mmse jumps.
    """
    right = 1.0 / s
    total = 0.0
    if s * rho < 1e-17:  # mmse is proportional to s here
        total = strong_threshold(beta, rho) * (math.log(1e-17) - math.log(s * rho))
        right = 1e17 * rho
    seen = rho / math.sqrt(beta)
    rounded = 0.1 * seen * min(rho, 1.0) ** (1.0 / 3.0)
    parted = 1.0 / _splitting_noise(beta, rho) if rho < 1.0 else 0.0
    end = 1e-6 * min(right, seen)
    while right > end:
        far = 0.7 * (right - seen) if right > seen else 2.3 * (seen - right)
        left = right - min(0.75 * right, max(far, rounded))
        if left < parted < right:
            left = parted
        for j in range(nodes.size):
            q = 0.5 * (left + right) + 0.5 * (right - left) * nodes[j]
            mmse = factor_mmse(beta, rho, 1.0 / q, nodes, weights, sums)[0]
            total += 0.5 * (right - left) * weights[j] * mmse
        right = left
    return 0.5 * (total + right * (1.0 - 0.5 * right))


@jit
def factor_information(beta, rho, s, nodes, weights, sums):
    """Return lim I(S; S + sqrt(s) Z)/(d1 d2) in nats."""
    if s == 0.0:
        return np.inf
    if s == np.inf:
        return 0.0
    if beta > _MANY and s * rho < _MET * math.sqrt(beta):
        beta = np.inf
    if rho < _THIN:
        return _thin_information(beta, rho, s)
    if s < _TINY:
        # mmse is proportional to s from here on
        more = 0.5 * strong_threshold(beta, rho) * (math.log(_TINY) - math.log(s))
        return factor_information(beta, rho, _TINY, nodes, weights, sums) + more
    gaussian = 0.5 * (math.log1p(1.0 / s) if s > 1.0 else math.log1p(s) - math.log(s))
    hidden = s * rho > 4.0 * math.sqrt(beta)
    if hidden and beta / (rho * rho) < 1e-12 * (s * s * s):
        # the first correction is -beta/(8 rho^2 (1 + s)^4)
        return gaussian
    if _is_gaussian(beta, rho, s) or _MANY < beta < np.inf:
        return gaussian
    if beta == np.inf:
        return _long_information(rho, s)
    if rho < _NARROW or s > 1e5:
        return _integrated_mmse(beta, rho, s, nodes, weights, sums)
    direct = _direct_information(beta, rho, s, nodes, weights, sums)
    return min(max(direct, 0.0), gaussian)


# --------------------------------------------------------------------------------------------
# The law: quadrature nodes, points by their eigenvalue, real points off the bulks
# --------------------------------------------------------------------------------------------


@jit
def curve_edges(c):
    """Return the edges of W as a (bulks, 2) array."""
    out = np.empty((c.bulks, 2))
    for which in range(c.bulks):
        b = make_bulk(c, which)
        out[which, 0] = 0.0 if c.beta == 1.0 and which == 0 else arc_point(c, b, 0.0).w
        out[which, 1] = arc_point(c, b, b.height).w
    return out


@jit
def quadrature(beta, rho, s, nodes, weights):
    """Return (w, weight, bulk, chi - chi_a, re_g, potential), one row a node."""
    c = make_curve(beta, rho, s)
    out = np.empty((2 * _PANELS * nodes.size, 6))
    ends = np.empty((_PANELS, 2))
    row = 0
    for which in range(c.bulks):
        b = make_bulk(c, which)
        count = make_panels(c, b, ends)
        # panels come out in increasing order of x
        for k in range(count):
            mid, half = 0.5 * (ends[k, 0] + ends[k, 1]), 0.5 * (ends[k, 1] - ends[k, 0])
            for j in range(nodes.size):
                x = mid + half * nodes[j]
                sin = math.sin(0.5 * x)
                eta = b.height * sin * sin
                z = arc_point(c, b, eta)
                w = z.w
                dlogw = 0.5 * half * weights[j] * b.height * math.sin(x) * z.slope
                out[row, 0] = w
                out[row, 1] = _pi_density(c, z) * w * dlogw / math.pi
                out[row, 2] = which
                out[row, 3] = eta
                out[row, 4] = _w_re_g(c, z) / w
                out[row, 5] = _log_potential(c, z) + math.log1p(s)
                row += 1
    return out[:row].copy()


@jit
def locate(c, b, w, lo, hi):
    """Return the chi - chi_a in [lo, hi] where the arc passes the eigenvalue w."""
    eta = 0.5 * (lo + hi)
    target = math.log(w)
    for _ in range(100):
        z = arc_point(c, b, eta)
        f = math.log(z.w) - target
        if f < 0.0:
            lo = eta
        else:
            hi = eta
        new = eta - f / z.slope
        if not lo <= new <= hi:
            # near a hard edge w is a power of eta: Newton in log eta
            new = eta * math.exp(-f / (z.slope * eta))
        if not lo <= new <= hi:
            new = 0.5 * (lo + hi)
        done = abs(new - eta) <= 4e-16 * (abs(eta) + 1e-300) or hi - lo <= 4e-16 * hi
        eta = new
        if done:
            break
    return eta


@jit
def _outer_w(c, t, u):
    return (
        (t - c.ta1) * (t - c.ta2) * (t - c.tb1) * (t - c.tb2) / (c.beta * c.rho * t * u)
        if abs(t) < abs(u)
        else (u - c.ua1) * (u - c.ua2) * (u - c.ub1) * (u - c.ub2) / (c.beta * c.rho * t * u)
    )


@jit
def off_bulk(c, w, gap):
    """Return (t, u) of the real physical root for w off the bulks, w > 0.

    Above the spectrum t runs over (0, t_upper), in the gap u over (u_gap1, u_gap2), below the
    spectrum from the lower edge to the zero b2 of B: w(t) is monotone on each, so bisection
    cannot meet a wrong branch.
    """
    if gap:
        lo, hi = c.u_gap1, c.u_gap2  # w falls from lo to hi
        for _ in range(80):
            u = 0.5 * (lo + hi)
            if _outer_w(c, u - c.rho, u) > w:
                lo = u
            else:
                hi = u
        return u - c.rho, u
    if (
        c.beta > 1.0
        and w < _outer_w(c, c.t_lower, c.u_lower) * 1.5
        and w < _outer_w(c, c.t_upper, c.u_upper)
    ):
        split = c.lower + c.rest
        lo, hi = c.lower / split, 1.0  # fraction of (a2, b2); w falls to 0
        for _ in range(80):
            theta = 0.5 * (lo + hi)
            t, u = c.ta2 + theta * split, c.ua2 + theta * split
            value = (
                -(u - c.ua1)
                * (u - c.ub1)
                * theta
                * (1.0 - theta)
                * split**2
                / (c.beta * c.rho * t * u)
            )
            if value > w:
                lo = theta
            else:
                hi = theta
        return t, u
    lo, hi = math.log(min(1.0 / w, c.t_upper)), math.log(c.t_upper)  # w t >= 1 there
    for _ in range(80):
        t = math.exp(0.5 * (lo + hi))
        if _outer_w(c, t, t + c.rho) > w:
            lo = math.log(t)
        else:
            hi = math.log(t)
    return t, t + c.rho


@jit
def spectral_values(beta, rho, s, w, grid, edges, out):
    """Fill out (n, 3) with (density of W, Re g, log potential) at the eigenvalues ``w`` > 0.

    ``grid`` (m, 3) holds (bulk, w, chi - chi_a) at increasing w: it brackets the search.
    """
    c = make_curve(beta, rho, s)
    first, second = make_bulk(c, 0), make_bulk(c, c.bulks - 1)
    for i in range(w.size):
        which = -1
        for k in range(c.bulks):
            if edges[k, 0] <= w[i] <= edges[k, 1]:
                which = k
        if w[i] <= 0.0 or not w[i] < np.inf:
            out[i, 0], out[i, 1] = 0.0, (0.0 if w[i] == np.inf else np.nan)
            out[i, 2] = np.inf if w[i] == np.inf else np.nan
        elif which >= 0:
            b = first if which == 0 else second
            lo, hi = 0.0, b.height
            j = np.searchsorted(grid[:, 1], w[i])
            if j < grid.shape[0] and grid[j, 0] == which:
                hi = grid[j, 2]
            if j > 0 and grid[j - 1, 0] == which:
                lo = grid[j - 1, 2]
            z = arc_point(c, b, locate(c, b, w[i], lo, hi))
            out[i, 0], out[i, 1] = _pi_density(c, z) / math.pi, _w_re_g(c, z) / w[i]
            out[i, 2] = _log_potential(c, z) + math.log1p(s)
        else:
            gap = c.bulks == 2 and edges[0, 1] < w[i] < edges[1, 0]
            t, u = off_bulk(c, w[i], gap)
            a = (t - c.ta1) * (t - c.ta2) if abs(t) < abs(u) else (u - c.ua1) * (u - c.ua2)
            out[i, 0], out[i, 1] = 0.0, beta * rho * t / a
            out[i, 2] = (
                2.0 * t
                + c.kappa * t / u
                + (1.0 - rho) * math.log(abs(u) / rho)
                - (beta - 1.0) * math.log(abs(a / (beta * u)))
                - math.log(abs(t))
            )


# --------------------------------------------------------------------------------------------
# Array loops
# --------------------------------------------------------------------------------------------


@jit
def mmse_array(beta, rho, s, nodes, weights, out):
    """Fill out (n, 2) with (mmse, overlap); NaN where an input is not valid."""
    sums = np.empty(4)
    for i in range(s.size):
        if beta[i] >= 1.0 and rho[i] > 0.0 and s[i] >= 0.0:
            out[i] = factor_mmse(beta[i], rho[i], s[i], nodes, weights, sums)[:2]
        else:
            out[i] = np.nan


@jit
def deficit_array(beta, rho, s, nodes, weights, out):
    """Fill out (n,) with strong_threshold - mmse/s; NaN where an input is not valid."""
    sums = np.empty(4)
    for i in range(s.size):
        if beta[i] >= 1.0 and rho[i] > 0.0 and s[i] >= 0.0:
            out[i] = factor_deficit(beta[i], rho[i], s[i], nodes, weights, sums)
        else:
            out[i] = np.nan


@jit
def information_array(beta, rho, s, nodes, weights, out):
    """Fill out (n,) with the mutual information per entry; NaN where an input is not valid."""
    sums = np.empty(4)
    for i in range(s.size):
        if beta[i] >= 1.0 and rho[i] > 0.0 and s[i] >= 0.0:
            out[i] = factor_information(beta[i], rho[i], s[i], nodes, weights, sums)
        else:
            out[i] = np.nan
