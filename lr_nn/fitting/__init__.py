"""One model, fitted to a certified optimum: a host program over passes.

    rows -> Source -> pass(θ) -> sums -> direction (NumPy, LAPACK) -> θ

`source` hands out chunks of rows, `chunks` and `terms` answer what a pass asks of one, `linear` is the cost made of
their sums, `directions` and `proximal` say where to go, `descent` goes, `certificate` bounds what is missing, and
`status` puts it into words.
"""

from lr_nn.fitting.model import fit
from lr_nn.fitting.promises import check_arguments, has_certificate
from lr_nn.fitting.settings import Settings

__all__ = ["Settings", "check_arguments", "fit", "has_certificate"]


def __dir__() -> list[str]:
    return __all__
