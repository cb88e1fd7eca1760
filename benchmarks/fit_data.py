"""The problems of the fit benchmark, and the referee of their costs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import logsumexp

DENSE = ((100_000, 100), (1_000_000, 30), (200_000, 300), (20_000, 1_000))


@dataclass(frozen=True)
class Problem:
    """J(w) = mean loss + l1 Σ|w| + (l2/2) Σ w² on `x` (n, d) and labels `y` (n,); the intercept is free."""

    name: str
    x: np.ndarray
    y: np.ndarray
    l2: float = 0.0
    l1: float = 0.0
    classes: bool = False

    def cost(self, coefficients: np.ndarray) -> float:
        """J in float64 at (d + 1, k), the intercept last."""
        w, b = coefficients[:-1], coefficients[-1]
        eta = self.x @ w + b
        if self.classes:
            loss = logsumexp(eta, axis=1) - eta[np.arange(len(eta)), self.y.astype(int)]
        else:
            loss = np.logaddexp(0, eta[:, 0]) - self.y * eta[:, 0]
        return float(loss.mean() + self.l1 * np.abs(w).sum() + self.l2 / 2 * (w * w).sum())


def largest_l1(x: np.ndarray, y: np.ndarray) -> float:
    """λ_max, above which every coefficient is zero."""
    return float(np.abs(x.T @ (y - y.mean())).max() / len(y))


def census() -> tuple[np.ndarray, np.ndarray]:
    """The adult data from the data directory: six numbers standardised, categories as columns of zeros and ones."""
    import gzip

    path = Path(os.environ.get("LR_NN_DATA", ".")) / "adult.data.gz"
    if not path.exists():
        raise SystemExit(f"the census data are read from {path}: set LR_NN_DATA to their folder")
    with gzip.open(path, "rt") as file:
        rows = [[field.strip() for field in line.split(",")] for line in file if line.strip()]
    table = np.array(rows)
    numeric = [0, 2, 4, 10, 11, 12]
    numbers = table[:, numeric].astype(float)
    columns = [(numbers - numbers.mean(axis=0)) / numbers.std(axis=0)]
    for j in sorted(set(range(14)) - set(numeric)):
        columns.append((table[:, j][:, None] == np.unique(table[:, j])[None]).astype(float))
    return np.concatenate(columns, axis=1), (table[:, 14] == ">50K").astype(float)


def drawn(n: int, d: int, condition: float = 1.0, active: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian rows whose covariance has the condition number, labels drawn from a model of `active` coefficients."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, d))
    if condition > 1:
        q = np.linalg.qr(rng.standard_normal((d, d)))[0]
        x = x @ (q * np.logspace(0, -np.log10(condition) / 2, d)) @ q.T
    w = rng.standard_normal(d) * (np.arange(d) < (active or d))
    eta = x @ w
    eta /= eta.std()
    return x, (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(float)


def adult(small: bool) -> list[Problem]:
    """The census data at two strengths."""
    x, y = census()
    x, y = (x[:2000], y[:2000]) if small else (x, y)
    return [Problem(f"adult {len(x):,} x {x.shape[1]}, λ = {l2:.0e}", x, y, l2) for l2 in (1e-4, 1e-7)]


def _shapes(small: bool) -> Sequence[tuple[int, int]]:
    return ((4_000, 20),) if small else DENSE


def dense(small: bool) -> list[Problem]:
    """Independent columns."""
    return [Problem(f"{n:,} x {d:,}", *drawn(n, d), 1e-4) for n, d in _shapes(small)]


def correlated(small: bool) -> list[Problem]:
    """Columns whose covariance has condition number 1e6."""
    return [Problem(f"{n:,} x {d:,}, correlated", *drawn(n, d, 1e6), 1e-4) for n, d in _shapes(small)]


def digits(small: bool) -> list[Problem]:
    """MNIST, the 10,000 images of the data directory."""
    from experiments.data import directory, find, idx

    folder = directory(None, "mnist")
    images, labels = (idx(find(folder, f"t10k-{kind}-ubyte")) for kind in ("images-idx3", "labels-idx1"))
    n = 1000 if small else len(images)
    x = images[:n].reshape(n, -1).astype(float) / 255
    return [Problem(f"MNIST {n:,} x 784, 10 classes, λ = 1e-3", x, labels[:n].astype(float), 1e-3, classes=True)]


def _at_shares(name: str, x: np.ndarray, y: np.ndarray) -> list[Problem]:
    top = largest_l1(x, y)
    return [Problem(f"{name}, {share:.0%} of λ max", x, y, l1=share * top) for share in (0.1, 0.01)]


def sparse(small: bool) -> list[Problem]:
    """The census data and many rows, at two shares of the strength that leaves nothing."""
    x, y = census()
    if small:
        return _at_shares("adult", x[:2000], y[:2000])
    return [*_at_shares("adult", x, y), *_at_shares("200,000 x 300", *drawn(200_000, 300, active=30))]


def wide(small: bool) -> list[Problem]:
    """More columns than rows."""
    n, d = (200, 500) if small else (2_000, 5_000)
    return _at_shares(f"{n:,} x {d:,}", *drawn(n, d, active=30))
