"""A loaded backend is checked against the contract, member by member."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import pytest

from octavo import api
from octavo.backend import Backend, Capabilities
from octavo.contract import check_backend
from octavo.errors import BackendError
from octavo.ops.names import OP_NAMES
from octavo.ops.protocol import Ops

CAPS = Capabilities(dtypes=("float32",), kv_dtypes=("float32", "float16"))


def stub_class(protocol: type, **members: Any) -> type:
    """A class with a method of the protocol's own signature for each of its methods."""

    def stub(name):
        def method(self, *args, **kwargs):
            raise NotImplementedError(name)

        method.__signature__ = inspect.signature(getattr(protocol, name))
        return method

    names = [
        name
        for name, member in vars(protocol).items()
        if inspect.isfunction(member) and name[0] != "_"
    ]
    return type("Stub", (), {**{name: stub(name) for name in names}, **members})


def backend(caps: Any = CAPS, ops: Any = None, **members: Any) -> Any:
    ops = stub_class(Ops)() if ops is None else ops
    return stub_class(Backend, caps=caps, ops=ops, **members)()


def refusal(candidate: Any) -> str:
    with pytest.raises(BackendError) as error:
        check_backend(candidate, "toy")
    return str(error.value)


def test_a_complete_backend_passes():
    check_backend(backend(), "toy")


def test_the_contract_has_the_members_that_the_design_names():
    members = {name for name in vars(Backend) if not name.startswith("_")}
    named = "caps ops memory put get put_linear make_kv copy_blocks plan compile close"
    assert set(named.split()) <= members
    assert {"embed", "linear", "paged_attention", "attend", "mlp", "sample"} <= set(OP_NAMES)


@pytest.mark.parametrize(
    "member",
    ["memory", "put", "get", "put_linear", "make_kv", "copy_blocks", "plan", "compile", "close"],
)
def test_every_method_has_to_be_there(member):
    candidate = backend()
    delattr(type(candidate), member)
    message = refusal(candidate)

    assert message.startswith(f"backend 'toy' lacks {member}(")


@pytest.mark.parametrize("op", OP_NAMES)
def test_every_op_has_to_be_there(op):
    ops = stub_class(Ops)
    delattr(ops, op)

    assert refusal(backend(ops=ops())).startswith(f"the op set of backend 'toy' lacks {op}(")


@pytest.mark.parametrize("member", ["caps", "ops"])
def test_the_properties_have_to_be_there(member):
    candidate = backend()
    delattr(type(candidate), member)
    assert f"lacks the property {member}" in refusal(candidate)


def test_none_is_no_backend():
    assert "lacks" in refusal(None)


def test_an_attribute_is_no_method():
    assert "in place of a method, 7 for memory()" in refusal(backend(memory=7))


@pytest.mark.parametrize(
    ("override", "shown"),
    [
        (lambda self, x: x, "linear(x)"),
        (lambda self, x, w: x, "linear(x, w)"),
        (lambda self, x, weight, fast=True: x, "linear(x, weight, fast=True)"),
        (lambda self, x, weight=None: x, "linear(x, weight=None)"),
        (lambda self, x, *, weight: x, "linear(x, *, weight)"),
        (lambda self, *args: None, "linear(*args)"),
    ],
)
def test_an_override_with_another_signature_is_refused_with_both(override, shown):
    message = refusal(backend(ops=stub_class(Ops, linear=override)()))

    assert f"linear of the op set of backend 'toy' has the signature {shown};" in message
    assert message.endswith("the contract is linear(x, weight).")


def test_a_backend_method_with_another_signature_is_refused():
    message = refusal(backend(make_kv=lambda self, spec, blocks: None))
    assert "the contract is make_kv(spec, num_blocks, block_size, *, on_host=False)." in message


def test_a_function_without_signature_is_refused():
    class Opaque:
        __signature__ = "none"

        def __call__(self):
            pass

    assert "no readable signature" in refusal(backend(memory=Opaque()))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dtypes", ()),
        ("dtypes", ("float33",)),
        ("dtypes", ["float32"]),
        ("dtypes", "float32"),
        ("kv_dtypes", ()),
        ("kv_dtypes", ("int3",)),
        ("kv_dtypes", None),
        ("block_sizes", ()),
        ("block_sizes", (0,)),
        ("block_sizes", (16.0,)),
        ("block_sizes", 16),
        ("max_head_dim", 0),
        ("max_head_dim", None),
        ("int8_scale_bytes", -1),
        ("int8_scale_bytes", True),
        ("sliding_window", 1),
        ("soft_cap", None),
        ("sinks", "yes"),
        ("asynchronous", 0),
        ("batch_invariant", None),
        ("host_swap", "no"),
        ("quantization", "gguf:Q4_1"),
        ("quantization", (1,)),
        ("token_buckets", (8, 4)),
        ("token_buckets", (4, 4)),
        ("seq_buckets", [1, 2]),
        ("seq_buckets", (0, 1)),
        ("collectives", {"all_reduce"}),
    ],
)
def test_a_capability_outside_its_values_is_refused(field, value):
    message = refusal(backend(caps=dataclasses.replace(CAPS, **{field: value})))
    assert f"caps.{field} of backend 'toy' is {value!r}; expected" in message


def test_an_unknown_cache_dtype_is_refused_with_those_there_are():
    message = refusal(backend(caps=dataclasses.replace(CAPS, kv_dtypes=("fp8",))))
    assert message.endswith(
        "expected at least one of float32, float16, bfloat16, float8_e4m3fn, float8_e5m2, int8."
    )


def test_every_capability_is_checked():
    """A field added to Capabilities later needs a check of its own."""
    for field in dataclasses.fields(Capabilities):
        refusal(backend(caps=dataclasses.replace(CAPS, **{field.name: object()})))


def test_capabilities_are_closed():
    @dataclasses.dataclass(frozen=True)
    class More(Capabilities):
        teleports: bool = True

    message = refusal(backend(caps=More(("float32",), ("float32",))))
    assert "is of type More; expected octavo.api.Capabilities itself" in message


def test_the_guide_has_every_member_that_a_backend_may_have(repo_root):
    guide = (repo_root / "docs/writing-a-backend.md").read_text("utf-8")
    rows = "".join(line for line in guide.splitlines() if line.startswith("| `"))
    optional = (
        api.BulkTransfers,
        api.CacheMeter,
        api.MemoryMeter,
        api.Preparable,
        api.ProcessGroup,
        api.Readiness,
    )
    for protocol in (Backend, *optional, api.WeightShards):
        for member in {**vars(protocol), **protocol.__annotations__}:
            assert member.startswith("_") or f"`{member}" in rows, f"{protocol.__name__}.{member}"
    for protocol in (*optional, api.WeightShards):
        assert f"octavo.api.{protocol.__name__}" in guide
    for name in (
        "Lacking",
        "device_kind",
        *(field.name for field in dataclasses.fields(Capabilities)),
    ):
        assert name in guide, name
