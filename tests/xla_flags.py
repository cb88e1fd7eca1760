"""The flags of XLA that make the tests compile fast, where this release of jaxlib knows them."""

import os
import subprocess
import sys
from pathlib import Path

from jaxlib.version import __version__ as jaxlib_version

CACHE = Path(__file__).resolve().parents[1] / ".cache"
# XLA:CPU compiles two to three times faster without its fusion emitters, which JAX 0.12 can no longer leave out.
FASTER = ("--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1")
START = "from jaxlib import xla_client; xla_client.make_cpu_client()"


def known(flags=FASTER, folder=CACHE):
    """Return the flags that this jaxlib knows.

    XLA aborts a process that names an unknown flag. So a child process tries each flag once, and a file named after
    the flag and the version of jaxlib keeps the answer.
    """
    return [flag for flag in flags if _is_known(flag, folder / f"jaxlib-{jaxlib_version}{flag}")]


def _is_known(flag, answer):
    if not answer.exists():
        environment = {**os.environ, "XLA_FLAGS": flag}
        child = subprocess.run([sys.executable, "-c", START], env=environment, capture_output=True, check=False)
        if child.returncode and b"Unknown flag" not in child.stderr:
            return False  # the child failed for another reason: ask again next time
        answer.parent.mkdir(exist_ok=True)
        draft = answer.with_name(f"{answer.name}.{os.getpid()}")  # two processes may ask at once
        draft.write_text("unknown" if child.returncode else "known", encoding="utf-8")
        draft.replace(answer)
    return answer.read_text(encoding="utf-8") == "known"
