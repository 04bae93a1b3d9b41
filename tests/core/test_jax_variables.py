"""The shell's variables: options of JAX are left out, those of compilers are part of keys and records."""

from harness.core.jax_setup.jax_variables import compiler_variables, drop_jax_options


def test_options_that_change_numbers_are_dropped_and_named():
    shell = {"JAX_ENABLE_X64": "1", "JAX_DEFAULT_MATMUL_PRECISION": "bfloat16", "HOME": "/h"}
    taken = {"JAX_PLATFORMS": "cpu", "JAX_LOG_COMPILES": "1", "JAX_TRACEBACK_FILTERING": "off"}
    environ = shell | taken
    assert drop_jax_options(environ) == ["JAX_DEFAULT_MATMUL_PRECISION=bfloat16", "JAX_ENABLE_X64=1"]
    assert environ == {"HOME": "/h"} | taken


def test_compilers_variables_are_recorded_but_not_those_of_memory(monkeypatch):
    before = compiler_variables()
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", ".5")
    assert compiler_variables() == before | {"NVIDIA_TF32_OVERRIDE": "0"}
