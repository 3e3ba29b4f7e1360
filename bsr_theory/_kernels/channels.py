"""Scalar output channels: what one label tells about a Gaussian output h.

Given the estimate omega of an output, ``h ~ N(omega, v)`` and over all labels ``omega ~ N(0, q)``
with ``q + v = 1``.  For a label y with evidence ``Z(y, omega) = E P_out(y | h)`` these loops give
the precision ``E Z g^2`` with ``g = d log Z/d omega``, the information ``E [-log Z]`` less its
value given h, and the error of the best prediction of the label.

Three facts turn them into sums of a few dozen terms.  The Gaussian tails of the evidence near a
threshold and of the law of omega multiply to a single Gaussian of variance
``q (v + delta)/(1 + delta)``, so that a trapezoidal rule in its standard variable converges
exponentially at every q.  For ``y = |h|`` the sign is an antipodal signal in Gaussian noise, and
the average over its strength and noise is one over their product, whose density is a Bessel
function.  And for ``|h|`` or ``max(h, 0)`` plus noise the parts of the evidence from either sign
of h are Gaussian up to a distribution function, so that only (omega, y) are summed over, y on
panels that follow the widths of the noise and of the kink.
"""

from __future__ import annotations

import math

import numpy as np

from . import jit

__all__: list[str] = []

PRECISION, INFORMATION, ERROR = range(3)  # what an array loop returns
ABS, RELU = range(2)

NODES, WEIGHTS = np.polynomial.legendre.leggauss(16)
# For the labels of the noisy channels: error 1e-12 at most.
RULES = {ABS: np.polynomial.legendre.leggauss(14), RELU: np.polynomial.legendre.leggauss(10)}

_SQRT2 = math.sqrt(2.0)
_ROOT_2PI = math.sqrt(2.0 * math.pi)
_LOG_ROOT_2PI = 0.5 * math.log(2.0 * math.pi)
_FAR = 8.6  # standard deviations that a sum covers: exp(-8.6^2/2) = 1e-16
_STEP = 0.4  # of the trapezoidal rule: the zeros of the evidence are 2.8 away, exp(-2 pi 7) = 1e-19
_CLOSE = 0.3  # share of the noise below which a difference of entropies is integrated instead
_NOISELESS = 1e-11  # standard deviation of the noise over that of y, taken as 0


# --------------------------------------------------------------------------------------------
# The normal law in its tails
# --------------------------------------------------------------------------------------------


@jit
def _deficit_series(t):
    """Return ``1 - x sqrt(pi) erfcx(x)`` for ``t = 1/(2 x^2)`` up to 1/200."""
    total = 1.0
    for n in range(13, 1, -1):
        total = 1.0 - (2 * n - 1) * t * total
    return t * total


@jit
def erfcx(x):
    """Return ``exp(x^2) erfc(x)`` to a few units in the last place; inf below -26.6."""
    if x >= 10.0:
        return (1.0 - _deficit_series(0.5 / (x * x))) / (x * math.sqrt(math.pi))
    # x^2 in two parts, so that its rounding is not blown up by the exponential
    high = np.float64(np.float32(x))
    return math.exp(high * high) * math.exp((x - high) * (x + high)) * math.erfc(x)


@jit
def log_ndtr(x):
    """Return the logarithm of the normal distribution function."""
    if x > -1.0:
        return math.log1p(-0.5 * math.erfc(x / _SQRT2))
    if x == -np.inf:
        return -np.inf
    return math.log(0.5 * erfcx(-x / _SQRT2)) - 0.5 * x * x


@jit
def hazard(x):
    """Return ``phi(x)/Phi(x)`` and the same plus x."""
    if x < -10.0 * _SQRT2:
        deficit = _deficit_series(1.0 / (x * x))
        return -x / (1.0 - deficit), -x * deficit / (1.0 - deficit)
    ratio = 0.0 if x >= 37.0 else 2.0 / (_ROOT_2PI * erfcx(-x / _SQRT2))
    return ratio, ratio + x


@jit
def log_add(a, b):
    """Return ``log(exp(a) + exp(b))``."""
    if a < b:
        a, b = b, a
    return a if a == -np.inf else a + math.log1p(math.exp(b - a))


@jit
def binary_entropy(p):
    """Return the entropy of a coin of probability p <= 1/2, in nats."""
    return -p * math.log(p) - (1.0 - p) * math.log1p(-p) if p > 0.0 else 0.0


# --------------------------------------------------------------------------------------------
# y = sign(h + sqrt(delta) xi)
# --------------------------------------------------------------------------------------------


@jit
def sign_precision(q, v, delta):
    """Return the precision of a sign: ``E k(x sqrt(q/(1 + delta)))``, x standard normal.

    ``k(u) = exp(-u^2/2)/(2 pi Phi(u) Phi(-u))``, over ``sqrt((v + delta)(1 + delta))``.
    """
    scale = math.sqrt(q / (1.0 + delta))
    total = 0.0
    x = 0.0
    while x < _FAR:
        z = x * scale / _SQRT2
        tail = erfcx(z)
        k = 1.0 / (math.pi * tail * (1.0 - 0.5 * tail * math.exp(-z * z)))
        total += (0.5 if x == 0.0 else 1.0) * math.exp(-0.5 * x * x) * k
        x += _STEP
    return 2.0 * _STEP / _ROOT_2PI * total / math.sqrt(v + delta) / math.sqrt(1.0 + delta)


@jit
def _sign_entropy(q, v, delta):
    """Return the mean entropy of a sign given omega."""
    scale = math.sqrt(q / (1.0 + delta))
    total = 0.0
    x = 0.0
    while x < _FAR:
        z = x * scale / _SQRT2
        p = 0.5 * math.erfc(z)
        entropy = math.exp(z * z) * binary_entropy(p)
        total += (0.5 if x == 0.0 else 1.0) * math.exp(-0.5 * x * x) * entropy
        x += _STEP
    return 2.0 * _STEP / _ROOT_2PI * total * math.sqrt((v + delta) / (1.0 + delta))


@jit
def sign_information(q, v, delta):
    """Return what a sign tells about h beyond omega."""
    if delta == 0.0:
        return _sign_entropy(q, v, 0.0)
    if v > _CLOSE * min(1.0, delta):
        return _sign_entropy(q, v, delta) - _sign_entropy(1.0, 0.0, delta)
    total = 0.0
    for i in range(NODES.size):
        below = 0.5 * v * (1.0 + NODES[i])
        total += WEIGHTS[i] * sign_precision(1.0 - below, below, delta)
    return 0.25 * v * total


@jit
def sign_array(what, q, v, delta, out):
    """Fill ``out`` with one answer for each point."""
    for i in range(out.size):
        if math.isnan(q[i] + v[i] + delta[i]):
            out[i] = np.nan
        elif what == PRECISION:
            out[i] = sign_precision(q[i], v[i], delta[i])
        elif what == INFORMATION:
            out[i] = sign_information(q[i], v[i], delta[i])
        else:
            out[i] = math.atan2(math.sqrt(v[i] + delta[i]), math.sqrt(q[i])) / math.pi


@jit
def sign_score(y, omega, V, delta, g, slope):
    """Fill ``g`` and its derivative."""
    for i in range(g.size):
        spread = V[i] + delta[i]
        if y[i] == 0.0 or math.isnan(y[i] + omega[i] + spread):
            g[i] = slope[i] = np.nan
            continue
        side = 1.0 if y[i] > 0.0 else -1.0
        root = math.sqrt(spread)
        ratio, rest = hazard(side * omega[i] / root)
        g[i] = side * ratio / root
        slope[i] = -ratio * rest / spread


# --------------------------------------------------------------------------------------------
# y = |h| and y = max(h, 0), without noise
# --------------------------------------------------------------------------------------------


@jit
def abs_precision(q, v, p, k1):
    """Return the precision of ``y = |h|``: p, k1 a rule for ``(2/pi) int p K_1(p) f(p) dp``."""
    root, total = math.sqrt(q), 0.0
    for i in range(p.size):
        rest = -math.expm1(-root * p[i])
        e = 1.0 - rest
        total += k1[i] * rest * rest / (1.0 + e * e)  # 1 - sech
    return (q / (1.0 + math.sqrt(v)) + math.sqrt(v) * total) / v


@jit
def abs_information(q, v, p, k0):
    """Return the information of ``y = |h|``: p, k0 a rule for ``(2/pi) int K_0(p) f(p) dp``."""
    root, total = math.sqrt(q), 0.0
    for i in range(p.size):
        a = root * p[i]
        total += k0[i] * (a * math.exp(-a) + math.cosh(a) * math.log1p(math.exp(-2.0 * a)))
    return 0.5 * math.log(v) - math.sqrt(v) * total


@jit
def _arc(theta):
    """Return ``sin(theta) - theta cos(theta)``."""
    if theta > 0.3:
        return math.sin(theta) - theta * math.cos(theta)
    # sum over n of 2n (-1)^(n+1) theta^(2n+1)/(2n+1)!
    square, term, total = theta * theta, theta, 0.0
    for n in range(1, 8):
        term *= square / ((2 * n) * (2 * n + 1))
        total += 2 * n * term if n % 2 else -2 * n * term
    return total


# --------------------------------------------------------------------------------------------
# y = |h| + sqrt(delta) xi and y = max(h, 0) + sqrt(delta) xi
# --------------------------------------------------------------------------------------------

# In units of sqrt(v + delta): U = omega, Y = y, r = v/(v + delta), e^2 = 1 - r.  The part of the
# evidence from h of sign s is phi(Y - s U) Phi((s U e^2 + Y r)/(e sqrt(r))); h < 0 of the
# rectifier has N(Y; 0, e^2) Phi(-U/sqrt(r)).  Of their derivatives in U what stems from h = 0 is
# +-e^2 and -1 times the joint density of Y and h = 0.


@jit
def _rectified_at(kind, U, r, e, with_information, nodes, weights):
    """Return ``int Z g^2`` and ``-int Z log(sqrt(2 pi e) Z)`` over Y at one U."""
    root = math.sqrt(r)
    e2 = e * e
    one, two = U * e / root, root / e  # argument of Phi: s U e/sqrt(r) + Y sqrt(r)/e
    off = 0.5 * math.erfc(U / (root * _SQRT2))
    top = U + _FAR
    if kind == ABS:
        top = abs(U) + _FAR
    top = max(top, _FAR * e)
    joint = math.exp(-0.5 * U * U / r) / (_ROOT_2PI * root * e)
    energy = entropy = 0.0
    left = -_FAR * e
    while left < top:
        # the noise has width e around 0; the sign is undecided up to Y of order 1
        width = 1.45 * e if left < 7.0 * e else left
        right = min(left + min(width, 1.0 if left < 3.0 else 2.0), top)
        half, middle = 0.5 * (right - left), 0.5 * (right + left)
        for i in range(nodes.size):
            Y = middle + half * nodes[i]
            plus = math.exp(-0.5 * (Y - U) ** 2) * 0.5 * math.erfc(-(one + Y * two) / _SQRT2)
            if kind == ABS:
                minus = math.exp(-0.5 * (Y + U) ** 2) * 0.5 * math.erfc((one - Y * two) / _SQRT2)
                Z = plus + minus
                slope = Y * (plus - minus) - U * Z
            else:
                noise = math.exp(-0.5 * Y * Y / e2)
                Z = plus + off / e * noise
                slope = (Y - U) * plus - r * joint * noise
            if Z > 1e-300:
                energy += half * weights[i] * slope * slope / Z
                if with_information:
                    entropy -= half * weights[i] * Z * (math.log(Z) + 0.5)
        left = right
    return energy / _ROOT_2PI, entropy / _ROOT_2PI


@jit
def rectified(kind, q, v, delta, with_information, nodes, weights):
    """Return precision and information of a noisy absolute value or rectifier."""
    spread = v + delta
    share = 1.0 if kind == ABS else 0.5
    if v == 0.0:
        return share / delta, 0.0
    r, e, tau = v / spread, math.sqrt(delta / spread), math.sqrt(q / spread)
    energy = entropy = 0.0
    if q == 0.0:
        energy, entropy = _rectified_at(kind, 0.0, r, e, with_information, nodes, weights)
    else:
        # beyond, h has the sign of omega, to the probability Phi(-U/sqrt(r)): what is known there
        # is taken off and added back, so that the trapezoidal rule ends where nothing is left
        top, known = _FAR * tau, (0.0, 0.0)
        if (_FAR + 0.4) * math.sqrt(r) < top:
            top, known = (_FAR + 0.4) * math.sqrt(r), (share, (1.0 - share) * math.log(e))
        # zeros of the evidence: 2.8 sqrt(r) away, and pi/(2 Y) or pi/Y, of the weight exp(-Y^2/2)
        fine, most = (0.085, 0.35) if kind == ABS else (0.2, 0.5)
        step = min(_STEP * math.sqrt(r), most * tau, fine)
        for j in range(int(top / step) + 1):
            U = j * step
            a, b = _rectified_at(kind, U, r, e, with_information, nodes, weights)
            c, d = a, b
            if kind == RELU and j > 0:
                c, d = _rectified_at(kind, -U, r, e, with_information, nodes, weights)
            mass = (1.0 if j == 0 else 2.0) * math.exp(-0.5 * (U / tau) ** 2)
            energy += mass * (0.5 * (a + c) - known[0])
            entropy += mass * (0.5 * (b + d) - known[1])
        energy = known[0] + step / (_ROOT_2PI * tau) * energy
        entropy = known[1] + step / (_ROOT_2PI * tau) * entropy
    return energy / spread, entropy - math.log(e)


@jit
def rectified_array(what, kind, q, v, delta, p, k0, k1, nodes, weights, out):
    """Fill ``out`` with one answer for each point; p, k0, k1 as in the noiseless functions."""
    share = 1.0 if kind == ABS else 0.5
    for i in range(out.size):
        if math.isnan(q[i] + v[i] + delta[i]):
            out[i] = np.nan
            continue
        noiseless = delta[i] <= _NOISELESS**2 * v[i]
        if what == ERROR:
            theta = 2.0 * math.asin(math.sqrt(0.5 * v[i]))
            factor = 2.0 / math.pi if kind == ABS else 0.5 / math.pi
            out[i] = delta[i] + share * v[i] - factor * _arc(theta)
        elif not noiseless:
            # what is left of an overlap far below the noise is below the smallest double
            overlap = q[i] if q[i] > 1e-305 * (1.0 + delta[i]) else 0.0
            a, b = rectified(kind, overlap, v[i], delta[i], what == INFORMATION, nodes, weights)
            out[i] = a if what == PRECISION else b
        elif v[i] == 0.0:
            out[i] = np.inf if what == PRECISION else -np.inf
        elif what == PRECISION:
            if kind == ABS:
                out[i] = abs_precision(q[i], v[i], p, k1)
            else:
                out[i] = 0.5 / v[i] + 0.5 * sign_precision(q[i], v[i], 0.0)
        else:
            if kind == ABS:
                out[i] = abs_information(q[i], v[i], p, k0)
            else:
                out[i] = 0.25 * math.log(v[i]) + 0.5 * sign_information(q[i], v[i], 0.0)
            if delta[i] > 0.0:
                out[i] -= 0.5 * share * math.log(delta[i])


@jit
def _noiseless_score(kind, y, omega, V):
    """Return g and its derivative for ``y = |h|`` or ``y = max(h, 0)``."""
    if y < 0.0 or math.isnan(y):
        return np.nan, np.nan
    if kind == ABS:
        a = omega * y / V
        e = math.exp(-2.0 * abs(a))
        g = (y * math.tanh(a) - omega) / V
        return g, (4.0 * e / (1.0 + e) ** 2 * y * y / V - 1.0) / V
    if y > 0.0:
        return (y - omega) / V, -1.0 / V
    root = math.sqrt(V)
    ratio, rest = hazard(-omega / root)
    return -ratio / root, -ratio * rest / V


@jit
def rectified_score(kind, y, omega, V, delta, g, slope):
    """Fill ``g`` and its derivative."""
    for i in range(g.size):
        if math.isnan(y[i] + omega[i] + V[i] + delta[i]):
            g[i] = slope[i] = np.nan
            continue
        if delta[i] == 0.0:
            g[i], slope[i] = _noiseless_score(kind, y[i], omega[i], V[i])
            continue
        spread = V[i] + delta[i]
        unit = math.sqrt(spread)
        Y, U, r, e = y[i] / unit, omega[i] / unit, V[i] / spread, math.sqrt(delta[i] / spread)
        root = math.sqrt(r)
        plus = log_ndtr(U * e / root + Y * root / e)
        # log of the joint density of y and h = 0, in the units of log_z
        kink = -0.5 * (Y * root / e) ** 2 - 0.5 * (U * e / root) ** 2 - math.log(root * e)
        kink -= _LOG_ROOT_2PI
        if kind == ABS:
            minus = log_ndtr(-U * e / root + Y * root / e)
            a = U * Y + 0.5 * (plus - minus)
            f = math.exp(-2.0 * abs(a))
            log_z = log_add(U * Y + plus, minus - U * Y)
            g[i] = (Y * math.tanh(a) - U) / unit
            joint = math.exp(kink - log_z)
            slope[i] = Y * Y * 4.0 * f / (1.0 + f) ** 2 - 1.0 + 2.0 * Y * e * e * joint
        else:
            a = U * Y + plus
            b = 0.5 * U * U - 0.5 * (Y * root / e) ** 2 - math.log(e) + log_ndtr(-U / root)
            log_z = log_add(a, b)
            weight, other, joint = math.exp(a - log_z), math.exp(b - log_z), math.exp(kink - log_z)
            score = weight * (Y - U) - r * joint
            g[i] = score / unit
            slope[i] = weight * (other * (Y - U) ** 2 - 1.0)
            slope[i] += joint * (e * e * Y + r * U + r * (weight * (Y - U) + score))
        slope[i] /= spread


# --------------------------------------------------------------------------------------------
# P(y = 1 | h) = 1/(1 + exp(-k h))
# --------------------------------------------------------------------------------------------


_FAINT = 1e-9  # gain below which the square of it is nothing beside 1
_STEEP = 1e10  # gain from which on a label is a sign, with this noise over the squared gain:
_STEP_NOISE = (
    1.8063  # int phi^2/(Phi (1 - Phi)), so that the precision at q = 1 is that of the gain
)


@jit
def _expit(x):
    """Return ``1/(1 + exp(-x))``."""
    if x >= 0.0:
        return 1.0 / (1.0 + math.exp(-x))
    e = math.exp(x)
    return e / (1.0 + e)


@jit
def _log_expit(x):
    """Return ``log(1/(1 + exp(-x)))``."""
    return -math.log1p(math.exp(-x)) if x >= 0.0 else x - math.log1p(math.exp(x))


@jit
def logistic_evidence(k, omega, V, nodes, weights):
    """Return log Z, Z'/Z and Z''/Z of the label -1, of likelihood ``1/(1 + exp(k h))``."""
    if V == 0.0:
        s = _expit(k * omega)
        return _log_expit(-k * omega), -k * s, k * k * s * (2.0 * s - 1.0)
    # h = omega + sqrt(V) t, so that no V is too small to be seen beside omega
    base, strength = k * omega, k * math.sqrt(V)
    # mode of the integrand, at which it falls at least as fast as the normal law of t
    low, high, mode = -strength, 0.0, -strength * _expit(base - 0.5 * strength * strength)
    for _ in range(60):
        s = _expit(base + strength * mode)
        f = mode + strength * s
        if f > 0.0:
            high = mode
        else:
            low = mode
        new = mode - f / (1.0 + strength * strength * s * (1.0 - s))
        if not low < new < high:
            new = 0.5 * (low + high)
        step = abs(new - mode)
        mode = new
        if step * max(1.0, strength) <= 0.01:
            break
    peak = _log_expit(-base - strength * mode) - 0.5 * mode * mode
    mass = first = second = 0.0
    if strength <= 3.0:
        # trapezoidal rule; the poles of the likelihood are pi/strength away
        step = 0.6
        if strength > 0.3:
            step = min(0.6, 19.7 / (strength * (38.0 + 4.9 / strength**2)))
        count = int(_FAR / step) + 1
        for j in range(-count, count + 1):
            t = mode + j * step
            x = base + strength * t
            e = math.exp(-abs(x))
            rest = 1.0 / (1.0 + e)
            s = rest if x >= 0.0 else e * rest
            f = rest * math.exp(-max(x, 0.0) - 0.5 * t * t - peak)
            mass += f
            first += f * s
            second += f * s * (2.0 * s - 1.0)
        mass, first, second = mass * step, first * step, second * step
    else:
        left, end = mode - _FAR, mode + _FAR
        while left < end:
            right = min(left + 3.0, end)
            for edge in (-40.0, -12.0, -4.0, 0.0, 4.0, 12.0, 40.0):
                if left < (edge - base) / strength < right:
                    right = (edge - base) / strength
            half, middle = 0.5 * (right - left), 0.5 * (right + left)
            for i in range(nodes.size):
                t = middle + half * nodes[i]
                x = base + strength * t
                e = math.exp(-abs(x))
                rest = 1.0 / (1.0 + e)
                s = rest if x >= 0.0 else e * rest
                f = half * weights[i] * rest * math.exp(-max(x, 0.0) - 0.5 * t * t - peak)
                mass += f
                first += f * s
                second += f * s * (2.0 * s - 1.0)
            left = right
    log_z = peak + math.log(mass / _ROOT_2PI)
    return log_z, -k * first / mass, k * k * second / mass


@jit
def logistic_mean(what, k, q, v, nodes, weights):
    """Return precision, mean entropy of the label given omega, or its probability of error."""
    if q == 0.0:
        log_z, a, _ = logistic_evidence(k, 0.0, v, nodes, weights)
        p = math.exp(log_z)
        if what == PRECISION:
            return p * a * a / (1.0 - p)
        return binary_entropy(p) if what == INFORMATION else p
    root, width = math.sqrt(q), math.sqrt(v)
    reach = max(width, 1.0 / k)
    end = min(_FAR * root, 9.0 * width + 40.0 / k + min(k * v, 9.0 * width))
    total = 0.0
    if what == ERROR:  # even, but not smooth at 0
        left = 0.0
        while left < end:
            right = min(left + 2.0 * min(root, reach), end)
            half, middle = 0.5 * (right - left), 0.5 * (right + left)
            for i in range(nodes.size):
                omega = middle + half * nodes[i]
                log_z, _, _ = logistic_evidence(k, omega, v, nodes, weights)
                total += half * weights[i] * math.exp(log_z - 0.5 * omega * omega / q)
            left = right
        return 2.0 * total / (_ROOT_2PI * root)
    step = min(0.5 * root, max(math.pi / k, 2.8 * width) / 6.5)
    count = int(end / step) + 1
    for j in range(count):
        omega = j * step
        log_z, a, _ = logistic_evidence(k, omega, v, nodes, weights)
        p = math.exp(log_z)
        term = p * a * a / (1.0 - p) if what == PRECISION else binary_entropy(p)
        total += (0.5 if j == 0 else 1.0) * math.exp(-0.5 * omega * omega / q) * term
    return 2.0 * step * total / (_ROOT_2PI * root)


@jit
def logistic_array(what, q, v, gain, nodes, weights, out):
    """Fill ``out`` with one answer for each point."""
    for i in range(out.size):
        k = gain[i]
        if math.isnan(q[i] + v[i] + k):
            out[i] = np.nan
        elif k > _STEEP:
            delta = (_STEP_NOISE / min(k, 1e150)) ** 2
            if what == PRECISION:
                out[i] = sign_precision(q[i], v[i], delta)
            elif what == INFORMATION:
                out[i] = sign_information(q[i], v[i], delta)
            else:
                out[i] = math.atan2(math.sqrt(v[i] + delta), math.sqrt(q[i])) / math.pi
        elif k < _FAINT:
            if what == PRECISION:
                out[i] = 0.25 * k * k
            elif what == INFORMATION:
                out[i] = 0.125 * k * k * v[i]
            else:
                out[i] = 0.5 - 0.5 * k * math.sqrt(q[i]) / _ROOT_2PI
        elif what != INFORMATION:
            out[i] = logistic_mean(what, k, q[i], v[i], nodes, weights)
        elif v[i] > _CLOSE * min(1.0, 1.0 / (k * k)):
            given = logistic_mean(what, k, 1.0, 0.0, nodes, weights)
            out[i] = logistic_mean(what, k, q[i], v[i], nodes, weights) - given
        else:
            total = 0.0
            for j in range(nodes.size):
                below = 0.5 * v[i] * (1.0 + nodes[j])
                value = logistic_mean(PRECISION, k, 1.0 - below, below, nodes, weights)
                total += weights[j] * value
            out[i] = 0.25 * v[i] * total


@jit
def logistic_score(y, omega, V, gain, nodes, weights, g, slope):
    """Fill ``g`` and its derivative."""
    for i in range(g.size):
        if y[i] == 0.0 or math.isnan(y[i] + omega[i] + V[i] + gain[i]):
            g[i] = slope[i] = np.nan
            continue
        side = 1.0 if y[i] > 0.0 else -1.0
        _, a, b = logistic_evidence(gain[i], -side * omega[i], V[i], nodes, weights)
        g[i] = -side * a
        slope[i] = b - a * a


# --------------------------------------------------------------------------------------------
# y = number of thresholds below h + sqrt(delta) xi
# --------------------------------------------------------------------------------------------


@jit
def bin_evidence(left, right, nodes, weights):
    """Return log P, P'/P and P''/P of ``P(x) = Phi(right - x) - Phi(left - x)`` at x = 0."""
    side = 1.0
    if right <= 0.0:
        left, right, side = -right, -left, -1.0
    width = right - left
    if left < 0.0:
        P = 0.5 * (math.erf(right / _SQRT2) - math.erf(left / _SQRT2))
        a = (math.exp(-0.5 * left * left) - math.exp(-0.5 * right * right)) / _ROOT_2PI
        if width < 1.0:
            change = math.expm1(-0.5 * width * (left + right))
            a = -change * math.exp(-0.5 * left * left) / _ROOT_2PI
        b = left * math.exp(-0.5 * left * left) if left > -np.inf else 0.0
        b -= right * math.exp(-0.5 * right * right) if right < np.inf else 0.0
        return math.log(P), side * a / P, b / (_ROOT_2PI * P)
    # phi(right)/phi(left) - 1
    fall = -1.0 if right == np.inf else math.expm1(-0.5 * width * (left + right))
    if width < 0.5 and width * right < 4.0:
        P = 0.0
        for i in range(nodes.size):
            x = 0.5 * width * (1.0 + nodes[i])
            P += 0.5 * width * weights[i] * math.exp(-x * (left + 0.5 * x))
    else:
        P = 0.5 * _ROOT_2PI * erfcx(left / _SQRT2)
        if right < np.inf:
            P -= (1.0 + fall) * 0.5 * _ROOT_2PI * erfcx(right / _SQRT2)
    b = left if right == np.inf else -width - right * fall
    return math.log(P) - 0.5 * left * left - _LOG_ROOT_2PI, -side * fall / P, b / P


@jit
def _edges(thresholds, j):
    """Return the ends of bin j."""
    left = thresholds[j - 1] if j > 0 else -np.inf
    right = thresholds[j] if j < thresholds.size else np.inf
    return left, right


@jit
def _bin_sum(what, left, right, base, end, q, spread, delta, nodes, weights):
    """Return the sum over omega of Z g^2 (in units of spread) or -Z log Z of one bin.

    Around a threshold t the evidence and the law of omega make one Gaussian, around
    ``t q/(1 + delta)`` and of this width: from the one of ``base`` to the one of ``end``.
    """
    narrow, width = math.sqrt(q * spread / (1.0 + delta)), math.sqrt(spread)
    centre, lag = base * q / (1.0 + delta), base * spread / (1.0 + delta)
    stop = (end - base) * q / (1.0 + delta) + _FAR * narrow
    total, step = 0.0, _STEP * narrow
    x = -_FAR * narrow
    while x <= stop:
        density = math.exp(-0.5 * (centre + x) ** 2 / q)
        if density > 0.0:
            log_p, a, _ = bin_evidence(
                (left - base + lag - x) / width, (right - base + lag - x) / width, nodes, weights
            )
            p = math.exp(log_p)
            total += density * (p * a * a if what == PRECISION else -p * log_p)
        x += step
    return total * step / (_ROOT_2PI * math.sqrt(q))


@jit
def quantized_mean(what, thresholds, q, v, delta, nodes, weights):
    """Return the precision or the mean entropy of the label given omega."""
    spread = v + delta
    if spread == 0.0:
        return np.inf if what == PRECISION else 0.0
    width = math.sqrt(spread)
    apart = 2.0 * _FAR * math.sqrt(spread * (1.0 + delta) / q) if q > 0.0 else 0.0
    total = 0.0
    for j in range(thresholds.size + 1):
        left, right = _edges(thresholds, j)
        if q == 0.0:
            log_p, a, _ = bin_evidence(left / width, right / width, nodes, weights)
            p = math.exp(log_p)
            total += p * a * a if what == PRECISION else -p * log_p
        elif left > -np.inf and right - left < apart:
            total += _bin_sum(what, left, right, left, right, q, spread, delta, nodes, weights)
        else:
            for edge in (left, right):
                if math.isfinite(edge):
                    total += _bin_sum(
                        what, left, right, edge, edge, q, spread, delta, nodes, weights
                    )
    return total / spread if what == PRECISION else total


@jit
def _bin_probability(left, right, omega, width, nodes, weights):
    """Return log P of one bin."""
    return bin_evidence((left - omega) / width, (right - omega) / width, nodes, weights)[0]


@jit
def quantized_error(thresholds, q, v, delta, nodes, weights):
    """Return the probability that the likeliest bin given omega is not that of the label.

    The likeliest bin moves up with omega: bins are stacked by where each overtakes the last.
    """
    spread = v + delta
    if spread == 0.0:
        return 0.0
    width, root = math.sqrt(spread), math.sqrt(q)
    bins = thresholds.size + 1
    best, start = np.zeros(bins, np.int64), np.full(bins, -np.inf)
    count = 1
    far = 40.0 * (1.0 + width) + np.max(np.abs(thresholds))
    for j in range(1, bins):
        left, right = _edges(thresholds, j)
        while True:
            low, high = -far, far
            a, b = _edges(thresholds, best[count - 1])
            for _ in range(200):
                x = 0.5 * (low + high)
                if x in (low, high):
                    break
                new = _bin_probability(left, right, x, width, nodes, weights)
                if new > _bin_probability(a, b, x, width, nodes, weights):
                    high = x
                else:
                    low = x
            if high > start[count - 1] or count == 1:
                break
            count -= 1
        best[count], start[count] = j, high
        count += 1
    if q == 0.0:
        log_p = -np.inf
        for i in range(bins):
            left, right = _edges(thresholds, i)
            log_p = max(log_p, _bin_probability(left, right, 0.0, width, nodes, weights))
        return -math.expm1(log_p)
    if width < 1e-9 * min(root, np.min(np.diff(thresholds))) if bins > 2 else width < 1e-9 * root:
        # errors happen next to a threshold: int Phi(-|u|) du = sqrt(2/pi)
        density = np.sum(np.exp(-0.5 * (thresholds / root) ** 2)) / (_ROOT_2PI * root)
        return 2.0 / _ROOT_2PI * width * density
    error = 0.0
    for i in range(count):
        left, right = _edges(thresholds, best[i])
        low = max(start[i], -_FAR * root)
        high = min(start[i + 1] if i + 1 < count else np.inf, _FAR * root)
        while low < high:
            end = min(low + 1.5 * min(width, root), high)
            # where the bin is nearly certain, jump
            if low < right - _FAR * width and low > left + _FAR * width:
                end = min(high, right - _FAR * width)
            else:
                half, middle = 0.5 * (end - low), 0.5 * (end + low)
                for n in range(nodes.size):
                    omega = middle + half * nodes[n]
                    below = 0.5 * math.erfc((omega - left) / (width * _SQRT2))
                    above = 0.5 * math.erfc((right - omega) / (width * _SQRT2))
                    density = math.exp(-0.5 * omega * omega / q) / (_ROOT_2PI * root)
                    error += half * weights[n] * density * (below + above)
            low = end
    return error


@jit
def quantized_array(what, thresholds, q, v, delta, nodes, weights, out):
    """Fill ``out`` with one answer for each point."""
    for i in range(out.size):
        noise = delta[i]
        overlap = q[i] if q[i] > 1e-300 else 0.0
        if math.isnan(q[i] + v[i] + noise):
            out[i] = np.nan
        elif what == PRECISION:
            out[i] = quantized_mean(what, thresholds, overlap, v[i], noise, nodes, weights)
        elif what == ERROR:
            out[i] = quantized_error(thresholds, overlap, v[i], noise, nodes, weights)
        elif noise == 0.0 or v[i] > _CLOSE * min(1.0, noise):
            out[i] = quantized_mean(what, thresholds, overlap, v[i], noise, nodes, weights)
            if noise > 0.0:
                out[i] -= quantized_mean(what, thresholds, 1.0, 0.0, noise, nodes, weights)
        else:
            total = 0.0
            for j in range(nodes.size):
                below = 0.5 * v[i] * (1.0 + nodes[j])
                value = quantized_mean(
                    PRECISION, thresholds, 1.0 - below, below, noise, nodes, weights
                )
                total += weights[j] * value
            out[i] = 0.25 * v[i] * total


@jit
def quantized_score(y, omega, V, delta, thresholds, nodes, weights, g, slope):
    """Fill ``g`` and its derivative."""
    for i in range(g.size):
        if not 0.0 <= y[i] <= thresholds.size or y[i] != math.floor(y[i]):
            g[i] = slope[i] = np.nan
            continue
        width = math.sqrt(V[i] + delta[i])
        left, right = _edges(thresholds, int(y[i]))
        _, a, b = bin_evidence(
            (left - omega[i]) / width, (right - omega[i]) / width, nodes, weights
        )
        g[i] = a / width
        slope[i] = (b - a * a) / (V[i] + delta[i])


# --------------------------------------------------------------------------------------------
# Many overlaps
# --------------------------------------------------------------------------------------------


@jit
def chebyshev(coefficients, panel, x, out):
    """Fill ``out`` with ``sum_k coefficients[panel, k] T_k(x)`` (Clenshaw)."""
    degree = coefficients.shape[1] - 1
    for i in range(out.size):
        row = coefficients[panel[i]]
        a = b = 0.0
        for k in range(degree, 0, -1):
            a, b = row[k] + 2.0 * x[i] * a - b, a
        out[i] = row[0] + x[i] * a - b
