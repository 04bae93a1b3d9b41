"""Products in 8 bits, compiled for a GPU that is not here. `make test-extras`."""

import pytest

from harness.aot.__main__ import CPU_ENV
from tests.aot.test_offline_devices import outside, with_compilers

PROGRAM = """
import re, jax, jax.numpy as jnp
from jax.sharding import SingleDeviceSharding
from harness.aot.backends import CUDA_OPTIONS, _topology_devices
from harness.aot.gpu_specs import gpu_spec
from harness.models.products.fp8 import fp8_matmul

config = gpu_spec("H100-80G").target_config
device = _topology_devices("cuda", "H100-80G", target_config=config, topology="1x1x1")[0]
one = SingleDeviceSharding(device)
x = jax.ShapeDtypeStruct((512, 256), jnp.bfloat16, sharding=one)
weight = jax.ShapeDtypeStruct((256, 1024), jnp.float32, sharding=one)

def products(x, weight):
    y, gradients = jax.vjp(lambda x, weight: fp8_matmul(x, weight, (None, None)), x, weight)
    return y, gradients(y)

compiled = jax.jit(products).lower(x, weight).compile(compiler_options=dict(CUDA_OPTIONS))
print(re.findall(r'custom_call_target="([^"]+)"', compiled.as_text()))
"""


@with_compilers
@pytest.mark.slow
def test_the_product_and_both_gradients_are_8_bit_products_of_cublas():
    printed = outside(["-c", PROGRAM], CPU_ENV).strip().splitlines()[-1]
    assert printed == str(["__cublas$lt$matmul$f8"] * 3)
