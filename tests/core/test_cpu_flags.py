"""The CPU profile is read without jax, and XLA accepts each of its flags."""

import subprocess
import sys

from harness.core.jax_setup import cpu_flags


def test_xla_accepts_every_flag_and_jax_is_not_imported_for_it():
    program = (
        "import os, sys\n"
        "from harness.core.jax_setup.cpu_flags import cpu_env\n"
        "os.environ.update(cpu_env(3))\n"
        "assert 'jax' not in sys.modules and 'jaxlib' not in sys.modules\n"
        "import jax\n"
        "print(jax.device_count(), jax.devices()[0].platform)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == ["3", "cpu"]
    assert len(cpu_flags.cpu_env(3)["XLA_FLAGS"].split()) == 6


def test_a_flag_that_xla_does_not_know_is_left_out(monkeypatch):
    """XLA aborts on an unknown flag, and on an unknown word as its value."""
    unknown = ("--xla_cpu_never_was=1", f"{cpu_flags.YNNPACK}_NEVER_WAS")
    monkeypatch.setattr(cpu_flags, "CPU_FLAGS", (unknown[0], cpu_flags.ONE_MODULE, unknown[1]))
    cpu_flags.unknown_flags.cache_clear()
    try:
        assert cpu_flags.unknown_flags(cpu_flags.CPU_FLAGS) == unknown
        assert cpu_flags.cpu_env(2)["XLA_FLAGS"] == cpu_flags.ONE_MODULE
    finally:
        cpu_flags.unknown_flags.cache_clear()


def test_a_jaxlib_without_its_library_gets_no_flags(monkeypatch):
    monkeypatch.setattr(cpu_flags, "_xla_library", lambda: None)
    cpu_flags.unknown_flags.cache_clear()
    try:
        assert cpu_flags.cpu_env(2) == {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2", "XLA_FLAGS": ""}
    finally:
        cpu_flags.unknown_flags.cache_clear()


def test_a_cpu_with_a_matrix_unit_is_known_by_its_description(tmp_path):
    description = tmp_path / "cpuinfo"
    for flags, expected in (
        ("fma amx_bf16 amx_tile", True),
        ("fma amx_bf16_not_this_one avx512_bf16", False),
    ):
        description.write_text(f"processor\t: 0\nmodel name\t: amx_bf16\nflags\t\t: {flags}\n\n")
        assert cpu_flags.has_matrix_unit(description) is expected
    assert not cpu_flags.has_matrix_unit(tmp_path / "no such file")
    assert set(cpu_flags.YNNPACK.split(",")) < set(cpu_flags.MATRIX_UNIT.split(","))
