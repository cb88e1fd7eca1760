"""Profile intervals and Firth's fit against published tables and against what they are by definition."""

import numpy as np
import pytest
from scipy import optimize, stats

import lr_nn
from lr_nn import Batch, Status, inference, losses

# Venables & Ripley (2002), section 7.2: dead of 20 moths at doses 1, 2, ..., 32, males then females.
DEAD = np.array([1, 4, 9, 13, 18, 20, 0, 2, 6, 10, 12, 16.0])
MALE = np.repeat([1.0, 0.0], 6)
MOTHS = np.column_stack([1 - MALE, MALE, np.tile(np.arange(6.0), 2)])
MOTH_NET = lr_nn.Network((3, 1), (), losses.bernoulli, bias=False)
BUDWORM = Batch(MOTHS, DEAD / 20, np.full(12, 20.0))

# Heinze & Schemper (2002), section 4: urinary tract infection, age oc vic vicl vis dia and how many; cases first.
CASES = """111000 3 110000 5 101111 1 101100 1 101011 1 101010 1 101000 2 011110 3 011100 7 011010 2 011001 1 011000 15
010001 3 010000 44 001111 1 001110 12 001100 10 001010 3 001000 14 000010 1"""
CONTROLS = """111110 2 111000 1 110010 1 110000 14 101110 4 101100 2 011110 6 011100 5 011000 1 010010 1 010000 42
001110 18 001100 8 001010 1 001000 2 000010 1"""
# Of each case of endometrial cancer, of low and high grade: neovasculisation, pulsality index, endometrium height.
LOW = """0 13 1.64 0 16 2.26 0 8 3.14 0 34 2.68 0 20 1.28 0 5 2.31 0 17 1.8 0 10 1.68 0 26 1.56 0 17 2.31
0 8 2.01 0 7 1.89 0 20 3.15 0 10 1.23 0 18 1.27 0 16 1.76 0 18 2 0 28 1.5 0 11 1.33 0 19 2.37 0 10 1.82
0 10 3.13 0 18 1.31 0 14 1.92 0 21 1.64 0 11 2.01 0 17 1.88 0 25 1.93 0 16 2.11 0 19 1.29 0 15 1.72
0 33 0.75 0 24 1.92 0 29 2.02 0 15 2.29 0 12 2.33 0 3 2.9 0 20 1.7 0 23 1.41 0 12 2.25 0 22 1.54
0 42 1.97 0 15 1.75 0 13 2.16 0 14 2.57 0 19 1.37 0 12 3.61 0 13 2.04 0 10 2.17"""
HIGH = """0 8 2.64 0 29 0.88 0 12 1.27 0 20 1.37 1 38 0.97 1 22 1.14 1 7 0.88 1 25 0.91 1 15 0.58 0 7 0.97
0 48 1.84 0 12 1.11 0 19 1.61 0 2 1.18 1 22 1.44 1 40 1.18 1 5 0.93 1 0 1.17 0 21 1.19 0 15 1.06
0 12 1.69 1 49 0.27 0 6 1.84 0 5 1.3 0 17 0.96 1 11 1.01 1 21 0.98 0 5 0.35 1 19 1.02 0 33 0.85"""


def infections():
    x, y, counts = [], [], []
    for case, words in ((1, CASES.split()), (0, CONTROLS.split())):
        x += [[float(c) for c in word] for word in words[::2]]
        counts += [float(word) for word in words[1::2]]
        y += [case] * (len(words) // 2)
    return np.array(x), np.array(y), np.array(counts)


def tumours():
    low, high = (np.array(text.split(), float).reshape(-1, 3) for text in (LOW, HIGH))
    return np.concatenate([low, high]), np.repeat([0, 1], [len(low), len(high)]), None


# By R's logistf: coefficients and profile intervals, the intercept last.
TABLES = {
    "infections": (
        infections(),
        [-1.10598131, -0.06881673, 2.26887464, -2.11140817, -0.78831694, 3.09601166, 0.12025405],
        [
            [-1.9737884, -0.30742514],
            [-0.9414363, 0.78920202],
            [1.2730216, 3.43543273],
            [-3.2608611, -1.11773495],
            [-1.6080879, 0.01518468],
            [0.7745682, 8.03029352],
            [-0.8185591, 1.07315122],
        ],
    ),
    "tumours": (
        tumours(),
        [2.92927330, -0.03475175, -2.60416387, 3.77455951],
        [[0.6097244, 7.85463171], [-0.1244587, 0.04045547], [-4.3651832, -1.23272106], [1.0825371, 7.20928050]],
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_firths_fit_and_its_profile_intervals_are_those_of_logistf(name):
    (x, y, counts), coefficients, intervals = TABLES[name]
    net = lr_nn.logistic_regression(x.shape[1])
    found = inference.firth(net, Batch(x, y, counts))
    assert found.status is Status.converged and found.solver == "firth"
    np.testing.assert_allclose(found.coefficients[:, 0], coefficients, rtol=1e-5)
    profiled = inference.profile_intervals(net, found, Batch(x, y, counts))
    np.testing.assert_allclose(profiled[:, 0], intervals, rtol=1e-4, atol=1e-5)


def test_the_tumours_separate_and_the_fit_says_what_to_do():
    x, y, _ = tumours()
    net = lr_nn.logistic_regression(3)
    solution = lr_nn.fit(net, Batch(x, y))
    assert solution.status is Status.separated
    with pytest.raises(ValueError, match=r"separated.*firth"):
        inference.summary(net, solution, Batch(x, y))
    low, high = inference.profile_intervals(net, solution, Batch(x, y), coefficients=[0])[0, 0]
    assert 0 < low < 5 and high == np.inf


@pytest.mark.parametrize("bias", [True, False])
def test_firths_fit_maximises_the_likelihood_times_jeffreys_prior(bias):
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((25, 2)), rng.integers(0, 2, 25)
    net = lr_nn.Network((2, 1), (), losses.bernoulli, bias=bias)
    inputs = np.column_stack([x, np.ones(25)]) if bias else x

    def cost(theta):
        eta = inputs @ theta
        p = 1 / (1 + np.exp(-eta))
        return (np.logaddexp(0, eta) - y * eta).sum() - np.linalg.slogdet(inputs.T * (p * (1 - p)) @ inputs)[1] / 2

    found = inference.firth(net, Batch(x, y))
    best = optimize.minimize(cost, np.zeros(inputs.shape[1]), method="BFGS", tol=1e-9)
    np.testing.assert_allclose(found.coefficients[:, 0], best.x, atol=1e-6)
    assert abs(found.cost * 25 - best.fun) <= 1e-9
    p = 1 / (1 + np.exp(-inputs @ found.coefficients[:, 0]))
    errors = np.sqrt(np.diag(np.linalg.inv(inputs.T * (p * (1 - p)) @ inputs)))
    np.testing.assert_allclose(inference.summary(net, found, Batch(x, y)).standard_errors[:, 0], errors, rtol=1e-6)


@pytest.mark.parametrize("cells", [(5, 0, 2, 7), (3, 4, 6, 1), (9, 0, 0, 9)])
def test_on_a_saturated_table_firth_adds_one_half_to_each_cell(cells):
    """Firth (1993), section 3.3."""
    a, b, c, d = np.array(cells) + 0.5
    x, y = np.array([[0.0], [0.0], [1.0], [1.0]]), np.array([0, 1, 0, 1])
    net = lr_nn.logistic_regression(1)
    found = inference.firth(net, Batch(x, y, cells))
    np.testing.assert_allclose(found.coefficients[:, 0], [np.log(a * d / (b * c)), np.log(b / a)], rtol=1e-7)


def test_profile_intervals_of_the_budworms_are_those_of_mass():
    """Which interpolates its profiles by splines: three digits."""
    solution = lr_nn.fit(MOTH_NET, Batch(MOTHS, BUDWORM.y, BUDWORM.weight))
    found = inference.profile_intervals(MOTH_NET, solution, BUDWORM)[:, 0]
    published = [[-4.4581438, -2.6138736], [-3.1728745, -1.6556117], [0.8228708, 1.3390581]]
    np.testing.assert_allclose(found, published, rtol=5e-4)


@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_at_the_ends_of_a_profile_interval_the_likelihood_has_fallen_by_half_a_quantile(level):
    solution = lr_nn.fit(MOTH_NET, Batch(MOTHS, BUDWORM.y, BUDWORM.weight))
    ends = inference.profile_intervals(MOTH_NET, solution, BUDWORM, level=level)
    best = inference.summary(MOTH_NET, solution, BUDWORM).log_likelihood
    for c in range(3):
        rest = np.delete(MOTHS, c, axis=1)
        net = lr_nn.Network((2, 1), (), losses.bernoulli, bias=False)
        for end in ends[c, 0]:
            offset = end * MOTHS[:, c]
            held = lr_nn.fit(net, Batch(rest, BUDWORM.y, BUDWORM.weight, offset))
            fallen = best - inference.summary(net, held, Batch(rest, *BUDWORM[1:3], offset)).log_likelihood
            np.testing.assert_allclose(2 * fallen, stats.chi2.ppf(level, 1), rtol=1e-6)


def test_the_profile_of_a_softmax_contrast_ends_where_a_fit_with_an_offset_says():
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((80, 2)), rng.integers(0, 3, 80)
    net = lr_nn.softmax_regression(2, 3)
    solution = lr_nn.fit(net, Batch(x, y))
    low, high = inference.profile_intervals(net, solution, Batch(x, y), coefficients=[1])[0, 1]
    best = inference.summary(net, solution, Batch(x, y)).log_likelihood

    def log_likelihood(theta, t):
        coefficients = np.concatenate([[0, theta[0], t], [0, *theta[1:3]], [0, *theta[3:]]]).reshape(3, 3)
        eta = np.column_stack([x, np.ones(80)]) @ coefficients
        return (eta[np.arange(80), y] - np.log(np.exp(eta).sum(axis=1))).sum()

    for end in (low, high):
        held = optimize.minimize(lambda theta, t: -log_likelihood(theta, t), np.zeros(5), args=(end,), tol=1e-9)
        np.testing.assert_allclose(2 * (best + held.fun), stats.chi2.ppf(0.95, 1), rtol=1e-6)


def test_least_squares_profile_their_variance_too():
    rng = np.random.default_rng(6)
    x = rng.standard_normal((30, 2))
    y = x @ [1.0, 2.0] + rng.standard_normal(30)
    net = lr_nn.linear_regression(2)
    solution = lr_nn.fit(net, Batch(x, y))
    low, high = inference.profile_intervals(net, solution, Batch(x, y))[0, 0]
    best = inference.summary(net, solution, Batch(x, y)).log_likelihood
    for end in (low, high):
        rest = lr_nn.linear_regression(1)
        held = lr_nn.fit(rest, Batch(x[:, 1:], y, None, end * x[:, 0]))
        fallen = best - inference.summary(rest, held, Batch(x[:, 1:], y, None, end * x[:, 0])).log_likelihood
        np.testing.assert_allclose(2 * fallen, stats.chi2.ppf(0.95, 1), rtol=1e-9)


def test_where_nothing_is_told_of_a_coefficient_its_interval_is_the_line():
    x, y = np.array([[-2.0], [-1.0], [1.0], [2.0]]), np.array([0, 0, 1, 1])
    net = lr_nn.logistic_regression(1)
    (slope,), (bias,) = inference.profile_intervals(net, lr_nn.fit(net, Batch(x, y)), Batch(x, y))
    assert 0 < slope[0] < 1 and slope[1] == np.inf and (bias == [-np.inf, np.inf]).all()


@pytest.mark.parametrize("unit", [1e-8, 1e8])
def test_firths_fit_does_not_know_the_unit_of_a_column(unit):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 2))
    y = (rng.random(40) < 1 / (1 + np.exp(x[:, 1] - x[:, 0]))).astype(int)
    net, scale = lr_nn.logistic_regression(2), np.array([1.0, unit])
    plain, scaled = (inference.firth(net, Batch(table, y)) for table in (x, x * scale))
    np.testing.assert_allclose(scaled.coefficients[:, 0] * [1, unit, 1], plain.coefficients[:, 0], rtol=1e-6)
    free = lr_nn.fit(net, Batch(x * scale, y))
    ends = inference.profile_intervals(net, free, lr_nn.Batch(x * scale, y))
    expected = inference.profile_intervals(net, lr_nn.fit(net, Batch(x, y)), lr_nn.Batch(x, y))
    np.testing.assert_allclose(ends[:, 0] * np.array([1, unit, 1])[:, None], expected[:, 0], rtol=1e-5)
