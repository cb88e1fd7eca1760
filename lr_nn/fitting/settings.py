"""The numbers that a fit is run by, each with where it comes from."""

from __future__ import annotations

from dataclasses import dataclass

import jax

__all__ = ["DEFAULT", "Settings"]


@dataclass(frozen=True)
class Settings:
    """Sizes, tolerances and limits of the solvers. The public arguments of `fit` are not among them.

    Sizes are numbers of entries unless the name says otherwise. "Measured" means on two cores of a server CPU.
    """

    # Chunks. Passes read 10 to 13 GB/s of x in chunks of 16,000 rows and more, 5 in chunks of 2,000 (measured); a
    # chunk of 32 MB stays in the cache between its two products.
    chunk_rows: int = 65_536
    chunk_numbers: int = 2**22
    least_rows_of_a_thread: int = 2_048
    # Rows at a time of what reads x more than once in a chunk.
    piece: int = 1_024
    # Below so many numbers of x one thread is sooner done than two.
    one_thread: int = 2**16
    # Columns whose mean is that many times their range are centred row by row; for others algebra is exact enough.
    far: float = 3.0

    # Newton's method with the whole Hessian: up to so many products of numbers, and so many parameters.
    newton_products: float = 3e8
    newton_parameters: int = 500
    # Least squares in closed form cost about n d min(n, d) products.
    closed_form_products: float = 2e9
    # Factors and the eigenvalues of certificates: up to so many parameters.
    dense: int = 2_500

    # A sample of rows: at least so many for each column, and for a Hessian so many, where that costs no more than
    # a few passes: one of q columns costs q / 64 times a pass over as many rows (measured).
    sample_least: int = 40
    sample_most: int = 160
    hessian_price: float = 64.0
    hessian_passes: float = 3.0
    # All rows are taken where x has fewer numbers.
    sample_from: float = 2e6
    # Rows that are looked at to find out means and units of columns, where there are more.
    scouted: int = 2_048
    # A column is known by rows worth so many of equal weight; of others the sample says too little.
    known_rows: int = 20
    # The optimum of a sample is farther than that, as a share of J0, from the optimum of all rows.
    sample_gap: float = 1e-2

    # A factor that costs more passes waits until it is seen that it is needed.
    dear: float = 6.0

    # Pairs of L-BFGS, and what a step may leave of the gradient before a new factor is worth its price.
    pairs: int = 10
    deep_pairs: int = 50
    # A weight of a deep network that is so many times the largest at the start has grown.
    grown: float = 5.0
    slow: float = 0.3
    # Products of one Newton-CG direction, and what they leave of the gradient.
    products: int = 200
    deep_products: int = 50
    inexact: float = 0.1

    # Steps: the share of the promised decrease (Armijo), of the slope (Wolfe), trials, idle steps in a row.
    decrease: float = 1e-4
    flat: float = 0.9
    trials: int = 30
    idle: int = 3
    # A step that leaves less than that of the gradient shows that the decrement before it was about the gap.
    shown: float = 0.1
    # How often the estimate of the gap is tightened where the certificate is not met yet.
    certificates: int = 3

    # Proximal Newton: sweeps of coordinate descent in all and between two tries of the signs; tries without gain.
    sweeps: int = 1_000
    few_sweeps: int = 4
    patient: int = 3
    # What the inner problem leaves of the subgradient, and where the model is made anew.
    inner: float = 1e-3
    stale: float = 0.05
    # Columns of the least working set; it grows at most twofold.
    least_columns: int = 32
    # The gap of a working set that still lacks columns, as a share of the gap of all.
    nearer: float = 0.2

    # A constant model is not farther out than that where its best is infinite.
    farthest: float = 30.0
    # A direction changes no prediction if it moves none by more, of columns scaled to the same size.
    still: float = 1e-10
    # The reciprocal condition of a factored Hessian below which it is not believed.
    singular: float = 1e-2

    # Platforms whose arrays are read by NumPy, in place; those of others stay where they are.
    host: tuple[str, ...] = ("cpu",)

    def is_accelerator(self, array: jax.Array) -> bool:
        """Does the array lie where NumPy cannot read it in place?"""
        return any(device.platform not in self.host for device in array.devices())


DEFAULT = Settings()
