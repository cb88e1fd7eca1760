"""Wrong backward passes, each with one step changed, in several networks."""

from benchmarks.mutants import layers, precision, residuals, slopes, sums
from benchmarks.mutants.backward import Mutant
from benchmarks.mutants.settings import SETTINGS as SETTINGS

KINDS: dict[str, tuple[Mutant, ...]] = {
    "derivatives": slopes.MUTANTS,
    "residuals": residuals.MUTANTS,
    "sums": sums.MUTANTS,
    "layers and penalties": layers.MUTANTS,
    "precision": precision.MUTANTS,
}
MUTANTS = {mutant.name: mutant for mutants in KINDS.values() for mutant in mutants}
