"""Everything a backend author may import; the rest of Octavo may change without notice.

Names of octavo.spec and the errors are here at once. All others arrive on first use, so that a
``plugin.py`` may import this module without importing NumPy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from octavo.errors import (
    BackendError,
    CapacityError,
    DeviceError,
    ModelLoadError,
    OctavoError,
    PluginError,
    UsageError,
)
from octavo.hookspecs import hookimpl
from octavo.spec import (
    API_VERSION,
    AttentionSpec,
    BackendSpec,
    DeviceInfo,
    Lacking,
    ModelSpec,
    ParserSpec,
    Probe,
)

if TYPE_CHECKING:
    from octavo.backend import (
        Backend,
        BulkTransfers,
        CacheMeter,
        Capabilities,
        MemoryInfo,
        MemoryMeter,
        Preparable,
        ProcessGroup,
        Readiness,
        WeightShards,
    )
    from octavo.batch import GroupBatch, StepBatch
    from octavo.host_memory import host_memory
    from octavo.kv import KVGroup, KVSpec
    from octavo.loading.tensors import QuantizedTensor
    from octavo.ops import sampling_weights
    from octavo.ops.attention import make_plans
    from octavo.ops.portable import PortableOps
    from octavo.ops.protocol import (
        Activation,
        Array,
        AttentionParams,
        AttentionPlan,
        Cache,
        LinearWeight,
        Ops,
        RopeSpec,
        SampleResult,
        SamplingBatch,
    )
    from octavo.ops.sampling_portable import adjusted_logits
    from octavo.ops.storage import PortableCache, PortableLinear
    from octavo.parsing import (
        ArgumentShape,
        CallReading,
        CallShape,
        MalformedCall,
        ModelClues,
        Opener,
        ReasoningFormat,
        ToolCallFormat,
        ToolDefinition,
        ToolGrammar,
        json_call_shapes,
        read_json_call,
        read_json_calls,
        read_space,
        read_value,
    )
    from octavo.portable_backend import PortableBackend
    from octavo.step_trees import each_step_tree, step_tree

__all__ = [
    "API_VERSION",
    "Activation",
    "ArgumentShape",
    "Array",
    "AttentionParams",
    "AttentionPlan",
    "AttentionSpec",
    "Backend",
    "BackendError",
    "BackendSpec",
    "BulkTransfers",
    "Cache",
    "CacheMeter",
    "CallReading",
    "CallShape",
    "Capabilities",
    "CapacityError",
    "DeviceError",
    "DeviceInfo",
    "GroupBatch",
    "KVGroup",
    "KVSpec",
    "Lacking",
    "LinearWeight",
    "MalformedCall",
    "MemoryInfo",
    "MemoryMeter",
    "ModelClues",
    "ModelLoadError",
    "ModelSpec",
    "OctavoError",
    "Opener",
    "Ops",
    "ParserSpec",
    "PluginError",
    "PortableBackend",
    "PortableCache",
    "PortableLinear",
    "PortableOps",
    "Preparable",
    "Probe",
    "ProcessGroup",
    "QuantizedTensor",
    "Readiness",
    "ReasoningFormat",
    "RopeSpec",
    "SampleResult",
    "SamplingBatch",
    "StepBatch",
    "ToolCallFormat",
    "ToolDefinition",
    "ToolGrammar",
    "UsageError",
    "WeightShards",
    "adjusted_logits",
    "each_step_tree",
    "hookimpl",
    "host_memory",
    "json_call_shapes",
    "make_plans",
    "read_json_call",
    "read_json_calls",
    "read_space",
    "read_value",
    "sampling_weights",
    "step_tree",
]

_LAZY_NAMES = {
    "octavo.backend": (
        "Backend",
        "BulkTransfers",
        "CacheMeter",
        "Capabilities",
        "MemoryInfo",
        "MemoryMeter",
        "ProcessGroup",
        "Preparable",
        "Readiness",
        "WeightShards",
    ),
    "octavo.batch": ("GroupBatch", "StepBatch"),
    "octavo.host_memory": ("host_memory",),
    "octavo.kv": ("KVGroup", "KVSpec"),
    "octavo.loading.tensors": ("QuantizedTensor",),
    "octavo.ops.attention": ("make_plans",),
    "octavo.ops.portable": ("PortableOps",),
    "octavo.ops.protocol": (
        "Activation",
        "Array",
        "AttentionParams",
        "AttentionPlan",
        "Cache",
        "LinearWeight",
        "Ops",
        "RopeSpec",
        "SampleResult",
        "SamplingBatch",
    ),
    "octavo.ops.sampling_portable": ("adjusted_logits",),
    "octavo.ops.storage": ("PortableCache", "PortableLinear"),
    "octavo.parsing": (
        "ArgumentShape",
        "CallReading",
        "CallShape",
        "MalformedCall",
        "ModelClues",
        "Opener",
        "ReasoningFormat",
        "ToolCallFormat",
        "ToolDefinition",
        "ToolGrammar",
        "json_call_shapes",
        "read_json_call",
        "read_json_calls",
        "read_space",
        "read_value",
    ),
    "octavo.portable_backend": ("PortableBackend",),
    "octavo.step_trees": ("each_step_tree", "step_tree"),
}
_LAZY_HOMES = {name: module for module, names in _LAZY_NAMES.items() for name in names}
_LAZY_MODULES = {"sampling_weights": "octavo.ops.sampling_weights"}


def __getattr__(name: str) -> Any:
    """Import the home of a lazy name on first use, and remember the name."""
    value: Any
    if name in _LAZY_MODULES:
        value = import_module(_LAZY_MODULES[name])
    elif name in _LAZY_HOMES:
        value = getattr(import_module(_LAZY_HOMES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
