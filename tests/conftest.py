"""What every test runs under: eight virtual devices, strict promotion, exact products, few and fixed examples."""

import os

import xla_flags

# LR_NN_COMPILE_FULLY=1 compiles as users do.
if "LR_NN_COMPILE_FULLY" not in os.environ:
    os.environ["XLA_FLAGS"] = " ".join([*xla_flags.known(), os.environ.get("XLA_FLAGS", "")]).strip()
os.environ["JAX_NUM_CPU_DEVICES"] = "8"
# XLA:CPU sizes its thread pool by NPROC; collectives over eight devices starve on fewer threads.
os.environ["NPROC"] = str(max(16, int(os.environ.get("NPROC", "0"))))

import jax
import pytest
from hypothesis import settings

# What these find carries a bound that they prove anew, so that rounding may be that of code that is not optimised;
# every other file, whose tolerances are those of rounding, runs optimised code.
UNOPTIMISED = tuple(
    f"test_{name}"
    for name in (
        *("cli", "conventions", "distributed", "experiments", "fit"),
        *("inference", "many", "meshes", "sharded", "sklearn", "solvers", "stream_fit"),
    )
)

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_default_matmul_precision", "highest")
jax.config.update("jax_compilation_cache_dir", str(xla_flags.CACHE / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

settings.register_profile("lr_nn", derandomize=True, max_examples=12, deadline=None)
settings.load_profile("lr_nn")


def pytest_configure(config):
    # Two runs that share the cache may see each other's half-written entry; JAX then compiles anew and warns.
    config.addinivalue_line("filterwarnings", "ignore:Error (reading|writing) persistent compilation cache entry")


@pytest.fixture(scope="module", autouse=True)
def _programs_of_one_file(request):
    """How a file compiles. Its programs are dropped after it: each holds memory maps, of which Linux gives a process
    65,530.
    """
    unoptimised = request.path.name.startswith(UNOPTIMISED) and "LR_NN_COMPILE_FULLY" not in os.environ
    jax.config.update("jax_disable_most_optimizations", unoptimised)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()


@pytest.fixture
def float64():
    """Run the test with float64 on; arrays made in it must not leave it."""
    with jax.enable_x64(True):
        yield
