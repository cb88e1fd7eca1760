"""What every test runs under: eight virtual devices, strict promotion, exact products, few and fixed examples."""

import os
from pathlib import Path

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()
# XLA:CPU sizes its thread pool by NPROC; collectives over eight devices starve on fewer threads.
os.environ["NPROC"] = str(max(16, int(os.environ.get("NPROC", "0"))))

import jax
import pytest
from hypothesis import settings

CACHE = Path(__file__).resolve().parents[1] / ".cache" / "jax"

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_default_matmul_precision", "highest")
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

settings.register_profile("lr_nn", derandomize=True, max_examples=12, deadline=None)
settings.load_profile("lr_nn")


def pytest_configure(config):
    # Two runs that share the cache may see each other's half-written entry; JAX then compiles anew and warns.
    config.addinivalue_line("filterwarnings", "ignore:Error (reading|writing) persistent compilation cache entry")


@pytest.fixture(scope="module", autouse=True)
def _programs_of_one_file():
    """Drop compiled programs after each file: each holds memory maps, of which Linux gives a process 65,530."""
    yield
    jax.clear_caches()


@pytest.fixture
def float64():
    """Run the test with float64 on; arrays made in it must not leave it."""
    with jax.enable_x64(True):
        yield
