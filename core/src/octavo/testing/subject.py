"""The backend under test: its spec, one loaded object, and engines over it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from octavo.devices import Resolution, load_backend, resolve
from octavo.open_device import OpenDevice
from octavo.padding import Buckets
from octavo.plugins import PluginRecord, Plugins, load_plugins
from octavo.policy import Policy, load_policy

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

    from octavo.backend import Backend, Capabilities
    from octavo.engine_loader import LoadedEngine
    from octavo.ops.protocol import Array, Ops
    from octavo.spec import BackendSpec, DeviceInfo

__all__ = ["Subject"]


@dataclass(frozen=True)
class Subject:
    """One backend on one device, as a user would get it: through its spec, checked and bound.

    The backend is loaded when a check first asks for it, and shared by all checks that do not
    ``open`` one of their own.
    """

    policy: Policy
    plugins: Plugins
    resolution: Resolution
    attention_backend: str | None = None

    @classmethod
    def installed(
        cls,
        name: str,
        device: str = "auto",
        *,
        attention_backend: str | None = None,
        plugins_file: str | os.PathLike[str] | None = None,
    ) -> Subject:
        """An installed backend by name, on its first device or the one asked for.

        Raises OctavoError if there is no such backend or no device for it.
        """
        policy = load_policy(plugins_file)
        plugins = load_plugins(policy)
        return cls(policy, plugins, resolve(device, name, policy, plugins), attention_backend)

    @classmethod
    def of(cls, spec: BackendSpec, device: DeviceInfo, *, distribution: str = "none") -> Subject:
        """A backend that no installed plugin registers, under the default policy."""
        record = PluginRecord(spec.name, distribution, "0", "", "ok", backends=(spec,))
        policy = load_policy(Path(__file__).parents[1] / "plugins.toml")
        reason = f"{device.kind}:{device.index} through {spec.name}"
        return cls(policy, Plugins((record,)), Resolution(spec, device, reason))

    @property
    def spec(self) -> BackendSpec:
        """As the plugin registered it."""
        return self.resolution.spec

    @property
    def name(self) -> str:
        """The backend's."""
        return self.spec.name

    @property
    def record(self) -> PluginRecord:
        """The plugin that registered the backend."""
        return next(
            record
            for record in self.plugins.records
            if any(spec.name == self.name for spec in record.backends)
        )

    def open(self) -> OpenDevice:
        """Load the backend once more; the caller closes ``.backend``. Raises BackendError."""
        backend = load_backend(self.resolution, self.policy)
        return OpenDevice(self.policy, self.plugins, self.resolution, backend)

    @cached_property
    def backend(self) -> Backend:
        """The loaded backend that checks share."""
        return self.open().backend

    @property
    def is_loaded(self) -> bool:
        """Whether the shared backend has been loaded."""
        return "backend" in self.__dict__

    @property
    def caps(self) -> Capabilities:
        """What it claims."""
        return self.backend.caps

    @cached_property
    def ops(self) -> Ops:
        """The op set it runs with: its own, with ``attention_backend`` and the policy applied."""
        from octavo.ops.binding import bind_ops

        ops, _ = bind_ops(
            self.backend,
            self.resolution,
            self.policy,
            self.plugins,
            attention_backend=self.attention_backend,
        )
        return ops

    @cached_property
    def buckets(self) -> Buckets:
        """The shapes it wants batches padded to."""
        return Buckets.of(self.caps)

    def put(self, array: NDArray[Any], dtype: str | None = None) -> Array:
        """Host to device."""
        return self.backend.put(array, dtype)

    def get(self, array: Array) -> NDArray[Any]:
        """Device to host."""
        return self.backend.get(array)

    @contextmanager
    def engine(
        self,
        model_config: Mapping[str, Any],
        *,
        wrap: Callable[[Backend], Backend] = lambda backend: backend,
        **options: Any,
    ) -> Iterator[LoadedEngine]:
        """An engine on a fresh backend, for a model of random weights.

        ``model_config`` is a config.json; ``wrap`` may put a proxy around the backend; ``options``
        are EngineConfig's, over defaults that suit tiny models.
        """
        from octavo.config import EngineConfig
        from octavo.engine_loader import load_engine

        with tempfile.TemporaryDirectory(prefix="octavo-conform-") as folder:
            Path(folder, "config.json").write_text(json.dumps(model_config), encoding="utf-8")
            opened = self.open()
            device = OpenDevice(self.policy, self.plugins, self.resolution, wrap(opened.backend))
            defaults: dict[str, Any] = {
                "load_format": "dummy",
                "attention_backend": self.attention_backend,
                "kv_cache_memory_bytes": 1 << 22,
                "swap_space": 0.0,
                "max_num_seqs": 8,
                "max_num_batched_tokens": 64,
                "quiet": True,
            }
            config = EngineConfig(model=folder, **{**defaults, **options})
            loaded = load_engine(config, device)
            try:
                yield loaded
            finally:
                loaded.close()

    def close(self) -> None:
        """Release the shared backend, if it was loaded."""
        backend = self.__dict__.pop("backend", None)
        self.__dict__.pop("ops", None)
        if backend is not None:
            backend.close()
