"""Choosing a device: explicit choices are served or refused, automatic ones say why."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import MappingProxyType

import pytest

from octavo.devices import DeviceRequest, Resolution, list_devices, load_backend, resolve
from octavo.errors import BackendError, DeviceError, UsageError
from octavo.plugins import PluginRecord, Plugins
from octavo.policy import Policy, load_policy
from octavo.spec import API_VERSION, BackendSpec, DeviceInfo, Probe

REPO_ROOT = Path(__file__).resolve().parents[2]


def backend(
    name, kinds=("cpu",), devices=None, *, probe=None, load=None, automatic=True
) -> BackendSpec:
    """A backend with one device of its first kind, or as given."""
    present = (DeviceInfo(kinds[0], 0, f"{name} device"),) if devices is None else devices
    return BackendSpec(
        name=name,
        device_kinds=kinds,
        summary="for a test",
        probe=probe or (lambda: Probe(devices=present)),
        load=load or (lambda index, options: None),
        api_version=API_VERSION,
        automatic=automatic,
    )


def absent(name, kind, reason, install=None) -> BackendSpec:
    return backend(name, (kind,), probe=lambda: Probe(reason=reason, install=install))


def plugins(*specs: BackendSpec, broken: tuple[tuple[str, str], ...] = ()) -> Plugins:
    records = [
        PluginRecord(spec.name, f"octavo-{spec.name}", "1", "m", "ok", backends=(spec,))
        for spec in specs
    ]
    records += [
        PluginRecord(name, f"octavo-{name}", "1", "m", "broken", reason) for name, reason in broken
    ]
    return Plugins(tuple(records))


def policy(order=("cuda", "rocm", "cpu"), options=None, **backend_order) -> Policy:
    return Policy(
        path="some/plugins.toml",
        device_order=order,
        backend_order=backend_order,
        block=(),
        allow=(),
        ops=MappingProxyType({}),
        options=options or {},
    )


def choose(device, *specs, backend=None, settings=None, broken=()) -> Resolution:
    return resolve(device, backend, settings or policy(), plugins(*specs, broken=broken))


def refused(device, *specs, **more) -> str:
    with pytest.raises(DeviceError) as error:
        choose(device, *specs, **more)
    return str(error.value)


NUMPY = backend("numpy")
CUDA = backend("cuda", ("cuda",), tuple(DeviceInfo("cuda", i, f"GPU {i}") for i in (1, 0)))


@pytest.mark.parametrize(
    ("text", "request_"),
    [
        ("auto", DeviceRequest("auto")),
        ("cpu", DeviceRequest("cpu")),
        ("cuda:3", DeviceRequest("cuda", 3)),
    ],
)
def test_a_device_is_auto_or_a_kind_with_an_index(text, request_):
    assert DeviceRequest.parse(text) == request_


@pytest.mark.parametrize("text", ["", "CPU", "cuda:", "cuda:x", "cuda:-1", "auto:0", "cuda:0:1"])
def test_anything_else_is_no_device(text):
    assert "expected auto, or KIND[:INDEX]" in refused(text, NUMPY)


def test_auto_takes_the_first_kind_of_the_policy_that_is_here():
    chosen = choose("auto", NUMPY, CUDA)

    assert (chosen.spec.name, chosen.device) == ("cuda", DeviceInfo("cuda", 0, "GPU 0"))
    assert chosen.reason == "cuda:0 through cuda, chosen by auto: the first in order"


def test_auto_says_in_one_line_why_it_passed_others_over():
    lacking = absent("cuda", "cuda", "no driver", "pip install driver")
    chosen = choose("auto", NUMPY, lacking, broken=(("fast", "boom"),))

    assert chosen.spec.name == "numpy"
    assert "no backend is installed for rocm" in chosen.reason
    assert "cuda of backend cuda: no driver (pip install driver)" in chosen.reason
    assert "plugin fast of octavo-fast is broken" in chosen.reason
    assert "\n" not in chosen.reason


def test_auto_names_a_kind_that_is_here_but_not_in_its_order():
    chosen = choose("auto", NUMPY, backend("neuron", ("neuron",)))

    assert chosen.spec.name == "numpy"
    assert "neuron not in [devices] order of some/plugins.toml" in chosen.reason


def test_auto_survives_a_probe_that_raises():
    def probe():
        raise OSError("driver crashed")

    chosen = choose("auto", backend("cuda", ("cuda",), probe=probe), NUMPY)

    assert chosen.spec.name == "numpy"
    assert "raised OSError: driver crashed" in chosen.reason


def test_auto_without_any_device_says_what_it_tried_and_how_to_mend_it():
    message = refused("auto", absent("numpy", "cpu", "odd machine"))

    assert "cpu of backend numpy: odd machine" in message
    assert "no backend is installed for cuda, rocm" in message
    assert "some/plugins.toml" in message


def test_the_policy_orders_the_backends_of_a_kind():
    settings = policy(cpu=("native", "torch", "numpy"))
    specs = (backend("another"), NUMPY, backend("torch"))

    assert choose("cpu", *specs, settings=settings).spec.name == "torch"
    assert choose("cpu", *specs, settings=policy()).spec.name == "another"


def test_a_backend_that_is_not_preferred_is_not_even_probed():
    def probe():
        raise AssertionError("must not run")

    settings = policy(cpu=("numpy",))
    assert choose("cpu", backend("torch", probe=probe), NUMPY, settings=settings).spec is NUMPY


def test_the_next_backend_of_the_asked_kind_steps_in_and_the_line_says_so():
    settings = policy(cpu=("torch", "numpy"))
    chosen = choose("cpu", absent("torch", "cpu", "no torch"), NUMPY, settings=settings)

    assert chosen.reason == "cpu:0 through numpy, as asked: cpu of backend torch: no torch"


def test_an_explicit_kind_never_becomes_another():
    message = refused("cuda", absent("cuda", "cuda", "no driver", "pip install driver"), NUMPY)

    assert "No cuda device can be used" in message
    assert "no driver (pip install driver)" in message


def test_an_explicit_backend_never_becomes_another():
    message = refused("cpu", absent("torch", "cpu", "no torch"), NUMPY, backend="torch")
    assert "no torch" in message


def test_an_index_is_served_or_the_devices_are_listed():
    assert choose("cuda:1", CUDA).device.name == "GPU 1"
    message = refused("cuda:7", CUDA)
    assert "There is no cuda:7; there is cuda:0 of cuda (GPU 0), cuda:1 of cuda" in message


@pytest.mark.parametrize("kind", ["cuda", "rocm", "xpu"])
def test_the_kernels_for_a_gpu_go_before_what_another_backend_has_for_it(kind):
    specs = backend("jax", (kind, "cpu")), backend(kind, (kind,))
    chosen = resolve(kind, policy=load_policy(REPO_ROOT / "plugins.toml"), plugins=plugins(*specs))
    assert chosen.spec.name == kind


def test_an_index_may_be_served_by_a_later_backend():
    other = backend("other", ("cuda",), (DeviceInfo("cuda", 5, "far GPU"),))
    assert choose("cuda:5", CUDA, other).spec.name == "other"


def test_an_unknown_kind_is_refused_with_a_suggestion():
    message = refused("cdua", NUMPY)

    assert "Unknown device kind 'cdua'. Did you mean 'cuda'?" in message
    assert "Served here: cpu." in message
    assert "Known: cpu, cuda, neuron, rocm, tpu, xpu" in message


def test_a_kind_that_waits_for_somebody_elses_package_is_named_with_it_and_not_listed():
    message = refused("neuron", NUMPY)
    assert message.startswith(
        "No installed backend serves 'neuron': pip install octavo-tpu, and AWS's Neuron SDK"
    )
    unusable = list_devices(policy(), plugins(NUMPY)).unusable
    assert "neuron" not in {each.kind for each in unusable}
    assert "tpu" in {each.kind for each in unusable}


def test_a_kind_that_nobody_serves_says_what_to_install():
    assert "pip install octavo-cpu" in refused("cpu", CUDA)
    assert "pip install octavo-rocm" in refused("rocm", NUMPY)
    assert "pip install octavo-xpu" in refused("xpu", NUMPY)


def test_a_refusal_shows_plugins_that_are_broken():
    message = refused("neuron", NUMPY, broken=(("neuron", "its SDK is too old"),))
    assert "Plugin 'neuron' of octavo-neuron is broken: its SDK is too old" in message


@pytest.mark.parametrize(
    ("specs", "said"),
    [
        (["jax", "xpu"], "backends for it: jax. Installed: jax, xpu."),
        (["xpu"], "for it: pip install octavo-tpu. Installed: xpu."),
    ],
)
def test_a_kind_in_place_of_a_backend_is_told_apart(specs, said):
    kinds = {"jax": ("tpu", "cpu"), "xpu": ("xpu",)}
    message = refused("auto", *(backend(name, kinds[name]) for name in specs), backend="tpu")
    assert message == f"No installed backend is called 'tpu'. 'tpu' is a kind of device; {said}"


def test_an_unknown_backend_is_refused_with_a_suggestion():
    message = refused("auto", NUMPY, backend="nunpy")
    assert (
        "No installed backend is called 'nunpy'. Did you mean 'numpy'? Installed: numpy" in message
    )


def test_a_known_backend_that_is_not_installed_says_how_to_get_it():
    assert "To get it: pip install octavo-cpu" in refused("auto", CUDA, backend="numpy")
    assert "pip install octavo-tpu" in refused("auto", NUMPY, backend="jax")


def test_a_backend_is_refused_for_a_kind_it_does_not_serve():
    message = refused("cuda", NUMPY, CUDA, backend="numpy")
    assert "Backend 'numpy' serves cpu, not cuda. Backends for cuda: cuda." in message


def test_a_pinned_backend_with_auto_gets_its_own_kinds_only():
    both = backend(
        "jax", ("cpu", "tpu"), (DeviceInfo("cpu", 0, "CPU"), DeviceInfo("tpu", 0, "TPU"))
    )

    assert choose("auto", both, CUDA, backend="jax").device.kind == "cpu"
    settings = policy(order=("tpu", "cpu"))
    assert choose("auto", both, CUDA, backend="jax", settings=settings).device.kind == "tpu"


def test_a_pinned_backend_serves_a_kind_outside_the_order():
    neuron = backend("neuron", ("neuron",))
    chosen = choose("auto", NUMPY, neuron, backend="neuron")
    assert chosen.reason == "neuron:0 through neuron, its first device"


def test_a_pinned_backend_without_a_device_says_so_and_offers_no_other():
    message = refused("auto", NUMPY, absent("torch", "cpu", "no torch"), backend="torch")
    assert message.startswith(
        "Backend 'torch' has no device that can be used: cpu of backend torch"
    )
    assert "no torch" in message
    assert "octavo-cpu" not in message


def test_loading_hands_over_the_index_and_the_merged_options():
    seen = []
    spec = backend("cuda", ("cuda",), load=lambda *arguments: seen.append(arguments))
    settings = policy(options={"cuda": {"graphs": True, "streams": 2}, "numpy": {"threads": 1}})
    resolution = Resolution(spec, DeviceInfo("cuda", 3, "GPU"), "")

    with pytest.raises(BackendError, match="lacks"):  # None keeps no contract
        load_backend(resolution, settings, {"streams": 4})

    assert seen == [(3, {"graphs": True, "streams": 4})]


def test_what_loading_raises_is_named_with_the_device():
    def load(index, options):
        raise OSError("out of memory")

    resolution = Resolution(backend("cuda", ("cuda",), load=load), DeviceInfo("cuda", 1, "GPU"), "")

    with pytest.raises(BackendError, match=r"'cuda' could not be loaded on cuda:1.*out of memory"):
        load_backend(resolution, policy())


def test_a_backends_own_refusal_of_options_passes_through():
    def load(index, options):
        raise UsageError("no option 'fast'")

    resolution = Resolution(backend("numpy", load=load), DeviceInfo("cpu", 0, "CPU"), "")

    with pytest.raises(UsageError, match="no option 'fast'"):
        load_backend(resolution, policy())


def test_a_listing_holds_devices_with_all_their_backends_in_order():
    settings = policy(cpu=("torch", "numpy"))
    listing = list_devices(settings, plugins(NUMPY, CUDA, backend("torch")))

    places = [(d.info.kind, d.info.index, d.backends, d.is_automatic) for d in listing.devices]
    assert places == [
        ("cuda", 0, ("cuda",), True),
        ("cuda", 1, ("cuda",), False),
        ("cpu", 0, ("torch", "numpy"), False),
    ]


def test_a_listing_marks_what_auto_would_choose():
    specs = (NUMPY, CUDA, backend("neuron", ("neuron",)))
    settings = policy(order=("rocm", "cpu", "cuda"))
    marked = [d.info for d in list_devices(settings, plugins(*specs)).devices if d.is_automatic]

    assert marked == [choose("auto", *specs, settings=settings).device]


SIMULATED = backend("simulated", ("simulated",), automatic=False)
SLOW_CPU = backend("checker", automatic=False)


def test_auto_says_nothing_of_what_is_no_hardware():
    chosen = choose("auto", NUMPY, SIMULATED, SLOW_CPU, settings=policy(order=("cpu",)))

    assert chosen.spec is NUMPY
    assert chosen.reason == "cpu:0 through numpy, chosen by auto: the first in order"


def test_auto_does_not_fall_back_to_what_is_no_hardware():
    lacking = absent("numpy", "cpu", "odd machine")
    assert "odd machine" in refused("auto", lacking, SIMULATED, SLOW_CPU)

    message = refused("auto", SIMULATED, settings=policy(order=("simulated",)))
    assert "serves who names it, which [devices] simulated of plugins.toml does not" in message


def test_what_is_no_hardware_serves_who_names_it():
    assert choose("simulated", NUMPY, SIMULATED).spec is SIMULATED
    assert choose("auto", NUMPY, SIMULATED, backend="simulated").spec is SIMULATED
    assert choose("cpu", NUMPY, SLOW_CPU).spec is NUMPY
    assert choose("cpu", NUMPY, SLOW_CPU, backend="checker").spec is SLOW_CPU
    named = policy(order=("simulated", "cpu"), simulated=("simulated",))
    assert choose("auto", NUMPY, SIMULATED, settings=named).spec is SIMULATED


def test_a_listing_shows_what_is_no_hardware_where_asked():
    def listed(settings, **how):
        listing = list_devices(settings, plugins(NUMPY, SIMULATED, SLOW_CPU), **how)
        return [(d.info.kind, d.backends, d.is_automatic) for d in listing.devices]

    ordinary = policy(order=("cpu",))
    named = policy(order=("simulated", "cpu"), simulated=("simulated",))
    assert listed(ordinary) == [("cpu", ("numpy",), True)]
    assert listed(ordinary, everything=True) == [
        ("cpu", ("numpy", "checker"), True),
        ("simulated", ("simulated",), False),
    ]
    assert listed(named) == [
        ("simulated", ("simulated",), True),
        ("cpu", ("numpy",), False),
    ]


def test_a_listing_tells_absent_from_broken():
    def probe():
        raise OSError("driver crashed")

    listing = list_devices(
        policy(order=("cuda", "tpu", "cpu")),
        plugins(
            absent("cuda", "cuda", "no driver", "pip install driver"),
            backend("jax", ("tpu",), probe=probe),
            broken=(("bad", "boom"),),
        ),
    )

    missing = {(each.kind, each.backend): (each.reason, each.remedy) for each in listing.unusable}
    assert missing["cuda", "cuda"] == ("no driver", "pip install driver")
    assert missing["cpu", None] == ("no backend is installed", "pip install octavo-cpu")
    assert ("tpu", "jax") not in missing
    broken = {each.plugin: each.reason for each in listing.broken}
    assert broken["bad"] == "boom"
    assert "raised OSError: driver crashed" in broken["jax"]


def test_the_real_cpu_backend_is_found_and_loads():
    resolution = resolve("cpu", "numpy")
    loaded = load_backend(resolution, policy())

    assert resolution.device.kind == "cpu"
    assert "float32" in loaded.caps.dtypes
    assert dataclasses.is_dataclass(loaded.memory())
    loaded.close()
