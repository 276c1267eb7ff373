"""The backend: what PortableBackend cannot know of JAX, and how a step is compiled."""

import jax
import jax.numpy as jnp

from octavo import api
from octavo_template.ops import TemplateOps

api.each_step_tree(jax.tree_util.register_dataclass)  # jit takes no other dataclasses


class TemplateBackend(api.PortableBackend):
    caps = api.Capabilities(
        dtypes=("float32", "bfloat16", "float16"),
        kv_dtypes=("float32", "bfloat16", "float16"),
        sliding_window=True,
        soft_cap=True,
        sinks=True,
        token_buckets=(8, 64, 512),  # few shapes, as each is a program to compile
        seq_buckets=(8, 64),
        host_swap=True,
    )

    def __init__(self, index, options):
        super().__init__(TemplateOps(jnp))
        if index != 0:
            raise api.DeviceError(f"There is no device template:{index}; there is template:0.")
        if options:
            raise api.UsageError(f"Backend 'template' has no options; it got {dict(options)}.")
        self.device = jax.devices("cpu")[0]

    def memory(self):
        return api.host_memory()

    def put(self, array, dtype=None):
        return jax.device_put(array.astype(dtype or array.dtype, copy=False), self.device)

    def get(self, array):
        return jax.device_get(array)

    def compile(self, step):
        return jax.jit(step, donate_argnums=1)  # the caches, which are dead afterwards
