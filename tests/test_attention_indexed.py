"""Attention-indexed models: channels of token pairs and the problems made of them."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from mpmath import matrix, mp, mpf
from mpmath.calculus.quadrature import GaussLegendre
from scipy.special import expit, softmax
from scipy.stats import multivariate_normal, norm, truncnorm

from bsr_theory import (
    Problem,
    Status,
    bilinear_regression,
    fixed_points,
    free_entropy,
    iterate,
    solve,
)
from bsr_theory._kernels import attention as kernels
from bsr_theory.attention import (
    HardmaxChannel,
    LinearTokenChannel,
    NoisySoftmaxChannel,
    SoftmaxChannel,
    cross_attention,
    hardmax_attention,
    linear_attention,
    quadratic_network,
    self_attention,
    softmax_attention,
)
from bsr_theory.priors import GaussianFactorPrior, SymmetricFactorPrior

G = np.array([[3.0, 1.0], [1.0, 3.0]])  # covariance of (h11 - h12, h22 - h12)


def tied_scores(rng, size, tokens, variance=1.0):
    """Symmetric scores of covariance ``variance D``."""
    z = rng.standard_normal((*size, tokens, tokens))
    return np.sqrt(variance) * (z + np.swapaxes(z, -1, -2)) / math.sqrt(2)


def random_covariance(rng, correlation=None):
    """C of (h11, h12, h22) for which the two differences have this correlation."""
    A = np.array([[1.0, -1.0, 0.0], [0.0, -1.0, 1.0]])
    r = rng.uniform(-0.9, 0.9) if correlation is None else correlation
    d = rng.uniform(0.5, 3.0, 2)
    return np.linalg.pinv(A) @ (np.outer(d, d) * [[1, r], [r, 1]]) @ np.linalg.pinv(A).T


def panels(ends, degree=4):
    """Points and weights of Gauss-Legendre rules between sorted ends, in high precision."""
    rule = GaussLegendre(mp).calc_nodes(degree, mp.prec)
    return [
        (low + (high - low) * (1 + x) / 2, (high - low) * w / 2)
        for low, high in itertools.pairwise(ends)
        for x, w in rule
    ]


def exact_corner(h, k, c, sign):
    """What `kernels.corner` returns, from P as an integral over x and what it says about means."""
    h, k, c = mpf(h), mpf(k), mpf(c)
    r = sign * mp.sqrt(1 - c * c)
    far = max(h, mpf(0)) + 16
    ends = {mpf(0), far}
    # a ladder of panels from every place where the integrand turns, on its scale
    for place, scale in ((0, 1), (h - k / r, c / abs(r)), (h, 1)):
        steps = [sign * scale * mpf(2) ** j for j in range(-30, 7) for sign in (1, -1)]
        ends |= {place + x for x in [0, *steps] if 0 < place + x < far}
    total = sum(
        w * mp.npdf(h - t) * mp.ncdf((k - r * (h - t)) / c) for t, w in panels(sorted(ends))
    )
    a = mp.npdf(h) * mp.ncdf((k - r * h) / c) / total
    b = mp.npdf(k) * mp.ncdf((h - r * k) / c) / total
    return [float(x) for x in (a, b, h + a + r * b, k + b + r * a)]


def exact_score(likelihoods, ends, w, C):
    """Gradient of log Z in w and tr(C J), from the posterior moments of u ~ N(w, C) over a box."""
    inverse = matrix(C) ** -1
    sums = [mpf(0)] * 6
    # z = u - w and all of a point's weight that depends on one u alone
    one, two = (
        [
            (u - x, weight * f(u) * mp.exp(-inverse[i, i] * (u - x) ** 2 / 2))
            for u, weight in panels(end)
        ]
        for i, (f, end, x) in enumerate(zip(likelihoods, ends, w, strict=True))
    )
    for z1, p1 in one:
        for z2, p2 in two:
            p = p1 * p2 * mp.exp(-inverse[0, 1] * z1 * z2)
            for i, x in enumerate((1, z1, z2, z1 * z1, z1 * z2, z2 * z2)):
                sums[i] += p * x
    m1, m2, m11, m12, m22 = (x / sums[0] for x in sums[1:])
    g = inverse * matrix([m1, m2])
    P = matrix([[m11 - m1 * m1, m12 - m1 * m2], [m12 - m1 * m2, m22 - m2 * m2]])
    told = inverse * P
    return [float(x) for x in (g[0], g[1], told[0, 0] + told[1, 1] - 2)]


def differences(h):
    return np.stack([h[..., 0, 0] - h[..., 0, 1], h[..., 1, 1] - h[..., 1, 0]], axis=-1)


# error against alpha K, for every noiseless tied problem that is linear in disguise
EQUATIONS = np.array([0.02, 0.05, 0.1, 0.2, 0.3, 0.4])
COLLAPSE = {
    0.1: [0.937102, 0.717946, 0, 0, 0, 0],
    0.2: [0.950728, 0.835254, 0.561475, 0, 0, 0],
    0.5: [0.956697, 0.879171, 0.723677, 0.392196, 0.128131, 0],
    1.0: [0.958408, 0.890322, 0.764917, 0.499922, 0.261453, 0.084265],
}


class TestLinearAndSoftmax:
    @pytest.mark.parametrize("rho", COLLAPSE)
    def test_errors_collapse_on_equations_per_entry(self, rho):
        problems = [quadratic_network(EQUATIONS, rho)]
        problems += [linear_attention(EQUATIONS / (t * (t + 1) // 2), rho, t) for t in (1, 2, 3)]
        problems += [
            softmax_attention(EQUATIONS / (t * (t + 1) // 2 - 1), rho, t, sharpness=2.5)
            for t in (2, 3, 5)
        ]
        for problem in problems:
            point = solve(problem)
            np.testing.assert_allclose(point.mmse, COLLAPSE[rho], atol=6e-7)
            np.testing.assert_allclose(point.q + point.mmse, 1 + rho, rtol=1e-12)

    def test_with_noise(self):
        network = solve(quadratic_network([0.1, 0.3, 1.0], 0.5, 0.2))
        np.testing.assert_allclose(network.mmse, [0.761776, 0.311079, 0.051913], atol=6e-7)
        # qhat = 4 alpha/(Delta + 2 V), in the terms of quadratic networks
        qhat = 4 * np.array([0.1, 0.3, 1.0]) / (0.2 + 2 * network.mmse)
        np.testing.assert_allclose(network.qhat, qhat, rtol=1e-10)
        attention = solve(softmax_attention(np.array([0.1, 0.3, 1.0]) / 2, 0.5, 2, delta=0.1))
        np.testing.assert_allclose(attention.mmse, network.mmse, rtol=1e-10)

    @pytest.mark.parametrize("rho", [0.05, 0.4, 1.0, 3.0])
    @pytest.mark.parametrize("tokens", [2, 4])
    def test_strong_recovery(self, rho, tokens):
        threshold = (2 * min(rho, 1) - min(rho, 1) ** 2) / (tokens**2 + tokens - 2)
        above = solve(softmax_attention(threshold * (1 + 1e-12), rho, tokens))
        below = solve(softmax_attention(threshold * (1 - 1e-6), rho, tokens))
        assert above.status is Status.PERFECT_RECOVERY
        assert (above.mmse, above.q) == (0.0, 1 + rho)
        assert below.status is Status.CONVERGED
        assert 0 < below.mmse < 1e-3

    def test_small_rank(self):
        # x = alpha K/rho: nothing up to 1/2, then 4 x (1 - x)
        for rho, tol in ((1e-3, 0.02), (1e-5, 0.002)):
            x = np.array([0.3, 0.6, 0.7, 0.9])
            mmse = solve(quadratic_network(x * rho, rho)).mmse
            np.testing.assert_allclose(mmse, [1, 0.96, 0.84, 0.36], atol=tol)

    def test_full_rank_is_ridge(self):
        x = np.array([0.1, 0.25, 0.4])
        mmse = solve(softmax_attention(x / 5, 1e6, 3)).mmse
        np.testing.assert_allclose(mmse, 1 - 2 * x, rtol=1e-5)

    @pytest.mark.parametrize("channel", [
        LinearTokenChannel(3, 3, delta=0.3),
        LinearTokenChannel(2, 3, False, 0.3),
        SoftmaxChannel(3, 3, delta=0.3, sharpness=0.7),
        SoftmaxChannel(2, 3, False, 0.3, 2.0),
        SoftmaxChannel(4, 4, False, 0.3, masked=True),
    ])  # fmt: skip
    def test_score_is_that_of_a_gaussian_vector(self, channel):
        rng = np.random.default_rng(4)
        a, b = channel.queries, channel.keys
        pairs = [(i, j) for i in range(a) for j in range(b) if not channel.tied or i <= j]
        D = np.array([1.0 + (channel.tied and i == j) for i, j in pairs])
        # the linear map from the pairs to what the label tells: differences in a row
        rows = []
        for i in range(a):
            inside = [j for j in range(b) if not (getattr(channel, "masked", False) and i == j)]
            if not isinstance(channel, SoftmaxChannel):
                rows += [{(i, j): 1.0} for j in inside]
                continue
            rows += [{(i, j): 1.0, (i, inside[0]): -1.0} for j in inside[1:]]
        A = np.zeros((len(rows), len(pairs)))
        for k, row in enumerate(rows):
            for (i, j), value in row.items():
                A[k, pairs.index((min(i, j), max(i, j)) if channel.tied else (i, j))] += value
        V, q = 0.4, 0.8
        h, omega = np.zeros((50, a, b)), np.zeros((50, a, b))
        h, omega = (
            tied_scores(rng, (50,), a) if channel.tied else rng.standard_normal((50, a, b))
            for _ in range(2)
        )
        y = channel.sample(h, rng=7)
        noisy = LinearTokenChannel(a, b, channel.tied, 0.3).sample(h, rng=7)
        g, divergence = channel.score(y, omega, V)
        covariance = (V + channel.delta) * A @ np.diag(D) @ A.T
        inverse = np.linalg.pinv(covariance)
        for n in range(50):
            z = A @ np.array([(noisy - omega)[n, i, j] for i, j in pairs])
            exact = A.T @ inverse @ z
            found = [g[n, i, j] for i, j in pairs]
            np.testing.assert_allclose(found, exact, rtol=1e-9, atol=1e-10)
        J = -A.T @ inverse @ A
        np.testing.assert_allclose(divergence, np.trace(np.diag(D) @ J), rtol=1e-12)
        # E g^T D g = -divergence = precision
        assert channel.equations == np.linalg.matrix_rank(A)
        assert channel.precision(q, V) == pytest.approx(-divergence[0], rel=1e-12)
        assert channel.precision(q, V) == pytest.approx(channel.equations / (V + 0.3))

    def test_softmax_is_inverted_up_to_what_it_forgets(self):
        rng = np.random.default_rng(0)
        channel = SoftmaxChannel(4, 4, sharpness=3.0)
        h = tied_scores(rng, (5,), 4)
        y = channel.sample(h)
        np.testing.assert_allclose(y, softmax(3.0 * h, axis=-1))
        found = channel.scores_of(y)
        np.testing.assert_allclose(found, h - h.mean(axis=(1, 2), keepdims=True), atol=1e-12)
        np.testing.assert_array_equal(found, np.swapaxes(found, 1, 2))
        masked = SoftmaxChannel(4, 4, False, masked=True)
        y = masked.sample(rng.standard_normal((4, 4)))
        np.testing.assert_array_equal(np.diag(y), 0.0)
        np.testing.assert_allclose(y.sum(axis=1), 1.0)
        with pytest.raises(ValueError, match="y must have positive entries, got 0"):
            channel.scores_of(np.eye(4))

    def test_label_error(self):
        # softmax of two tokens: without data, and at the solution of alpha = 0.1
        mmse = solve(softmax_attention(0.1, 0.5)).mmse
        one, three = SoftmaxChannel(), SoftmaxChannel(sharpness=3.0)
        assert one.generalization_error(0.5, 1.0) == pytest.approx(0.0717050, abs=6e-8)
        assert one.generalization_error(1.5 - mmse, mmse) == pytest.approx(0.0302131, abs=6e-8)
        assert three.generalization_error(1.5 - mmse, mmse) == pytest.approx(0.0696901, abs=6e-8)
        assert one.generalization_error(1.5, 0.0) == pytest.approx(0.0, abs=1e-15)
        assert np.isnan(one.generalization_error([math.nan, 1.0], 0.2)).tolist() == [True, False]
        # more tokens, against a simulation of the definition
        rng = np.random.default_rng(1)
        q, v, draws = 0.8, 0.5, 200
        for channel in (SoftmaxChannel(3, 3), SoftmaxChannel(1, 4, False, delta=0.1)):
            root = np.array([1 + channel.tied] + [1] * (channel.keys - 1)) ** 0.5
            omega = math.sqrt(q) * root * rng.standard_normal((4000, 1, channel.keys))
            spread = math.sqrt(v + channel.delta)
            h = omega + spread * root * rng.standard_normal((4000, draws, channel.keys))
            error = softmax(h, axis=-1).var(axis=1, ddof=1).mean()
            assert channel.generalization_error(q, v) == pytest.approx(error, rel=0.01)
        linear = LinearTokenChannel(3, 3, delta=0.1)
        assert linear.generalization_error(0.7, 0.5) == pytest.approx(0.6 * 12 / 9)


class TestCrossAndUntied:
    def test_reference_points(self):
        # (queries, keys, beta, rho, alpha K, error)
        for t1, t2, beta, rho, equations, mmse in (
            (1, 2, 1.0, 0.5, 0.3, 0.64055),
            (1, 2, 1.0, 0.5, 0.525, 0.3162),
            (2, 2, 1.5, 0.4, 0.224, 0.70721),
            (2, 2, 1.5, 0.4, 0.392, 0.3939),
        ):
            alpha = equations / (t1 * (t2 - 1))
            found = solve(cross_attention(alpha, beta, rho, t1, t2)).mmse
            assert found == pytest.approx(mmse, abs=6e-5)
        linear = cross_attention(0.5, 1.0, 1.0, 1, 1, output="linear")
        assert solve(linear).mmse == pytest.approx(0.45566, abs=6e-6)

    def test_one_linear_score_is_bilinear_regression(self):
        alpha = np.array([0.2, 0.5, 0.9])
        here = solve(cross_attention(alpha / 6, 2.0, 0.5, 2, 3, delta=0.1, output="linear"))
        there = solve(bilinear_regression(alpha, 2.0, 0.5, delta=0.1))
        np.testing.assert_allclose(here.mmse, there.mmse, rtol=1e-10)
        np.testing.assert_allclose(here.information, there.information, rtol=1e-9)

    def test_masked(self):
        problem = self_attention(0.05, 0.5, 4, masked=True)
        assert problem.channel.equations == 8
        same = cross_attention(0.4, 1.0, 0.5, 1, 1, output="linear")
        assert solve(problem).mmse == pytest.approx(solve(same).mmse, rel=1e-12)

    @pytest.mark.parametrize(("tokens", "masked"), [(2, False), (3, False), (3, True), (4, True)])
    def test_what_labels_tell_about_both_parts(self, tokens, masked):
        # why the diagonal must not be seen: share of a symmetric and an antisymmetric direction
        rng = np.random.default_rng(8)
        d, n = 24, 20000
        channel = SoftmaxChannel(tokens, tokens, False, masked=masked)
        x = rng.standard_normal((n, tokens, d))
        U = rng.standard_normal((d, d))
        told = []
        for part in (U + U.T, U - U.T):
            part = part - np.trace(part) / d * np.eye(d)
            part *= d / np.linalg.norm(part)
            h = np.einsum("nai,ij,nbj->nab", x, part, x, optimize=True) / d
            told.append(np.mean(np.sum(channel.project(h) ** 2, axis=(1, 2))))
        ratio = 1.0 if masked else (tokens + 1) / (tokens - 1)
        assert told[0] / told[1] == pytest.approx(ratio, rel=0.04)
        assert sum(told) / 2 == pytest.approx(channel.equations, rel=0.04)
        if not masked:
            with pytest.raises(NotImplementedError, match="not rotationally invariant"):
                self_attention(0.1, 0.5, tokens)


class TestHardmax:
    def test_reference_points(self):
        found = solve(hardmax_attention([0.2, 0.5, 1.0, 2.0, 4.0], 0.5)).mmse
        np.testing.assert_allclose(found, [0.52216, 0.21306, 0.07893, 0.02383, 0.00628], atol=1e-5)
        found = solve(hardmax_attention([0.2, 0.5], 1.0)).mmse
        np.testing.assert_allclose(found, [0.62591, 0.31402], atol=1e-5)

    def test_error_falls_like_the_square_of_alpha(self):
        alpha = np.array([1e3, 1e4, 1e5])
        scaled = solve(hardmax_attention(alpha, 0.5)).mmse * alpha**2
        assert scaled[2] == pytest.approx(scaled[1], rel=0.01)
        assert abs(scaled[2] / scaled[1] - 1) < abs(scaled[1] / scaled[0] - 1) / 3

    @pytest.mark.parametrize("same", [True, False])
    def test_bivariate_normal(self, same):
        r = 1 / 3 if same else -1 / 3
        law = multivariate_normal([0, 0], [[1, r], [r, 1]])
        rng = np.random.default_rng(0)
        for h, k in rng.uniform(-3, 3, (40, 2)):
            exact = law.cdf([h, k])
            assert kernels.binormal(h, k, same) == pytest.approx(exact, abs=1e-12, rel=1e-9)

    @pytest.mark.parametrize("same", [True, False])
    def test_bivariate_normal_in_the_tails(self, same):
        r = mpf(1) / 3 if same else -mpf(1) / 3
        with mp.workdps(20):
            root = mp.sqrt(1 - r * r)
            for h, k in ((-8, -2), (5, -6), (-20, -15), (-0.1, -12), (8, 9)):
                ends = [mpf(h) - j for j in (40, 24, 16, 8, 4, 2, 1, 0)]
                exact = mp.quad(lambda x, k=k: mp.npdf(x) * mp.ncdf((k - r * x) / root), ends)
                assert kernels.binormal(h, k, same) == pytest.approx(float(exact), rel=3e-11)

    def test_information_is_the_entropy_of_labels(self):
        channel = HardmaxChannel()
        p = 0.25 + math.asin(1 / 3) / (2 * math.pi)
        entropy = -2 * (p * math.log(p) + (0.5 - p) * math.log(0.5 - p))
        # the integral of the precision over all overlaps
        assert channel.information(0.0, 1.0) == pytest.approx(entropy, rel=1e-9)
        assert channel.information(1.0, 0.0) == 0.0
        # E of the entropy given omega, by Gauss-Hermite over omega
        x, w = np.polynomial.hermite_e.hermegauss(40)
        w = w / w.sum()
        root = np.linalg.cholesky(G)
        for q, v in ((0.3, 1.0), (1.0, 1.0), (1.2, 0.3)):
            nodes = math.sqrt(q) * np.stack(np.meshgrid(x, x, indexing="ij"), -1) @ root.T
            total = np.zeros((40, 40))
            for s1, s2 in ((1, 1), (1, -1)):
                law = multivariate_normal([0, 0], [[1, s1 * s2 / 3], [s1 * s2 / 3, 1]])
                Z = law.cdf(nodes * [s1, s2] / math.sqrt(3 * v))
                total -= 2 * Z * np.log(np.maximum(Z, 1e-300))
            exact = np.einsum("i,j,ij->", w, w, total)
            assert channel.information(q, v) == pytest.approx(exact, rel=2e-4)

    def test_precision_by_simulation(self):
        # E g^T D g = -E div at several overlaps; g from finite differences is the next test
        rng = np.random.default_rng(2)
        channel, n = HardmaxChannel(), 100000
        for q, v in ((0.5, 1.0), (1.3, 0.2), (1.499, 0.001)):
            omega = tied_scores(rng, (n,), 2, q)
            y = channel.sample(omega + tied_scores(rng, (n,), 2, v))
            g, divergence = channel.score(y, omega, v)
            energy = 2 * g[:, 0, 0] ** 2 + 2 * g[:, 1, 1] ** 2 + g[:, 0, 1] ** 2
            exact = channel.precision(q, v)
            assert abs(energy.mean() - exact) < 4 * energy.std() / math.sqrt(n)
            assert abs(-divergence.mean() - exact) < 4 * divergence.std() / math.sqrt(n)

    def test_score_by_finite_differences(self):
        channel, v, step = HardmaxChannel(), 0.3, 1e-4
        rng = np.random.default_rng(3)
        for _ in range(10):
            omega = tied_scores(rng, (), 2)
            y = channel.sample(tied_scores(rng, (), 2))
            signs = np.sign(differences(y))
            r = signs.prod() / 3
            law = multivariate_normal([0, 0], [[1, r], [r, 1]])

            def log_z(move, i, j, omega=omega, law=law, signs=signs):
                h = omega.copy()
                h[i, j] += move
                h[j, i] = h[i, j]
                return math.log(law.cdf(signs * differences(h) / math.sqrt(3 * v)))

            g, divergence = channel.score(y, omega, v)
            total = 0.0
            for (i, j), weight in (((0, 0), 2), ((0, 1), 1), ((1, 1), 2)):
                slope = (log_z(step, i, j) - log_z(-step, i, j)) / (2 * step)
                assert g[i, j] == pytest.approx(slope, rel=1e-5, abs=1e-6)
                up, down = ((channel.score(y, omega + s * direction(i, j), v)[0][i, j])
                            for s in (step, -step))  # fmt: skip
                total += weight * (up - down) / (2 * step)
            assert divergence == pytest.approx(total, rel=1e-5)

    def test_mills_ratio(self):
        with mp.workdps(40):
            for q in (-1e6, -40.0, -7.0, -4.5, -4.001, -3.999, -1.0, 0.0, 5.0):
                ratio = mp.ncdf(q) / mp.npdf(q) if q > -50 else -1 / mpf(q) + 1 / mpf(q) ** 3
                depth = float(mpf(q) + 1 / ratio)
                factor, power, found = kernels._mills(q)
                assert factor * math.exp(power) == pytest.approx(float(ratio), rel=1e-14)
                assert found == pytest.approx(depth, rel=1e-13 if q > -50 else 1e-11)

    # bulk, one boundary, the corner, their borders; correlations from 0.3 to 1 - 5e-11
    @pytest.mark.parametrize(
        ("h", "k", "c", "sign"),
        [
            (0.3, 1.2, 0.94, 1),
            (-0.5, 0.8, 0.94, -1),
            (4.0, 6.0, 0.8, -1),
            (0.0, 0.0, 0.5, -1),
            (-0.66, 0.59, 0.83, 1),
            (-30.0, -29.0, 0.94, 1),
            (-30.0, -29.0, 0.94, -1),
            (-1000.0, 20.0, 0.9, 1),
            (-1000.0, 800.0, 0.9, -1),
            (-4.0, -1.1, 0.9, 1),
            (-1.0, 1.001, 1e-3, -1),
            (-0.8, 0.3, 1e-5, 1),
            (-3.0, -3.1, 1e-5, 1),
            (-12.0, 3.0, 1e-2, -1),
            (-2.0, -1.0, 1e-5, -1),
            (3.0, 4.0, 1e-3, -1),
        ],
    )
    def test_corner_in_high_precision(self, h, k, c, sign):
        with mp.workdps(40):
            exact = exact_corner(h, k, c, sign)
        r = sign * math.sqrt((1 - c) * (1 + c))
        # rounding of (k - r h)/c, where a result depends on it
        tol = 2e-13 + 2e-16 * (abs(h) + abs(k)) / c * max(1.0, abs(k - r * h) / c)
        found = kernels.corner(h, k, r, c)
        np.testing.assert_allclose(found, exact, rtol=tol)
        swapped = kernels.corner(k, h, r, c)
        np.testing.assert_allclose(swapped, np.array(found)[[1, 0, 3, 2]], rtol=1e-13)

    @pytest.mark.parametrize("scale", [1.0, 10.0, 1e3])
    def test_corner_in_the_two_known_limits(self, scale):
        # equal: the smaller bound alone; opposite: a normal variable between -k and h
        c = 1e-7
        for h, k in scale * np.array([[-0.3, 0.9], [-1.2, 1.3], [0.4, 0.8], [-2.0, -1.0]]):
            a, b, t1, t2 = kernels.corner(h, k, math.sqrt(1 - c * c), c)
            with mp.workdps(30):
                hazard = mp.npdf(h) / mp.ncdf(h)
                depth = float(h + hazard)
            assert a == pytest.approx(float(hazard), rel=1e-12)
            assert b == pytest.approx(0.0, abs=1e-290)
            assert t2 == pytest.approx(k - h + t1, rel=1e-7)
            assert t1 == pytest.approx(depth, rel=1e-12)
            if h + k > 0 and scale < 1e3:
                a, b, t1, t2 = kernels.corner(h, k, -math.sqrt(1 - c * c), c)
                law = truncnorm(-k, h)
                assert a == pytest.approx(law.pdf(h), rel=1e-6)
                assert b == pytest.approx(law.pdf(-k), rel=1e-6)
                assert t1 == pytest.approx(h - law.mean(), rel=1e-6)
                assert t2 == pytest.approx(k + law.mean(), rel=1e-6)

    def test_score_by_integrals_over_both_differences(self):
        rng = np.random.default_rng(7)
        A = np.array([[1.0, -1.0, 0.0], [0.0, -1.0, 1.0]])
        for correlation, v in ((None, 1.0), (-0.6, 0.2), (0.7, 3.0)):
            covariance = random_covariance(rng, correlation)
            C = v * A @ covariance @ A.T
            omega, y = tied_scores(rng, (), 2), HardmaxChannel().sample(tied_scores(rng, (), 2))
            s, w, d = np.sign(differences(y)), differences(omega), np.sqrt(np.diag(C))
            with mp.workdps(30):
                # from the boundaries to 13 standard deviations
                ends = [
                    sorted(s[i] * x * mpf(float(max(s[i] * w[i], 0) + 13 * d[i])) / 4
                           for x in range(5))
                    for i in (0, 1)
                ]  # fmt: skip
                exact = exact_score([lambda u: 1] * 2, ends, [mpf(float(x)) for x in w], C)
            g, divergence = HardmaxChannel().score(y, omega, v, covariance)
            assert [g[0, 0], g[1, 1]] == pytest.approx(exact[:2], rel=1e-11)
            assert g[0, 1] == g[1, 0] == -(g[0, 0] + g[1, 1])
            assert divergence * v == pytest.approx(exact[2], rel=1e-11)

    def test_divergence_by_finite_differences(self):
        rng, step = np.random.default_rng(9), 1e-5
        pairs = ((0, 0), (0, 1), (1, 1))
        for channel in (HardmaxChannel(), NoisySoftmaxChannel(0.02, 1.5)):
            for _ in range(5):
                C, v = random_covariance(rng), rng.uniform(0.1, 1.0)
                C = C + 0.3 * np.outer(*[rng.standard_normal(3)] * 2)  # not of differences alone
                omega = tied_scores(rng, (), 2)
                y = channel.sample(omega + tied_scores(rng, (), 2, v), rng=rng)

                def g(move, y=y, omega=omega, v=v, C=C, channel=channel):
                    found = channel.score(y, omega + move, v, C)[0]
                    return np.array([found[p] for p in pairs])

                J = [(g(step * direction(*p)) - g(-step * direction(*p))) / (2 * step)
                     for p in pairs]  # fmt: skip
                divergence = channel.score(y, omega, v, C)[1]
                assert divergence == pytest.approx(np.sum(C * J), rel=1e-6)
        D = np.diag([2.0, 1.0, 2.0])
        for channel in (HardmaxChannel(), NoisySoftmaxChannel()):
            y = channel.sample(omega, rng=0)
            for one, two in zip(
                channel.score(y, omega, 0.3), channel.score(y, omega, 0.3, D), strict=True
            ):
                np.testing.assert_array_equal(one, two)

    def test_far_from_the_boundaries(self):
        channel = HardmaxChannel()
        y = np.array([[1.0, 0.0], [0.0, 1.0]])
        one, both = np.diag([-1.0, 1.0]), np.diag([-1.0, -1.0])
        for scale in (10.0, 1e3, 1e8):
            # against the label, log Z is minus half a square: finite and linear in omega
            g, divergence = channel.score(y, scale * one, 1.0)
            x = scale / math.sqrt(3.0)
            hazard = x + 1 / (x + 2 / (x + 3 / x)) if scale > 10.0 else norm.pdf(x) / norm.cdf(-x)
            assert g[0, 0] == pytest.approx(hazard / math.sqrt(3.0), rel=1e-9)
            assert divergence == pytest.approx(-1.0, abs=4 / scale**2 + 1e-12)
            g, divergence = channel.score(y, scale * both, 1.0)
            np.testing.assert_allclose(np.diag(g), scale / 4, rtol=10 / scale**2 + 1e-12)
            assert divergence == pytest.approx(-2.0, abs=20 / scale**2 + 1e-12)
            # with the label it says nothing
            g, divergence = channel.score(y, -scale * both, 1.0)
            assert np.abs(g).max() <= math.exp(-(scale**2) / 6)
            assert -math.exp(-(scale**2) / 8) <= divergence <= 0.0
        # at any scale
        omega = tied_scores(np.random.default_rng(0), (), 2)
        unit = channel.score(y, omega, 1.0)
        for v in (1e-30, 1e30):
            g, divergence = channel.score(y, math.sqrt(v) * omega, v)
            np.testing.assert_allclose(math.sqrt(v) * g, unit[0], rtol=1e-12)
            assert v * divergence == pytest.approx(unit[1], rel=1e-12)

    def test_nan_is_kept_to_its_sample(self):
        rng = np.random.default_rng(0)
        for channel in (HardmaxChannel(), NoisySoftmaxChannel()):
            omega = tied_scores(rng, (3,), 2)
            y = channel.sample(omega, rng=0)
            whole = channel.score(y, omega, 0.5)
            omega[1, 0, 0] = math.nan
            g, divergence = channel.score(y, omega, 0.5)
            assert np.isnan(divergence).tolist() == [False, True, False]
            np.testing.assert_array_equal(g[[0, 2]], whole[0][[0, 2]])
            with pytest.raises(ValueError, match=r"covariance must have shape \(\.\.\., 3, 3\)"):
                channel.score(y, omega, 0.5, np.eye(2))

    def test_generalization_error(self):
        rng = np.random.default_rng(5)
        q, v, n = 0.9, 0.4, 400000
        omega = tied_scores(rng, (n,), 2, q)
        h = omega + tied_scores(rng, (n,), 2, v)
        wrong = np.mean(np.sign(differences(h)) != np.sign(differences(omega)))
        assert HardmaxChannel().generalization_error(q, v) == pytest.approx(wrong, abs=2e-3)
        assert HardmaxChannel().generalization_error(0.0, 1.0) == 0.5

    def test_edges_of_the_table(self):
        channel = HardmaxChannel()
        left, right = 1e-9 * np.array([0.99, 1.01]), 1e18 * np.array([0.99, 1.01])
        for ratio, tol in ((left, 1e-9), (right, 1e-9)):
            v = 1 / (1 + ratio)
            scale = np.sqrt(ratio) if ratio[0] > 1 else 1.0
            product = channel.precision(1 - v, v) * v * scale if ratio[0] < 1 else (
                channel.precision(1.0, 1 / ratio) / ratio * scale)  # fmt: skip
            assert product[0] == pytest.approx(product[1], rel=tol)
        assert channel.precision(1.5, 0.0) == math.inf
        assert np.isnan(channel.precision([math.nan, 1.0], 0.1)).tolist() == [True, False]


def direction(i, j):
    out = np.zeros((2, 2))
    out[i, j] = out[j, i] = 1.0
    return out


class TestNoiseAfterTheSoftmax:
    def test_posterior_against_a_plain_grid(self):
        rng = np.random.default_rng(0)
        for sharpness, v, delta, r in (
            (1, 0.1, 0.01, 1 / 3), (3, 1.0, 0.01, 1 / 3), (2, 0.3, 1e-4, 1 / 3),
            (1, 1.0, 4.0, 1 / 3), (1, 0.5, 0.01, -0.5), (2, 0.3, 0.01, 0.99), (1, 1.0, 0.1, -0.999),
        ):  # fmt: skip
            C = 3 * v * np.array([[1.0, r], [r, 1.0]])
            inverse = np.linalg.inv(C)
            for _ in range(4):
                w = math.sqrt(2) * rng.standard_normal(2)
                u = w + np.linalg.cholesky(C) @ rng.standard_normal(2)
                y = expit(sharpness * u) + math.sqrt(delta) * rng.standard_normal(2)
                z = np.linspace(-8, 8, 1201) * math.sqrt(3 * v)
                logs = sum(
                    np.expand_dims(-((y[k] - expit(sharpness * (w[k] + z))) ** 2), 1 - k)
                    / (2 * delta)
                    for k in (0, 1)
                )
                prior = inverse[0, 0] * (z[:, None] ** 2 + z**2)
                prior = prior + 2 * inverse[0, 1] * z[:, None] * z
                p = np.exp(logs - prior / 2 - np.max(logs - prior / 2))
                p /= p.sum()
                mean = np.array([p.sum(1) @ z, p.sum(0) @ z])
                square = np.array([p.sum(1) @ z**2, z @ p @ z, p.sum(0) @ z**2])
                out = np.empty((1, 5))
                columns = [np.array([x]) for x in (*y, *w, C[0, 0], C[0, 1], C[1, 1])]
                kernels.softmax_posteriors(*columns, float(sharpness), delta, out)
                np.testing.assert_allclose(out[0, :2], mean, atol=1e-7)
                outer = [mean[0] ** 2, mean[0] * mean[1], mean[1] ** 2]
                np.testing.assert_allclose(out[0, 2:], square - outer, atol=1e-7)

    def test_score_by_integrals_over_both_differences(self):
        rng = np.random.default_rng(3)
        A = np.array([[1.0, -1.0, 0.0], [0.0, -1.0, 1.0]])
        # the last label is 6 standard deviations from where the estimate expects it
        for r, v, delta, shift in ((None, 0.6, 0.05, 0.0), (0.8, 0.1, 0.01, 6.0)):
            channel, covariance = NoisySoftmaxChannel(delta, 1.5), random_covariance(rng, r)
            C = v * A @ covariance @ A.T
            omega, d = tied_scores(rng, (), 2), np.sqrt(v * np.diag(A @ covariance @ A.T))
            w = differences(omega)
            y = expit(1.5 * (w + shift * d * [1, -1])) + 0.02

            likelihoods = [
                lambda u, x=x, delta=delta: mp.exp(
                    -((mpf(x) - 1 / (1 + mp.exp(-1.5 * u))) ** 2) / (2 * delta)
                )
                for x in y.tolist()
            ]
            with mp.workdps(30):
                ends = [[mpf(float(w[i] + x * d[i])) for x in range(-8, 9, 2)] for i in (0, 1)]
                exact = exact_score(likelihoods, ends, [mpf(float(x)) for x in w], C)
            g, divergence = channel.score(y, omega, v, covariance)
            assert [g[0, 0], g[1, 1]] == pytest.approx(exact[:2], rel=1e-9)
            assert divergence * v == pytest.approx(exact[2], rel=1e-9)

    def test_labels_that_contradict_the_estimate(self):
        # a likelihood that is a step: truncation at a boundary, as of hardmax
        rng, hard = np.random.default_rng(5), HardmaxChannel()
        channel, omega = NoisySoftmaxChannel(0.01, 2e3), np.diag([0.3, -0.2])
        covariance = random_covariance(rng, 0.4)
        g, divergence = channel.score(np.array([0.0, 1.0]), omega, 0.01, covariance)
        label = np.array([[0.0, 1.0], [0.0, 1.0]])  # at which u1 < 0 < u2
        exact = hard.score(label, omega, 0.01, covariance)
        np.testing.assert_allclose(g, exact[0], rtol=0.02)
        assert divergence == pytest.approx(exact[1], rel=0.02)
        # out of reach of any score, or dozens of standard deviations away: finite
        for y in ([1.5, -0.5], [3.0, 3.0], [0.999, 0.001]):
            for v, delta in ((1.0, 1e-4), (1e-4, 1e-6), (1e-6, 1.0), (10.0, 1e-8)):
                g, divergence = NoisySoftmaxChannel(delta).score(np.array(y), omega, v, covariance)
                assert np.isfinite(g).all()
                assert np.isfinite(divergence)

    def test_score_for_small_errors_of_the_scores(self):
        # V -> 0: the label is linear in u, with slope sigmoid'
        rng = np.random.default_rng(6)
        A = np.array([[1.0, -1.0, 0.0], [0.0, -1.0, 1.0]])
        channel, v = NoisySoftmaxChannel(0.01, 2.0), 1e-12
        for r in (None, 0.95, -0.95):
            covariance = random_covariance(rng, r)
            C = v * A @ covariance @ A.T
            omega = tied_scores(rng, (), 2)
            w = differences(omega)
            y = channel.sample(omega, rng=rng)
            H = np.diag(2.0 * expit(2.0 * w) * expit(-2.0 * w))
            exact = H @ np.linalg.inv(H @ C @ H + 0.01 * np.eye(2)) @ (y - expit(2.0 * w))
            g, _ = channel.score(y, omega, v, covariance)
            np.testing.assert_allclose(np.diag(g), exact, rtol=1e-5)

    def test_precision_by_simulation(self):
        # the square of the score: not the form that the channel averages
        rng = np.random.default_rng(1)
        channel, n = NoisySoftmaxChannel(0.01, 1.0), 20000
        for v in (1.0, 0.1):
            omega = tied_scores(rng, (n,), 2, 1.5 - v)
            y = channel.sample(omega + tied_scores(rng, (n,), 2, v), rng=rng)
            g, divergence = channel.score(y, omega, v)
            energy = 2 * g[:, 0, 0] ** 2 + 2 * g[:, 1, 1] ** 2 + g[:, 0, 1] ** 2
            exact = channel.precision(1.5 - v, v)
            assert abs(energy.mean() - exact) < 4 * energy.std() / math.sqrt(n)
            assert abs(-divergence.mean() - exact) < 4 * divergence.std() / math.sqrt(n)

    def test_limits(self):
        # little noise: two equations; the limit v -> 0; much noise: half the explained variance
        sharp = NoisySoftmaxChannel(1e-6, 0.5)
        assert 0.5 * sharp.precision(1.0, 0.5) == pytest.approx(2.0, rel=2e-3)
        channel = NoisySoftmaxChannel(0.02, 1.5)
        x, w = np.polynomial.hermite_e.hermegauss(220)
        slope = expit(1.5 * math.sqrt(4.5) * x) * expit(-1.5 * math.sqrt(4.5) * x)
        most = 6 * 1.5**2 * (w @ slope**2) / w.sum() / 0.02
        assert channel.precision(1.5, 0.0) == pytest.approx(most, rel=1e-8)
        assert channel.precision(1.5 - 1e-5, 1e-5) == pytest.approx(most, rel=5e-3)
        noisy, inner = NoisySoftmaxChannel(100.0), SoftmaxChannel()
        for q, v in ((0.5, 1.0), (1.0, 0.5)):
            # two rows; corrections are of relative order 1/delta
            told = inner.generalization_error(q, v) / 100.0
            assert noisy.information(q, v) == pytest.approx(told, rel=5e-3)
        error = channel.generalization_error(1.0, 0.5)
        plain = SoftmaxChannel(sharpness=1.5).generalization_error(1.0, 0.5)
        assert error == pytest.approx(0.02 + plain, rel=1e-12)

    def test_state_evolution(self):
        alpha = np.array([0.15, 0.4])
        found = solve(softmax_attention(alpha, 0.5, 2, 0.01, noise="after")).mmse
        # the equation holds with the precision of a simulation
        rng, n, prior = np.random.default_rng(4), 20000, SymmetricFactorPrior(0.5)
        for a, v in zip(alpha, found, strict=True):
            omega = tied_scores(rng, (n,), 2, 1.5 - v)
            channel = NoisySoftmaxChannel(0.01)
            y = channel.sample(omega + tied_scores(rng, (n,), 2, v), rng=rng)
            divergence = channel.score(y, omega, v)[1]
            assert prior.mmse(1 / (-2 * a * divergence.mean())) == pytest.approx(v, rel=0.01)
        before = solve(softmax_attention([0.15, 0.4], 0.5, 2)).mmse
        assert np.all(found > before)
        assert softmax_attention(0.1, 0.5, 2, 0.0, noise="after") == softmax_attention(0.1, 0.5)
        with pytest.raises(NotImplementedError, match="noise after the softmax is solved for 2"):
            softmax_attention(0.1, 0.5, 3, 0.1, noise="after")


PROBLEMS = {
    "softmax": lambda alpha: softmax_attention(alpha, 0.5, 2),
    "noisy": lambda alpha: linear_attention(alpha, 0.3, 2, delta=0.2),
    "hardmax": lambda alpha: hardmax_attention(alpha, 0.5),
    "after": lambda alpha: softmax_attention(alpha, 0.5, 2, 0.01, noise="after"),
    "cross": lambda alpha: cross_attention(alpha, 2.0, 0.5, 1, 3, delta=0.1),
}


class TestStateEvolution:
    @pytest.mark.parametrize("name", PROBLEMS)
    def test_the_solution_is_where_the_iteration_ends(self, name):
        problem = PROBLEMS[name](0.1)
        point, steps = solve(problem), iterate(problem, 300)
        assert steps.mmse[0] == 1.0
        assert steps.q[0] == problem.prior.prior_overlap
        assert np.all(np.diff(steps.mmse) <= 1e-12)
        assert steps.mmse[-1] == pytest.approx(point.mmse, rel=1e-6)
        every = fixed_points(problem)
        inner = every.status == Status.CONVERGED
        assert np.sum(inner) == 1
        assert every.mmse[inner][0] == pytest.approx(point.mmse, rel=1e-9)
        assert every.stable[inner].all()
        # qhat = k alpha precision(q)
        k = problem.prior.snr_per_alpha
        qhat = k * 0.1 * problem.channel.precision(point.q, point.mmse)
        assert point.qhat == pytest.approx(qhat, rel=1e-9)

    @pytest.mark.parametrize("name", PROBLEMS)
    def test_free_entropy(self, name):
        problem = PROBLEMS[name](0.1)
        point = solve(problem)
        least, most = problem.prior.prior_overlap, problem.prior.second_moment
        q = np.linspace(least + 0.01, most - 0.01, 197)
        landscape = free_entropy(problem, q)
        assert abs(q[np.argmax(landscape)] - point.q) < 0.01
        assert free_entropy(problem, point.q) == pytest.approx(-point.information, rel=1e-9)
        # information(q) and precision(q) belong together
        h = 1e-4
        two = problem.channel.information(
            point.q + np.array([-h, h]), point.mmse + np.array([h, -h])
        )
        slope = (two[1] - two[0]) / (2 * h)
        exact = -0.5 * problem.channel.precision(point.q, point.mmse)
        assert slope == pytest.approx(exact, rel=1e-6)

    @pytest.mark.parametrize("name", PROBLEMS)
    def test_information_grows_by_what_a_label_tells(self, name):
        h = 1e-3
        two = solve(PROBLEMS[name](np.array([0.1 - h, 0.1 + h]))).information
        problem = PROBLEMS[name](0.1)
        point = solve(problem)
        told = problem.channel.information(point.q, point.mmse) * problem.prior.snr_per_alpha
        assert (two[1] - two[0]) / (2 * h) == pytest.approx(told, rel=1e-4)

    def test_arrays_and_bad_elements(self):
        problem = softmax_attention(np.array([0.1, -1.0, 0.1]), np.array([[0.5], [math.nan]]), 2)
        point = solve(problem, on_failure="return")
        assert np.isnan(point.mmse).tolist() == [[False, True, False], [True, True, True]]
        assert point.mmse[0, 0] == solve(softmax_attention(0.1, 0.5)).mmse
        hard = solve(hardmax_attention(np.array([0.2, math.nan]), 0.5), on_failure="return")
        assert np.isnan(hard.mmse).tolist() == [False, True]
        noisy = solve(linear_attention(0.1, 0.5, 2, delta=[0.1, -1.0, 0.2]), on_failure="return")
        assert np.isnan(noisy.mmse).tolist() == [False, True, False]
        many = solve(softmax_attention(np.linspace(0.01, 0.18, 200), 0.5, 2))
        assert many.mmse.shape == (200,)
        assert np.all(np.diff(many.mmse) < 0)
        for k in (3, 100, 190):
            alone = solve(softmax_attention(np.linspace(0.01, 0.18, 200)[k], 0.5, 2))
            assert many.mmse[k] == pytest.approx(alone.mmse, rel=1e-9)

    @pytest.mark.parametrize("name", PROBLEMS)
    def test_answers_of_channels_broadcast(self, name):
        channel = PROBLEMS[name](0.1).channel
        q, v = np.array([0.6, 1.0, 1.2]), 1.5 - np.array([0.6, 1.0, 1.2])
        for call in (channel.precision, channel.information, channel.generalization_error):
            flat = call(q, v)
            assert flat.shape == (3,)
            np.testing.assert_array_equal(call(q[:, None], v[:, None]), flat[:, None])
            if name != "after":  # which tabulates every sum q + v
                np.testing.assert_array_equal(np.diag(call(q[:, None], v)), flat)
            assert call(q[1], v[1]) == pytest.approx(flat[1], rel=1e-12)
        alpha = np.array([[0.02, 0.05, 0.1], [0.03, 0.06, 0.12], [0.01, 0.02, 0.03]])
        grid = solve(PROBLEMS[name](alpha))
        for at in ((0, 2), (2, 0), (1, 1)):
            assert grid.mmse[at] == pytest.approx(solve(PROBLEMS[name](alpha[at])).mmse, rel=1e-9)

    def test_overlaps_are_checked_against_the_prior(self):
        problem = softmax_attention(0.1, 0.5)
        with pytest.raises(ValueError, match=r"q must be in \[0.5, 1.5\], got 0\.2"):
            free_entropy(problem, 0.2)
        with pytest.raises(ValueError, match=r"q must be in \[0.5, 1.5\], got 2\.0"):
            iterate(problem, 3, q=2.0)
        assert iterate(problem, 100, q=1.4).mmse[-1] == pytest.approx(0.392196, abs=1e-6)


class TestInput:
    def test_problems(self):
        problem = softmax_attention(0.1, 0.5, 3)
        assert isinstance(problem, Problem)
        assert problem == Problem(SymmetricFactorPrior(0.5), SoftmaxChannel(3, 3), 0.1)
        cross = cross_attention(0.1, 2.0, 0.5, 2, 3)
        assert cross.prior == GaussianFactorPrior(2.0, 0.5)

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: softmax_attention(0.1, 0.5, 1), "tokens must be an integer >= 2, got 1"),
            (lambda: linear_attention(0.1, 0.5, 0), "tokens must be a positive integer, got 0"),
            (
                lambda: linear_attention(0.1, 0.5, 2.0),
                r"tokens must be a positive integer, got 2\.0",
            ),
            (lambda: LinearTokenChannel(2, 3), "keys must equal queries = 2 for tied tokens"),
            (lambda: softmax_attention(-1, 0.5), r"alpha must be > 0 and finite, got -1\.0"),
            (lambda: softmax_attention(0.1, 0.5, delta=-1), r"delta must be >= 0 and finite"),
            (lambda: softmax_attention(0.1, 0.5, sharpness=0), "sharpness must be > 0"),
            (lambda: softmax_attention(0.1, 0.5, sharpness=[1, 2]), "sharpness must be a scalar"),
            (lambda: softmax_attention(0.1, 0.5, noise="in"), "noise must be 'before' or 'after'"),
            (
                lambda: cross_attention(0.1, 1, 0.5, 2, 1),
                "key_tokens must be an integer >= 2, got 1",
            ),
            (lambda: cross_attention(0.1, 1, 0.5, 2, 2, output="x"), "output must be 'softmax'"),
            (lambda: self_attention(0.1, 0.5, 2, masked=True), "masked must be False unless"),
            (lambda: quadratic_network(0.1, 0.5, -1), r"delta must be >= 0, got -1\.0"),
            (lambda: quadratic_network(0.1, math.inf), "rho must be > 0 and finite, got inf"),
            (lambda: NoisySoftmaxChannel(0.0), r"delta must be > 0 and finite, got 0\.0"),
            (lambda: SoftmaxChannel().precision(0.5), "v must be given: for tied tokens"),
            (lambda: SoftmaxChannel().precision(0.5, -1), r"v must be >= 0, got -1\.0"),
            (lambda: SoftmaxChannel().sample([0.1, 0.2]), r"h must have shape \(..., 2, 2\)"),
            (
                lambda: NoisySoftmaxChannel().score(np.ones(3), np.ones((2, 2)), 1),
                "y must have sha",
            ),
        ],
    )
    def test_bad_input(self, make, message):
        with pytest.raises(ValueError, match=message):
            make()

    def test_cross_attention_knows_the_second_moment(self):
        channel = SoftmaxChannel(1, 3, False)
        assert channel.precision(0.75) == channel.precision(0.75, 0.25) == 8.0
