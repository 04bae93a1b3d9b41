"""Programs compiled once a machine."""

import jax

from harness.core.cache.cache_dir import cache_dir

jax.config.update("jax_compilation_cache_dir", str(cache_dir("test-programs")))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
