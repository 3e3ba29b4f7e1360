"""Labels of two tokens: hardmax, and softmax with noise after it.

Both depend on the two differences of scores ``u = (h11 - h12, h22 - h12)`` alone.  Around their
estimate these have the covariance ``V G``, ``G = [[3, 1], [1, 3]]``, in the limit, and one of its
own for every sample of finite size: what message passing needs is written for any covariance.
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
_LOSS = 40.0  # of the logarithm of an integrand over a corner: exp(-40) = 4e-18
_TURN = 7.0  # standard deviations on both sides of a step that get a panel of their own
_TAIL = 4.0  # standard deviations from which on the Mills ratio is a continued fraction
_FLAT = 1e-14  # least ``1 - r^2``: below, two differences of scores are one and the same
_DEEP = 34.0  # loss of log-likelihood up to which an integral goes: exp(-34) = 2e-15
_HUGE = 300.0  # loss up to which exponentials of its parts fit into numbers
_SCAN = 64  # points that look for the ends
_TURNS = 60  # at most, of the search for a likely point
# step of the trapezoidal rule over the narrowest standard deviation of a posterior, and the same in
# an average over many of them: errors up to 1e-9 and 1e-6
_FINE, _COARSE = 0.5, 0.8
_POINTS = 4096  # at most
_STRAIGHT = 1.0 - 1e-5  # largest correlation that so many points resolve

NODES, WEIGHTS = np.polynomial.legendre.leggauss(24)
PANEL, PANEL_WEIGHTS = 0.5 * (NODES + 1.0), 0.5 * WEIGHTS
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
def _mills(q):
    """Return ``Phi(q)/phi(q)`` as a factor and an exponent, and ``E[q - X | X < q]``.

    The exponent is ``q^2/2``, or 0 for q < -4; all to relative precision in both tails.
    """
    if q > -_TAIL:
        factor, power = _ROOT_2PI * ndtr(q), 0.5 * q * q
        return factor, power, q + math.exp(-power) / factor
    # continued fraction, without its first term
    x = -q
    total = x
    for k in range(6 + int(160.0 / x), 1, -1):
        total = x + k / total
    return 1.0 / (x + 1.0 / total), 0.0, 1.0 / total


@jit
def _integrand(h, z, z2, slope, c, t):
    """Return factor and exponent of ``phi(h - t) Phi(z + slope t)``, up to a constant, and depth.

    With ``phi(h - t) phi(z + slope t)`` in one square if z < 0: large numbers do not cancel.
    """
    q = z + slope * t
    factor, power, depth = _mills(q)
    if h > 0.0:
        power = power - 0.5 * q * q - 0.5 * (h - t) ** 2
    elif z >= 0.0:
        power = power - 0.5 * q * q + h * t - 0.5 * t * t
    else:
        power += z2 * t / c - 0.5 * (t / c) ** 2
    return factor, power, depth


@jit
def corner(h, k, r, c):
    r"""Return what is known of normal X < h and Y < k, of correlation r, with ``c^2 = 1 - r^2``.

    The derivatives of ``log P(X < h, Y < k)`` in h and k, and the means of h - X and k - Y given
    that they are positive, all to relative precision however far h and k lie in the tails.  With
    t = h - X for the smaller of the two, which is where the corner is closest to 0 if 0 is outside,

    .. math:: P = \int_0^\infty \varphi(h - t)\, \Phi(q)\,\mathrm dt,\qquad
              q = \frac{k - r (h - t)}c,\qquad \langle k - Y\rangle = c\,\langle d(q)\rangle,

    with d the mean depth of `_mills`.  The integrand is log-concave, with a step of width ``c/|r|``
    where q changes its sign: Gauss-Legendre rules on the two sides of the step, on the step, and
    as far as the integrand is within exp(-40) of its maximum.  Every term is positive.
    """
    if not math.isfinite(h + k + r + c):
        return np.nan, np.nan, np.nan, np.nan
    swap = h > k
    if swap:
        h, k = k, h
    slope, z, z2 = r / c, (k - r * h) / c, (h - r * k) / c
    other, loss, depth = _mills(z)
    if h > 0.0:
        # the origin satisfies both: phi alone confines h - t, and has its maximum at t = h
        low, top, high = max(h - _FAR, 0.0), h, h + _FAR
        scale = 1.0 / (2.0 * math.pi)
    else:
        low, top = 0.0, 0.0
        scale = (math.exp(-loss) if z < 0.0 else 1.0) / other  # the integrand is 1 at t = 0
        # log-concave: below the square of its first two derivatives, then down by Newton's method
        # from above, which for a concave function does not pass the solution
        first = h + slope * (depth - z)
        far = math.hypot(first, math.sqrt(2.0 * _LOSS))
        high = first + far if first > 0.0 else 2.0 * _LOSS / (far - first)
        for _ in range(60):
            factor, power, depth = _integrand(h, z, z2, slope, c, high)
            value = power + math.log(scale * factor)
            if value > -1.5 * _LOSS:
                break
            q = z + slope * high
            high -= (value + _LOSS) / (h - high + slope * (depth - q))
    step, width = low, 0.0
    if slope != 0.0:
        step, width = -z / slope, _TURN / abs(slope)
    begin, end = min(max(step - width, low), high), min(max(step + width, low), high)
    edges = (low, min(begin, top), max(begin, min(top, end)), max(end, top), high)
    total, depth1, depth2 = 0.0, 0.0, 0.0
    for panel in range(4):
        left, right = edges[panel], edges[panel + 1]
        if right <= left:
            continue
        for j in range(PANEL.size):
            t = left + (right - left) * PANEL[j]
            factor, power, depth = _integrand(h, z, z2, slope, c, t)
            weight = (right - left) * PANEL_WEIGHTS[j] * scale * factor * math.exp(power)
            total += weight
            depth1 += weight * t
            depth2 += weight * c * depth
    if h > 0.0:
        a, b = _normal(h) * ndtr(z) / total, _normal(k) * ndtr(z2) / total
    else:
        # phi(h) phi(z) = phi(k) phi(z2)
        factor, power, depth = _mills(z2)
        # for large z and z2 without their squares
        power = 0.5 * (h - k) * (h + k) if power > 0.0 and loss > 0.0 else power - loss
        a, b = 1.0 / total, math.exp(power) * factor / (other * total)
    if swap:
        return b, a, depth2 / total, depth1 / total
    return a, b, depth1 / total, depth2 / total


@jit
def hardmax_score(s1, s2, w1, w2, c11, c12, c22, out):
    """Fill out (3,) with the gradient g of log Z in the mean of u and tr(C J).

    u ~ N(w, C), ``Z = P(s1 u1 > 0, s2 u2 > 0)`` and J are the second derivatives of log Z.  In
    units of the standard deviations, with a, b the first derivatives and t1, t2 the distances to
    the boundaries, ``tr(C J) = -(a <t1> + b <t2>)``.
    """
    d1, d2 = math.sqrt(c11), math.sqrt(c22)
    r = s1 * s2 * c12 / (d1 * d2)
    c = math.sqrt(max(1.0 - r * r, _FLAT))
    a, b, t1, t2 = corner(s1 * w1 / d1, s2 * w2 / d2, r, c)
    out[0], out[1] = s1 * a / d1, s2 * b / d2
    out[2] = -(a * t1 + b * t2)


@jit
def hardmax_scores(s1, s2, w1, w2, c11, c12, c22, out):
    """Fill out (n, 3) with `hardmax_score` of every row."""
    for i in range(s1.size):
        hardmax_score(s1[i], s2[i], w1[i], w2[i], c11[i], c12[i], c22[i], out[i])


@jit
def _logit(y):
    if y <= 0.0:
        return -np.inf
    if y >= 1.0:
        return np.inf
    return math.log(y / (1.0 - y))


@jit
def _miss(y):
    """Return how far a label is from those of any score without noise."""
    return max(y - 1.0, -y, 0.0)


@jit
def _misfit(y, w, sharpness, delta, z):
    """Return minus the log-likelihood of u = w + z by its label, less the least of all u."""
    gap, miss = abs(y - 1.0 / (1.0 + math.exp(-sharpness * (w + z)))), _miss(y)
    return 0.5 * (gap - miss) * (gap + miss) / delta


@jit
def _likely(y, w, m, var, sharpness, delta):
    """Return the z that its label and its prior N(m, var) favour: between m and what y says."""
    far = math.sqrt(2.0 * _misfit(y, w, sharpness, delta, m) * var)
    end = min(max(_logit(y) / sharpness - w - m, -far), far)
    begin, width, best = 0.0, 1.0, 0.0
    for _ in range(5):
        least, start = np.inf, begin
        for i in range(9):
            part = min(start + 0.125 * width * i, 1.0)
            z = end * part
            power = _misfit(y, w, sharpness, delta, m + z) + 0.5 * z * z / var
            if power < least:
                best, least = part, power
        width *= 0.25
        begin = max(best - 0.5 * width, 0.0)
    return m + end * best


@jit
def _axis(y, w, var, inner, sharpness, delta, likely, limit, fine, z, power):
    """Fill z = u - omega and `_misfit` of one coordinate; return the number of points.

    A trapezoidal rule over where label and prior of this coordinate alone lose less than
    ``limit``, as they do at ``likely``; ``inner`` is its prior variance given the other.
    """
    hi, far = math.sqrt(2.0 * limit * var), math.sqrt(_miss(y) ** 2 + 2.0 * limit * delta)
    lo = max(-hi, _logit(y - far) / sharpness - w)
    hi = min(hi, _logit(y + far) / sharpness - w)
    step, first, last = (hi - lo) / _SCAN, 0, _SCAN
    for i in range(_SCAN):
        x = lo + (i + 1) * step
        if x >= likely or _misfit(y, w, sharpness, delta, x) + 0.5 * x * x / var <= limit:
            break
        first = i + 1
    for i in range(_SCAN - first):
        x = hi - (i + 1) * step
        if x <= likely or _misfit(y, w, sharpness, delta, x) + 0.5 * x * x / var <= limit:
            break
        last = _SCAN - i - 1
    hi = lo + last * step
    lo += first * step
    # |sigmoid'| <= 1/4
    narrow = 1.0 / math.sqrt(sharpness * sharpness / (16.0 * delta) + 1.0 / inner)
    narrow = min(narrow, 1.0 / sharpness)  # poles of sigmoid
    n = min(max(math.ceil((hi - lo) / (fine * narrow)), 8), _POINTS)
    step = (hi - lo) / n
    for j in range(n):
        z[j] = lo + (j + 0.5) * step
        power[j] = _misfit(y, w, sharpness, delta, z[j])
    return n


@jit
def _correlation(c11, c12, c22):
    """Return the correlation of u1 and u2, as far as the rule for their posterior resolves it."""
    return min(max(c12 / (math.sqrt(c11) * math.sqrt(c22)), -_STRAIGHT), _STRAIGHT)


@jit
def softmax_posterior(y1, y2, w1, w2, c11, c12, c22, sharpness, delta, fine, work, out):
    """Fill out (5,) with the posterior mean of u - omega and its covariance (11, 12, 22).

    ``work`` (4, 4096) is scratch space.  Given z1 the prior of z2 is normal around
    ``m = c12 z1/c11``; on a regular grid its exponential is a series of two ratios.  Where label
    and prior of one coordinate lose more than both do at a likely point, and 34 more, there is
    nothing of the posterior.
    """
    z1, z2, p1, p2 = work[0], work[1], work[2], work[3]
    r = _correlation(c11, c12, c22)
    left, lean = 1.0 - r * r, r * math.sqrt(c22 / c11)
    inner = left * c22  # variance of z2 given z1
    # a likely point, by turns in both coordinates
    u = _likely(y1, w1, 0.0, c11, sharpness, delta)
    v, least, least2 = 0.0, np.inf, 0.0
    for _ in range(_TURNS):
        v = _likely(y2, w2, lean * u, inner, sharpness, delta)
        loss2 = _misfit(y2, w2, sharpness, delta, v)
        loss = loss2 + _misfit(y1, w1, sharpness, delta, u)
        loss += 0.5 * u * u / c11 + 0.5 * (v - lean * u) ** 2 / inner
        gain, least, least2 = least - loss, loss, loss2
        if gain < 1.0 or least < 1.0:
            break
        u = _likely(y1, w1, r * math.sqrt(c11 / c22) * v, left * c11, sharpness, delta)
    limit = least + _DEEP
    n1 = _axis(y1, w1, c11, left * c11, sharpness, delta, u, limit, fine, z1, p1)
    n2 = _axis(y2, w2, c22, inner, sharpness, delta, v, limit, fine, z2, p2)
    far = least > _HUGE  # exponentials of parts of the loss do not fit into numbers
    if not far:
        for j in range(n2):
            p2[j] = math.exp(least2 - p2[j])
    step = z2[1] - z2[0]
    turn = math.exp(-step * step / inner)
    total, m1, m2, m11, m12, m22 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(n1):
        m = lean * z1[i]
        loss = p1[i] + 0.5 * z1[i] * z1[i] / c11
        if not loss < limit:
            continue
        width = math.sqrt(2.0 * (limit - loss) * inner)
        low = max(math.ceil((m - width - z2[0]) / step), 0)
        high = min(math.floor((m + width - z2[0]) / step), n2 - 1)
        if low > high:
            continue
        off = z2[low] - m
        p = 1.0 if far else math.exp(least - least2 - loss - 0.5 * off * off / inner)
        ratio = math.exp(-(off + 0.5 * step) * step / inner)
        a, b1, b2 = 0.0, 0.0, 0.0
        for j in range(low, high + 1):
            if far:
                q = math.exp(least - loss - p2[j] - 0.5 * (z2[j] - m) ** 2 / inner)
            else:
                q = p * p2[j]
            a += q
            b1 += q * z2[j]
            b2 += q * z2[j] * z2[j]
            p *= ratio
            ratio *= turn
        total += a
        m1 += z1[i] * a
        m2 += b1
        m11 += z1[i] * z1[i] * a
        m12 += z1[i] * b1
        m22 += b2
    out[0], out[1] = m1 / total, m2 / total
    out[2] = m11 / total - out[0] * out[0]
    out[3] = m12 / total - out[0] * out[1]
    out[4] = m22 / total - out[1] * out[1]


@jit
def softmax_scores(y1, y2, w1, w2, c11, c12, c22, sharpness, delta, out):
    """Fill out (n, 3) with what `hardmax_score` fills in.

    With e and P the posterior mean and covariance of u - omega, ``g = C^-1 e`` and
    ``tr(C J) = tr(C^-1 P) - 2``.
    """
    work, moments = np.empty((4, _POINTS)), np.empty(5)
    for i in range(y1.size):
        softmax_posterior(
            *(y1[i], y2[i], w1[i], w2[i], c11[i], c12[i], c22[i]),
            *(sharpness, delta, _FINE, work, moments),
        )
        d1, d2 = math.sqrt(c11[i]), math.sqrt(c22[i])
        r = _correlation(c11[i], c12[i], c22[i])
        left = 1.0 - r * r
        e1, e2 = moments[0] / d1, moments[1] / d2
        out[i, 0] = (e1 - r * e2) / (left * d1)
        out[i, 1] = (e2 - r * e1) / (left * d2)
        told = moments[2] / c11[i] + moments[4] / c22[i] - 2.0 * r * moments[3] / (d1 * d2)
        out[i, 2] = told / left - 2.0


@jit
def softmax_posteriors(y1, y2, w1, w2, c11, c12, c22, sharpness, delta, out):
    """Fill out (n, 5) with `softmax_posterior` of every row."""
    work = np.empty((4, _POINTS))
    for i in range(y1.size):
        softmax_posterior(
            *(y1[i], y2[i], w1[i], w2[i], c11[i], c12[i], c22[i]),
            *(sharpness, delta, _FINE, work, out[i]),
        )


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
        softmax_posterior(
            *(y1, y2, w1, w2, 3.0 * v, v, 3.0 * v, sharpness, delta, _COARSE, work, out)
        )
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
