"""Labels of two tokens: hardmax, and softmax with noise after it.

Both depend on the two differences of scores ``u = (h11 - h12, h22 - h12)`` alone, of covariance
``V G`` around the estimate, ``G = [[3, 1], [1, 3]]``.
"""

from __future__ import annotations

import math

import numpy as np

from . import jit

__all__: list[str] = []

_RATIO = 1.0 / 3.0  # correlation of u1 and u2
_CROSS = math.sqrt(1.0 - _RATIO * _RATIO)
_ROOT2 = math.sqrt(2.0)
_ROOT_2PI = math.sqrt(2.0 * math.pi)
_FAR = 9.0  # standard deviations that a sum covers: exp(-9^2/2) = 3e-18
_STEP_H, _STEP_X = 0.3, 0.14  # of the trapezoidal rules: error 1e-14
_SURE = 16.0  # distance to a boundary from which on its label is certain
_TAIL = 35.0  # standard deviations up to which Z does not underflow
_BOX = 7.5  # standard deviations of noise or prior that an integral covers
_DEEP = 30.0  # loss of log-likelihood up to which it does
_SCAN = 80  # points that look for it
_FINE = 0.8  # step of the trapezoidal rule over the narrowest standard deviation of a posterior
_POINTS = 600  # at most

NODES, WEIGHTS = np.polynomial.legendre.leggauss(24)
ANGLES = 0.5 * math.asin(_RATIO) * (NODES + 1.0)
ANGLE_WEIGHTS = 0.5 * math.asin(_RATIO) * WEIGHTS / (2.0 * math.pi)
SINES, COSINES2 = np.sin(ANGLES), np.cos(ANGLES) ** 2


@jit
def ndtr(x):
    """Return the normal distribution function, accurate in the lower tail."""
    return 0.5 * math.erfc(-x / _ROOT2)


@jit
def _normal(x):
    return math.exp(-0.5 * x * x) / _ROOT_2PI


@jit
def _both_positive(h, k):
    """Return P(X < h, Y < k) at correlation 1/3: Plackett's integral over the correlation."""
    total = ndtr(h) * ndtr(k)
    for j in range(SINES.size):
        power = (h * h + k * k - 2.0 * h * k * SINES[j]) / (2.0 * COSINES2[j])
        total += ANGLE_WEIGHTS[j] * math.exp(-power)
    return total


@jit
def binormal(h, k, same):
    """Return P(X < h, Y < k) at correlation 1/3 (``same``) or -1/3, to relative precision."""
    if same:
        return _both_positive(h, k)
    if h > 0.0 and h >= k:
        return ndtr(k) - _both_positive(-h, k)
    if k > 0.0:
        return ndtr(h) - _both_positive(h, -k)
    # both in the tail: phi(h) int_0^inf exp(h t - t^2/2) Phi((k + (h - t)/3)/c) dt
    low, high = (h, k) if h < k else (k, h)
    # the slopes of the exponent at t = 0: that of phi and that of Phi
    rate = -low + _RATIO * max(-(high + _RATIO * low), 0.0) / (_CROSS * _CROSS)
    length = min(9.0, 40.0 / (rate + 1e-300))
    total = 0.0
    for j in range(NODES.size):
        t = 0.5 * length * (NODES[j] + 1.0)
        tail = ndtr((high + _RATIO * (low - t)) / _CROSS)
        total += 0.5 * length * WEIGHTS[j] * math.exp(low * t - 0.5 * t * t) * tail
    return _normal(low) * total


@jit
def hardmax_precision(ratio, step_h, step_x):
    """Return V precision of two tokens' hardmax at overlap over variance ``ratio``.

    With ``h_i = s_i omega_i/sqrt(3 V)``, a and b the derivatives of ``Z = Phi2(h1, h2; s1 s2/3)``,
    it is the average over omega of ``sum_s (3 a^2 + 3 b^2 + 2 s1 s2 a b)/(3 Z)``.  The derivative
    a confines h1 to the scale of ``sqrt(ratio/(1 + ratio))`` and, given h1, the integrand changes
    with h2 on the scale of 1 around ``s1 s2 h1/3``.
    """
    spread_h = math.sqrt(ratio / (1.0 + ratio))
    spread = _CROSS * math.sqrt(ratio)  # of h2 given h1
    unit = min(1.0, spread)
    reach = math.asinh(_FAR * spread / unit)
    count_h = math.ceil(_FAR / step_h)
    count_x = math.ceil(reach / step_x)
    total = 0.0
    for side in range(2):
        same = side == 0
        r = _RATIO if same else -_RATIO
        for i in range(-count_h, count_h + 1):
            x = i * step_h
            h = spread_h * x
            # N(h; 0, ratio) dh
            outer = step_h * spread_h * _normal(h / math.sqrt(ratio)) / math.sqrt(ratio)
            phi = _normal(h)
            for j in range(-count_x, count_x + 1):
                y = j * step_x
                move = unit * math.sinh(y)
                k = r * h + move
                if move < -10.0:  # Phi(move/c) is nothing
                    continue
                weight = outer * step_x * unit * math.cosh(y) * _normal(move / spread) / spread
                Z = binormal(h, k, same) if move < _SURE else ndtr(h)
                a = phi * ndtr(move / _CROSS)
                b = _normal(k) * ndtr((h - r * k) / _CROSS)
                # a^2 and b^2 have the same average, and so have s and -s
                total += 2.0 * weight * (2.0 * a * a + 2.0 * r * a * b) / Z
    return total


@jit
def hardmax_array(ratio, out):
    """Fill out (n,) with `hardmax_precision`."""
    for i in range(ratio.size):
        out[i] = hardmax_precision(ratio[i], _STEP_H, _STEP_X)


@jit
def hardmax_score(s1, s2, w1, w2, v, out):
    """Fill out (5,) with the gradient of log Z in (u1, u2) and its derivatives (11, 12, 22)."""
    root = math.sqrt(3.0 * v)
    r = _RATIO if s1 == s2 else -_RATIO
    # a label that contradicts omega by more is as good as impossible
    h, k = max(s1 * w1 / root, -_TAIL), max(s2 * w2 / root, -_TAIL)
    Z = max(binormal(h, k, s1 == s2), 1e-307)
    a = _normal(h) * ndtr((k - r * h) / _CROSS)
    b = _normal(k) * ndtr((h - r * k) / _CROSS)
    joint = _normal(h) * _normal((k - r * h) / _CROSS) / _CROSS
    ga, gb = a / Z, b / Z
    out[0], out[1] = s1 * ga / root, s2 * gb / root
    out[2] = (-h * ga - r * joint / Z - ga * ga) / root**2
    out[4] = (-k * gb - r * joint / Z - gb * gb) / root**2
    out[3] = s1 * s2 * (joint / Z - ga * gb) / root**2


@jit
def hardmax_scores(s1, s2, w1, w2, v, out):
    """Fill out (n, 5) with `hardmax_score` of every row."""
    for i in range(v.size):
        hardmax_score(s1[i], s2[i], w1[i], w2[i], v[i], out[i])


@jit
def _logit(y):
    if y <= 0.0:
        return -np.inf
    if y >= 1.0:
        return np.inf
    return math.log(y / (1.0 - y))


@jit
def _power(y, w, v, sharpness, delta, u):
    """Return minus the log-likelihood of one coordinate by its label and its prior alone."""
    gap = y - 1.0 / (1.0 + math.exp(-sharpness * u))
    return 0.5 * gap * gap / delta + (u - w) ** 2 / (6.0 * v)


@jit
def _axis(y, w, v, sharpness, delta, z, weight):
    """Fill z = u - omega and the weights of one coordinate: likelihood times its own prior part.

    A trapezoidal rule over what the prior and the label of this coordinate alone leave of it.
    Returns the number of points.
    """
    reach = _BOX * math.sqrt(3.0 * v)
    lo, hi = w - reach, w + reach
    # labels that the prior can reach, and the closest of them to y
    top, bottom = 1.0 / (1.0 + math.exp(-sharpness * hi)), 1.0 / (1.0 + math.exp(-sharpness * lo))
    miss = max(0.0, y - top, bottom - y)
    far = math.sqrt(miss * miss + _BOX * _BOX * delta)
    lo = max(lo, _logit(y - far) / sharpness)
    hi = min(hi, _logit(y + far) / sharpness)
    step = (hi - lo) / _SCAN
    least, first, last = np.inf, 0, _SCAN
    for i in range(_SCAN + 1):
        least = min(least, _power(y, w, v, sharpness, delta, lo + i * step))
    while _power(y, w, v, sharpness, delta, lo + (first + 1) * step) > least + _DEEP:
        first += 1
    while _power(y, w, v, sharpness, delta, lo + (last - 1) * step) > least + _DEEP:
        last -= 1
    hi = lo + last * step
    lo += first * step
    # |sigmoid'| <= 1/4, and 8 v/3 is the prior variance of one u given the other
    narrow = 1.0 / math.sqrt(sharpness * sharpness / (16.0 * delta) + 3.0 / (8.0 * v))
    narrow = min(narrow, 1.0 / sharpness)  # poles of sigmoid
    n = min(max(math.ceil((hi - lo) / (_FINE * narrow)), 8), _POINTS)
    step = (hi - lo) / n
    for j in range(n):
        u = lo + (j + 0.5) * step
        z[j] = u - w
        # of the prior's exponent (3 z1^2 - 2 z1 z2 + 3 z2^2)/(16 v) its own part
        own = 3.0 / 16.0 - 1.0 / 6.0
        weight[j] = math.exp(least - _power(y, w, v, sharpness, delta, u) - own * z[j] * z[j] / v)
    return n


@jit
def softmax_posterior(y1, y2, w1, w2, v, sharpness, delta, work, out):
    """Fill out (5,) with the posterior mean of u - omega and its covariance (11, 12, 22).

    ``work`` (4, 600) is scratch space.
    """
    z1, z2, p1, p2 = work[0], work[1], work[2], work[3]
    n1 = _axis(y1, w1, v, sharpness, delta, z1, p1)
    n2 = _axis(y2, w2, v, sharpness, delta, z2, p2)
    step = z2[1] - z2[0]
    total, m1, m2, m11, m12, m22 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(n1):
        a, b1, b2 = 0.0, 0.0, 0.0
        # exp(z1 z2/(8 v)) on a regular grid is a geometric series
        cross = math.exp(z1[i] * z2[0] / (8.0 * v))
        ratio = math.exp(z1[i] * step / (8.0 * v))
        for j in range(n2):
            p = p2[j] * cross
            a += p
            b1 += p * z2[j]
            b2 += p * z2[j] * z2[j]
            cross *= ratio
        total += p1[i] * a
        m1 += p1[i] * z1[i] * a
        m2 += p1[i] * b1
        m11 += p1[i] * z1[i] * z1[i] * a
        m12 += p1[i] * z1[i] * b1
        m22 += p1[i] * b2
    out[0], out[1] = m1 / total, m2 / total
    out[2] = m11 / total - out[0] * out[0]
    out[3] = m12 / total - out[0] * out[1]
    out[4] = m22 / total - out[1] * out[1]


@jit
def softmax_posteriors(y1, y2, w1, w2, v, sharpness, delta, out):
    """Fill out (n, 5) with `softmax_posterior` of every row."""
    work = np.empty((4, _POINTS))
    for i in range(y1.size):
        softmax_posterior(y1[i], y2[i], w1[i], w2[i], v[i], sharpness, delta, work, out[i])


@jit
def noisy_softmax_precision(q, v, sharpness, delta, normals):
    """Return the precision of two tokens' softmax with noise after it, averaged over ``normals``.

    Rows of ``normals`` are six standard normal numbers: two of omega, two of u - omega, two of the
    noise.  With e and C the posterior mean and covariance of u - omega, both ``e^T G^-1 e/v^2`` and
    ``(2 v - tr G^-1 C)/v^2`` have this average, since ``v G`` is the covariance of e plus the mean
    of C.  Their combination of least variance is taken.
    """
    size = normals.shape[0]
    work, out = np.empty((4, _POINTS)), np.empty(5)
    c, e, cc, ce, ee = 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(size):
        x = normals[i]
        # the square root of G: eigenvalues 4 and 2
        w1 = math.sqrt(q) * (_ROOT2 * x[0] + x[1])
        w2 = math.sqrt(q) * (_ROOT2 * x[0] - x[1])
        u1 = w1 + math.sqrt(v) * (_ROOT2 * x[2] + x[3])
        u2 = w2 + math.sqrt(v) * (_ROOT2 * x[2] - x[3])
        y1 = 1.0 / (1.0 + math.exp(-sharpness * u1)) + math.sqrt(delta) * x[4]
        y2 = 1.0 / (1.0 + math.exp(-sharpness * u2)) + math.sqrt(delta) * x[5]
        softmax_posterior(y1, y2, w1, w2, v, sharpness, delta, work, out)
        cov = 2.0 * v - (3.0 * out[2] - 2.0 * out[3] + 3.0 * out[4]) / 8.0
        square = (3.0 * out[0] ** 2 - 2.0 * out[0] * out[1] + 3.0 * out[1] ** 2) / 8.0
        c += cov
        e += square
        cc += cov * cov
        ce += cov * square
        ee += square * square
    c, e = c / size, e / size
    cc, ce, ee = cc / size - c * c, ce / size - c * e, ee / size - e * e
    share = (cc - ce) / (cc - 2.0 * ce + ee)
    return (c + share * (e - c)) / (v * v)
