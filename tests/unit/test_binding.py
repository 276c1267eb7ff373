"""Ops are bound once: the backend's own, the portable default, or what a plugin registered."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import array_api_compat.numpy as xp
import pytest

from octavo.devices import Resolution
from octavo.errors import BackendError, UsageError
from octavo.ops.binding import bind_ops
from octavo.ops.names import OP_NAMES
from octavo.ops.portable import PortableOps
from octavo.ops.providers import attention_providers
from octavo.plugins import PluginRecord, Plugins
from octavo.policy import Policy
from octavo.spec import API_VERSION, AttentionSpec, BackendSpec, DeviceInfo


class ToyOps(PortableOps):
    """Says which implementation ran, in place of computing."""

    def __init__(self) -> None:
        super().__init__(xp)

    def rms_norm(self, x, weight, eps):
        return "own norm"

    def write_kv(self, cache, k, v, plan):
        return [*cache, "own write"]

    def paged_attention(self, q, cache, plan, params, sinks=None):
        return [*cache, "own attention"]


class FusedOps(ToyOps):
    """With a composite that goes past the leaf ops."""

    def attend(self, q, k, v, cache, plan, params, sinks=None):
        return "fused", cache

    def add_rms_norm(self, x, residual, weight, eps):
        return "fused norm", residual


def flash_write_kv(cache, k, v, plan):
    return [*cache, "flash write"]


def flash_attention(q, cache, plan, params, sinks=None):
    return [*cache, "flash attention"]


FLASH_OPS = {"write_kv": flash_write_kv, "paged_attention": flash_attention}


def attention(name="flash", ops=FLASH_OPS, supports=None, provides=None, backend="toy"):
    return AttentionSpec(
        name=name,
        backend=backend,
        ops=provides or tuple(ops),
        load=lambda loaded: ops,
        supports=supports or (lambda model: None),
        api_version=API_VERSION,
    )


def bind(ops: Any = None, preferences=None, specs=(), by_kind=None, **more):
    """(op set, bindings by op) for a toy backend on a toy device."""
    spec = BackendSpec("toy", ("device",), "", lambda: None, lambda i, o: None, API_VERSION)
    policy = Policy("p", (), {}, (), (), {"toy": preferences or {}, "device": by_kind or {}}, {})
    records = (
        PluginRecord("toy", "octavo-toy", "1", "test_binding", "ok", backends=(spec,)),
        PluginRecord("flash", "octavo-flash", "1", "flash", "ok", attention=tuple(specs)),
    )
    resolution = Resolution(spec, DeviceInfo("device", 0, ""), "")
    chosen_by = (SimpleNamespace(ops=ops or ToyOps()), resolution, policy, Plugins(records))
    bound, bindings = bind_ops(*chosen_by, **more)
    assert [binding.op for binding in bindings] == list(OP_NAMES)
    return bound, Bindings(chosen_by, bindings)


class Bindings(dict):
    """By op; ``providers`` are those of attention by name, as ``octavo ops`` lists them."""

    def __init__(self, chosen_by, bindings) -> None:
        super().__init__((binding.op, binding) for binding in bindings)
        found = attention_providers(*chosen_by, bindings)
        self.providers = {provider.name: provider for provider in found}


def attend(ops) -> list[str]:
    """What runs, in order, when a model asks for attention."""
    return ops.attend(None, None, None, [], None, None)[0]


def who(binding) -> tuple[str, str]:
    return binding.implementation, binding.distribution


def test_without_preferences_the_backends_ops_stand_as_they_are():
    own = ToyOps()
    bound, bindings = bind(own)

    assert bound is own
    assert who(bindings["rms_norm"]) == ("ToyOps.rms_norm", "octavo-toy")
    assert bindings["rms_norm"].reason == "the backend's own"
    assert who(bindings["linear"]) == ("portable default", "octavo")
    assert bindings["linear"].reason == "the backend does not override it"


def test_an_override_on_the_object_itself_is_the_backends():
    own = ToyOps()
    own.linear = lambda x, weight: "on the object"
    assert who(bind(own)[1]["linear"]) == ("ToyOps.linear", "octavo-toy")


def test_a_preferred_implementation_is_bound_with_all_its_ops():
    own = ToyOps()
    bound, bindings = bind(own, {"paged_attention": ("flash",)}, [attention()])

    assert attend(bound) == ["flash write", "flash attention"]
    assert attend(own) == ["own write", "own attention"]
    for op in FLASH_OPS:
        assert bindings[op].implementation == "flash"
        assert "preferred for paged_attention by plugins.toml" in bindings[op].reason
    assert bound.rms_norm(None, None, 0.0) == "own norm"


def test_a_fused_composite_gives_way_to_one_that_calls_the_chosen_leaves():
    bound, bindings = bind(FusedOps(), {"paged_attention": ("flash",)}, [attention()])

    assert attend(bound) == ["flash write", "flash attention"]
    assert who(bindings["attend"]) == ("portable default", "octavo")
    assert "calls write_kv and paged_attention" in bindings["attend"].reason
    assert bound.add_rms_norm(None, None, None, 0.0)[0] == "fused norm"


def test_a_backends_preferences_win_over_its_kinds():
    rival = attention("rival", {"write_kv": FLASH_OPS["write_kv"]})
    specs = [attention(), rival]
    _, bindings = bind(None, {"write_kv": ("rival",)}, specs, by_kind={"write_kv": ("flash",)})

    assert bindings["write_kv"].implementation == "rival"


def test_the_first_that_is_installed_and_supports_the_model_wins():
    picky = attention("picky", supports=lambda model: f"head size of {model}")
    crashing = attention("crashing", supports=lambda model: 1 / 0)
    names = ("absent", "picky", "crashing", "flash")
    _, bindings = bind(None, {"paged_attention": names}, [picky, crashing, attention()], model="M")

    reason = bindings["paged_attention"].reason
    assert bindings["paged_attention"].implementation == "flash"
    assert "not absent: not installed" in reason
    assert "not picky: does not support the model: head size of M" in reason
    assert "not crashing: raised ZeroDivisionError" in reason


def test_what_a_loader_lacks_is_said_in_its_own_words():
    def load(backend):
        raise BackendError("flash is not installed (pip install flash).")

    lacking = replace(attention(), load=load)
    _, bindings = bind(None, {"paged_attention": ("flash",)}, [lacking])

    reason = bindings["paged_attention"].reason
    assert reason.endswith("not flash: flash is not installed (pip install flash)")


def test_with_nothing_usable_the_backends_own_stands_and_says_why():
    own = ToyOps()
    bound, bindings = bind(own, {"paged_attention": ("absent",)})

    assert attend(bound) == ["own write", "own attention"]
    assert who(bindings["paged_attention"]) == ("ToyOps.paged_attention", "octavo-toy")
    assert "not absent: not installed" in bindings["paged_attention"].reason


def test_without_a_model_nobody_is_asked_for_support():
    asked = []
    spec = attention(supports=asked.append)
    _, bindings = bind(None, {"paged_attention": ("flash",)}, [spec])

    assert bindings["paged_attention"].implementation == "flash"
    assert asked == []


def test_portable_and_the_backends_name_are_choices():
    bound, bindings = bind(FusedOps(), {"rms_norm": ("portable",), "linear": ("toy",)})

    assert bound.rms_norm.__func__ is PortableOps.rms_norm
    assert who(bindings["rms_norm"]) == ("portable default", "octavo")
    # The backend's own fused norm would not have used the portable one.
    assert bound.add_rms_norm.__func__ is PortableOps.add_rms_norm
    assert "preferred for linear" in bindings["linear"].reason


def test_an_implementation_for_another_backend_is_not_a_choice():
    _, bindings = bind(None, {"attend": ("flash",)}, [attention(backend="other")])
    assert "not flash: not installed" in bindings["attend"].reason


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        (attention(provides=("write_kv", "paged_atention")), "Did you mean 'paged_attention'?"),
        (
            attention(ops={"write_kv": flash_write_kv}, provides=("write_kv", "attend")),
            "it registered",
        ),
        (
            attention(ops={"write_kv": lambda cache, k: cache}),
            "the contract is write_kv(cache, k, v, plan)",
        ),
        (attention(ops=5, provides=("write_kv",)), "raised TypeError"),
        (attention(ops={"attend": lambda: 0}, provides=("attend",)), "it provides attend"),
    ],
)
def test_an_implementation_that_breaks_its_promise_is_passed_over(spec, complaint):
    _, bindings = bind(None, {"write_kv": ("flash",)}, [spec])

    assert who(bindings["write_kv"]) == ("ToyOps.write_kv", "octavo-toy")
    assert complaint in bindings["write_kv"].reason


def test_two_implementations_of_one_op_are_a_contradiction():
    rival = attention("rival", FLASH_OPS)
    preferences = {"write_kv": ("flash",), "paged_attention": ("rival",)}

    with pytest.raises(UsageError, match=r"served by both 'flash' .* and 'rival'"):
        bind(None, preferences, [attention(), rival])


def test_attention_backend_wins_over_the_policy():
    rival = attention("rival", FLASH_OPS)
    bound, bindings = bind(
        None, {"paged_attention": ("rival",)}, [attention(), rival], attention_backend="flash"
    )

    assert attend(bound) == ["flash write", "flash attention"]
    assert bindings["write_kv"].reason == "asked for with --attention-backend"


def test_attention_backend_portable_leaves_nothing_of_the_backends_attention():
    bound, bindings = bind(FusedOps(), attention_backend="portable")

    for op in ("write_kv", "paged_attention", "attend"):
        assert getattr(bound, op).__func__ is getattr(PortableOps, op)
        assert who(bindings[op]) == ("portable default", "octavo")


def test_ops_whose_caches_nobody_else_reads_refuse_portable_attention():
    class SealedOps(FusedOps):
        portable_paged_attention = None

    with pytest.raises(UsageError, match="for its own attention alone"):
        bind(SealedOps(), attention_backend="portable")


def test_ops_with_caches_of_their_own_bring_what_portable_means_for_them():
    class OtherCaches(ToyOps):
        def portable_paged_attention(self, q, cache, plan, params, sinks=None):
            return [*cache, "portable attention, adapted"]

    bound, bindings = bind(OtherCaches(), attention_backend="portable")
    assert bound.paged_attention(None, [], None, None) == ["portable attention, adapted"]
    assert bindings["paged_attention"].reason == "asked for with --attention-backend"


def test_an_unknown_attention_backend_is_refused_with_a_suggestion():
    with pytest.raises(
        UsageError, match=r"'flsh'. Did you mean 'flash'\? There is flash, toy, port"
    ):
        bind(None, None, [attention()], attention_backend="flsh")


def test_an_attention_backend_that_cannot_serve_is_refused_not_replaced():
    spec = attention(supports=lambda model: "needs head size 128")
    with pytest.raises(UsageError, match="needs head size 128"):
        bind(None, None, [spec], model="M", attention_backend="flash")


class PlainOps:
    """An op set that does not build on PortableOps, with a fused composite."""

    __slots__ = ("calls",)

    def __init__(self) -> None:
        self.calls = []

    def attend(self, q, k, v, cache, plan, params, sinks=None):
        return "fused", cache


for _op in OP_NAMES:
    if not hasattr(PlainOps, _op):
        setattr(PlainOps, _op, lambda self: None)


def test_ops_of_another_make_take_a_plugins_attention_too():
    bound, _ = bind(PlainOps(), {"paged_attention": ("flash",)}, [attention()])
    assert attend(bound) == ["flash write", "flash attention"]


def test_ops_of_another_make_have_no_portable_default():
    with pytest.raises(UsageError, match=r"do not build on octavo\.api\.PortableOps"):
        bind(PlainOps(), attention_backend="portable")


def test_frozen_ops_can_be_bound():
    @dataclass(frozen=True)
    class Frozen(ToyOps):
        xp: None = None

    bound, _ = bind(Frozen(), {"paged_attention": ("flash",)}, [attention()])
    assert attend(bound) == ["flash write", "flash attention"]


def test_who_does_not_serve_is_listed_with_the_reason():
    def absent(loaded):
        raise BackendError("Flash is not installed (pip install flash).")

    specs = [
        replace(attention("slow"), summary="gathers keys"),
        attention(),
        replace(attention("absent"), load=absent),
        attention("elsewhere", backend="other"),
    ]
    order = {"paged_attention": ("absent", "flash", "slow")}
    _, bindings = bind(None, order, specs)

    assert [(name, each.state) for name, each in bindings.providers.items()] == [
        ("absent", "cannot serve: Flash is not installed (pip install flash)"),
        ("flash", "serves"),
        ("slow", "--attention-backend slow"),
    ]
    slow = bindings.providers["slow"]
    assert (slow.distribution, slow.summary, slow.serves) == ("octavo-flash", "gathers keys", False)
    assert who(bindings["write_kv"]) == ("flash", "octavo-flash")
