"""The CPU profile is read without jax, and XLA accepts each of its flags."""

import subprocess
import sys

from harness.core import cpu_flags


def test_xla_accepts_every_flag_and_jax_is_not_imported_for_it():
    program = (
        "import os, sys\n"
        "from harness.core.cpu_flags import cpu_env\n"
        "os.environ.update(cpu_env(3))\n"
        "assert 'jax' not in sys.modules and 'jaxlib' not in sys.modules\n"
        "import jax\n"
        "print(jax.device_count(), jax.devices()[0].platform)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == ["3", "cpu"]
    assert len(cpu_flags.cpu_env(3)["XLA_FLAGS"].split()) == 5


def test_a_jaxlib_that_was_not_tried_gets_no_flags(monkeypatch):
    monkeypatch.setattr(cpu_flags, "_jaxlib_version", lambda: "0.11.0")
    assert cpu_flags.cpu_env(2) == {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2", "XLA_FLAGS": ""}
