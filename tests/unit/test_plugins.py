"""Plugins are found, isolated from each other, and shown with the reason when they fail.

Every fault comes from a distribution with real metadata; the worst of them run all together in a
process of their own, beside the real CPU backend.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from types import MappingProxyType

import pytest

from octavo import plugins as plugin_system
from octavo.isolation import Fault
from octavo.plugins import PluginRecord, load_plugins
from octavo.policy import Policy
from octavo.probing import probe_all
from octavo.spec_checks import check_api_version
from throwaway_plugins import HEALTHY, install, run_octavo

HANG = "time.sleep(3600)"
_HOOK = "@hookimpl\ndef octavo_register_backends(register):\n    "
_BACKEND = _HOOK + "register(spec({}))\n"

FAULTY_PLUGINS = {
    "raises-at-import": ("raise RuntimeError('no luck')", "raised RuntimeError: no luck"),
    "exits-at-import": ("raise SystemExit(3)", "raised SystemExit: 3"),
    "lacks-a-package": ("import vendor_sdk_xyz", "No module named 'vendor_sdk_xyz'"),
    "has-a-typing-error": ("def broken(:", "raised SyntaxError"),
    "cannot-print-its-error": (
        "class E(Exception):\n    def __str__(self): raise ValueError\nraise E",
        "its message cannot be printed",
    ),
    "wants-another-argument": (
        "@hookimpl\ndef octavo_register_backends(register, config):\n    pass\n",
        "config",
    ),
    "misspells-a-hook": (
        "@hookimpl\ndef octavo_register_backend(register):\n    pass\n",
        "Did you mean 'octavo_register_backends'?",
    ),
    "forgets-the-decorator": (
        "def octavo_register_backends(register):\n    register(spec())\n",
        "without the decorator @octavo.api.hookimpl",
    ),
    "has-no-hooks": ("answer = 42", "defines none of the hooks octavo_register_backends"),
    "registers-nothing": (_HOOK + "pass\n", "registered nothing"),
    "is-too-new": (
        _BACKEND.format("api_version=99"),
        "needs plugin API version 99, but this octavo has 1: upgrade octavo",
    ),
    "is-too-old": (
        _BACKEND.format("api_version=0"),
        "version 0, but this octavo serves 1: upgrade octavo-is-too-old",
    ),
    "has-no-version": (_BACKEND.format("api_version='1'"), "expected the integer 1"),
    "registers-garbage": (
        _HOOK + "register({'name': 'x'})\n",
        "registered {'name': 'x'} of type dict; expected octavo.api.BackendSpec",
    ),
    "registers-half-a-spec": (_HOOK + "register(BackendSpec(name='x'))\n", "raised TypeError"),
    "has-a-bad-name": (_BACKEND.format("name='My Backend'"), "name='My Backend'"),
    "takes-a-reserved-name": (_BACKEND.format("name='portable'"), "name='portable'"),
    "has-no-kinds": (_BACKEND.format("device_kinds=()"), "device_kinds=(); expected a tuple"),
    "has-a-kind-for-kinds": (_BACKEND.format("device_kinds='cpu'"), "device_kinds='cpu'"),
    "cannot-probe": (_BACKEND.format("probe=None"), "probe=None; expected a callable"),
    "raises-in-the-hook": (_HOOK + "raise KeyError('gone')\n", "raised KeyError: 'gone'"),
    "exits-in-the-hook": (_HOOK + "raise SystemExit\n", "raised SystemExit"),
    "hides-its-refusal": (
        _HOOK + "register(spec())\n    try: register(7)\n    except BaseException: pass\n",
        "registered 7 of type int",
    ),
    "hangs-at-import": (HANG, "gave no answer in time"),
    "hangs-in-the-hook": (_HOOK + HANG, "gave no answer in time"),
    "registers-a-backend-twice": (
        _BACKEND.format("") + "    register(spec())\n",
        "the backend name 'registers-a-backend-twice' is claimed twice",
    ),
}

FAULTY_PROBES = {
    "raises": ("def probe(): raise OSError('driver is gone')", "raised OSError: driver is gone"),
    "exits": ("def probe(): raise SystemExit(1)", "raised SystemExit"),
    "hangs": (f"def probe(): {HANG}", "gave no answer in time"),
    "returns-nothing": ("def probe(): pass", "of type NoneType; expected octavo.api.Probe"),
    "returns-a-list": ("def probe(): return Probe(devices=[])", "of type list; expected a tuple"),
    "returns-a-string": ("def probe(): return Probe(devices=('toy:0',))", "a device of type str"),
    "returns-another-kind": (
        "def probe(): return Probe(devices=(DeviceInfo('cpu', 0, 'CPU'),))",
        "kind 'cpu'; it registered ('toy',)",
    ),
    "returns-a-bad-index": (
        "def probe(): return Probe(devices=(DeviceInfo(KIND, -1, 'x'),))",
        "expected an index from 0",
    ),
    "returns-one-twice": (
        "def probe(): return Probe(devices=(DeviceInfo(KIND, 0, 'x'), DeviceInfo(KIND, 0, 'y')))",
        "returned one device twice",
    ),
    "returns-a-bad-reason": ("def probe(): return Probe(reason=5)", "a text of type int"),
}

_counter = itertools.count()


def policy(**fields) -> Policy:
    defaults = {
        "path": "plugins.toml",
        "device_order": ("cpu",),
        "backend_order": MappingProxyType({}),
        "block": (),
        "allow": (),
        "ops": MappingProxyType({}),
        "options": MappingProxyType({}),
    }
    return Policy(**{**defaults, **fields})


@pytest.fixture
def site(tmp_path, monkeypatch) -> Path:
    """A folder on the import path; module names are new each time, since Python caches modules."""
    folder = tmp_path / f"site{next(_counter)}"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("OCTAVO_PLUGIN_TIMEOUT_S", "0.5")
    return folder


def load(*distributions: str) -> dict[str, PluginRecord]:
    """The records of the given distributions, with all others blocked."""
    found = load_plugins(policy(allow=distributions))
    return {record.distribution: record for record in found.records if record.status != "blocked"}


def test_a_healthy_plugin_brings_its_backend(site):
    record = load(install(site, "sound"))["octavo-sound"]

    assert (record.status, record.reason, record.version) == ("ok", None, "1.0")
    assert [spec.name for spec in record.backends] == ["sound"]


@pytest.mark.parametrize("fault", FAULTY_PLUGINS)
def test_a_faulty_plugin_is_kept_with_its_reason_and_registers_nothing(site, fault):
    source, reason = FAULTY_PLUGINS[fault]
    faulty = install(site, fault, source)
    beside = install(site, "beside", distribution=f"octavo-beside-{fault}")

    records = load(faulty, beside)

    assert records[faulty].status == "broken"
    assert reason in records[faulty].reason
    assert records[faulty].backends == ()
    assert records[beside].status == "ok"


def test_what_a_hanging_plugin_registers_later_is_not_used(site, monkeypatch):
    monkeypatch.setenv("OCTAVO_PLUGIN_TIMEOUT_S", "0.05")
    source = "@hookimpl\ndef octavo_register_backends(register):\n"
    source += "    register(spec()); time.sleep(0.2); register(spec(name='late'))\n"
    late = install(site, "tardy", source)

    found = load_plugins(policy(allow=(late,)))

    assert found.backends == {}
    assert "0.05 s; $OCTAVO_PLUGIN_TIMEOUT_S" in found.broken[0].reason


def test_keyboard_interrupt_is_no_fault_of_the_plugin(site):
    install(site, "interrupts", "raise KeyboardInterrupt")

    with pytest.raises(KeyboardInterrupt):
        load("octavo-interrupts")


def test_two_distributions_with_one_plugin_name_are_both_refused(site):
    install(site, "same", distribution="octavo-same-one", backend="same-one")
    install(site, "same", distribution="octavo-same-two", backend="same-two")

    records = load("octavo-same-one", "octavo-same-two")

    for record in records.values():
        assert record.status == "broken"
        assert "octavo-same-one and by octavo-same-two" in record.reason
    assert len(records) == 2


def test_two_distributions_with_one_backend_name_are_both_refused(site):
    install(site, "first-claim", backend="claimed")
    install(site, "second-claim", backend="claimed")
    names = ("octavo-first-claim", "octavo-second-claim")

    records = load(*names)

    assert {record.status for record in records.values()} == {"broken"}
    assert all(name in record.reason for record in records.values() for name in names)


def test_blocking_one_of_two_claimants_brings_the_other_back(site):
    install(site, "twice-a", backend="contested")
    install(site, "twice-b", backend="contested")
    settings = policy(allow=("octavo-twice-a", "octavo-twice-b"), block=("Octavo_Twice.B",))

    found = load_plugins(settings)

    assert found.distribution_of("contested") == "octavo-twice-a"


def test_conflicting_attention_and_models_are_refused(site):
    attention = (
        "@hookimpl\ndef octavo_register_attention(register):\n"
        "    register(AttentionSpec('flash', 'numpy', ('attend',), dict, str, API_VERSION))\n"
    )
    model = (
        "@hookimpl\ndef octavo_register_models(register):\n"
        "    register(ModelSpec('NewForCausalLM', dict))\n"
    )
    for number in (1, 2):
        install(site, f"attention-{number}", attention)
        install(site, f"model-{number}", model)

    records = load(*(f"octavo-{kind}-{n}" for kind in ("attention", "model") for n in (1, 2)))

    assert {record.status for record in records.values()} == {"broken"}
    assert "attention backend 'flash' of backend 'numpy'" in records["octavo-attention-1"].reason
    assert "architecture 'NewForCausalLM'" in records["octavo-model-2"].reason


def test_models_and_attention_are_collected(site):
    source = (
        "@hookimpl\ndef octavo_register_attention(register):\n"
        "    register(AttentionSpec('flash', 'numpy', ('attend',), dict, str, API_VERSION))\n"
        "@hookimpl\ndef octavo_register_models(register):\n"
        "    register(ModelSpec('NewForCausalLM', dict))\n"
    )
    install(site, "extras", source)

    found = load_plugins(policy(allow=("extras",)))

    assert [spec.name for spec in found.attention] == ["flash"]
    assert [spec.architecture for spec in found.models] == ["NewForCausalLM"]


@pytest.mark.parametrize("entry", ["unwanted", "octavo-unwanted", "Octavo.Unwanted"])
def test_a_blocked_plugin_is_never_imported(site, entry):
    install(site, "unwanted", "open(__file__ + '.imported', 'w').close()\n" + HEALTHY)

    found = load_plugins(policy(block=(entry,), allow=("unwanted",)))

    record = next(each for each in found.records if each.name == "unwanted")
    assert record.status == "blocked"
    assert "[plugins] block of plugins.toml" in record.reason
    assert not list(site.glob("*.imported"))


def test_a_plugin_that_is_not_allowed_is_never_imported(site):
    install(site, "uninvited", "open(__file__ + '.imported', 'w').close()\n" + HEALTHY)

    found = load_plugins(policy(allow=("somebody-else",)))

    record = next(each for each in found.records if each.name == "uninvited")
    assert (record.status, record.reason) == ("blocked", "not in [plugins] allow of plugins.toml")
    assert not list(site.glob("*.imported"))


def test_finding_plugins_imports_none_of_them(site):
    install(site, "dormant", "open(__file__ + '.imported', 'w').close()")

    candidates, _ = plugin_system.find_candidates()

    assert "dormant" in [candidate.name for candidate in candidates]
    assert not list(site.glob("*.imported"))


def test_malformed_metadata_of_one_distribution_breaks_only_that_one(site):
    install(site, "garbled", entry_points="[octavo.plugins]\nthis line means nothing\n")
    sound = install(site, "unharmed")

    found = load_plugins(policy(allow=(sound,)))

    assert [record.name for record in found.records if record.status == "ok"] == ["unharmed"]
    assert [record.distribution for record in found.broken] == ["octavo-garbled"]
    assert "metadata cannot be read" in found.broken[0].reason


@pytest.mark.parametrize("group", ["octavo.plugin", "octavo_plugins", "Octavo.Plugins"])
def test_a_misspelt_group_is_shown_with_the_right_one(site, group):
    record = load(install(site, "misfiled", entry_points=f"[{group}]\nmisfiled = nowhere\n"))[
        "octavo-misfiled"
    ]

    assert record.status == "broken"
    assert f"'misfiled' is in the group {group!r}" in record.reason
    assert record.reason.endswith("the one that is read is 'octavo.plugins'")


def test_groups_of_other_plugin_systems_are_their_own_business(site):
    points = "[octavo_cuda.plugins]\na = b\n[console_scripts]\noctavo-plugins = c:d\n"
    distribution = install(site, "elsewhere", entry_points=points)

    assert distribution not in [record.distribution for record in load_plugins(policy()).records]


def test_an_entry_point_to_a_missing_object_is_shown(site):
    points = "[octavo.plugins]\nmissing = octavo_missing_plugin:nowhere\n"
    record = load(install(site, "missing", entry_points=points))["octavo-missing"]

    assert record.status == "broken"
    assert "nowhere" in record.reason


def test_an_object_can_be_a_plugin(site):
    source = (
        "class Plugin:\n    @hookimpl\n    def octavo_register_backends(self, register):\n"
        "        register(spec())\nplugin = Plugin()\n"
    )
    points = "[octavo.plugins]\nobject = octavo_object_plugin:plugin\n"
    record = load(install(site, "object", source, entry_points=points))["octavo-object"]

    assert (record.status, record.reason) == ("ok", None)


@pytest.mark.parametrize("version", [2, 3])
def test_the_current_api_version_and_the_one_before_are_served(version):
    check_api_version(version, "octavo-any", current=3)


@pytest.mark.parametrize(
    ("version", "advice"), [(1, "pip install -U octavo-any"), (4, "pip install -U octavo)")]
)
def test_other_api_versions_say_what_to_upgrade(version, advice):
    with pytest.raises(Fault) as refusal:
        check_api_version(version, "octavo-any", current=3)
    assert advice in str(refusal.value)


@pytest.mark.parametrize("fault", FAULTY_PROBES)
def test_a_faulty_probe_is_reported_with_its_reason(site, fault):
    source, reason = FAULTY_PROBES[fault]
    plugin = f"probe-{fault}"
    install(site, plugin, f"{source}\n" + _BACKEND.format("probe=probe"))

    found = load_plugins(policy(allow=(plugin,)))
    result = probe_all(found.backends.values(), timeout_s=0.3)[plugin]

    assert result.status == ("hung" if fault == "hangs" else "failed")
    assert reason in result.reason
    assert result.devices == ()


def test_a_probe_without_devices_gives_its_reason_and_remedy(site):
    source = "def probe(): return Probe(reason='no driver', install='pip install driver')\n"
    install(site, "driverless", source + _BACKEND.format("probe=probe"))

    found = load_plugins(policy(allow=("driverless",)))
    result = probe_all(found.backends.values())["driverless"]

    assert (result.status, result.reason) == ("absent", "no driver")
    assert result.install == "pip install driver"


@pytest.fixture(scope="module")
def everything_broken(tmp_path_factory) -> Path:
    """A folder with every faulty plugin at once, a healthy one, and one that prints."""
    folder = tmp_path_factory.mktemp("broken") / "site"
    for fault, (source, _) in FAULTY_PLUGINS.items():
        install(folder, fault, source)
    for fault, (source, _) in FAULTY_PROBES.items():
        install(folder, f"probe-{fault}", f"{source}\n" + _BACKEND.format("probe=probe"))
    install(folder, "same", distribution="octavo-same-one", backend="same-one")
    install(folder, "same", distribution="octavo-same-two", backend="same-two")
    install(folder, "first-claim", backend="claimed")
    install(folder, "second-claim", backend="claimed")
    install(folder, "garbled", entry_points="[octavo.plugins]\nthis line means nothing\n")
    install(folder, "talkative", "print('hello from a plugin')\n" + HEALTHY)
    return folder


LIMITS = {"OCTAVO_PLUGIN_TIMEOUT_S": "1", "OCTAVO_PROBE_TIMEOUT_S": "1"}


def test_devices_lists_the_cpu_whatever_else_is_installed(everything_broken):
    ended = run_octavo(everything_broken, "devices", "--json", environ=LIMITS)

    assert ended.returncode == 0, ended.stderr
    listing = json.loads(ended.stdout)
    served = {
        (each["kind"], backend) for each in listing["devices"] for backend in each["backends"]
    }
    assert {("cpu", "numpy"), ("toy", "talkative")} <= served
    reasons = {each["plugin"]: each["reason"] for each in listing["broken"]}
    for fault, (_, reason) in FAULTY_PLUGINS.items():
        assert reason in reasons[fault]
    for fault, (_, reason) in FAULTY_PROBES.items():
        assert reason in reasons[f"probe-{fault}"]
    for conflicting in ("same", "first-claim", "second-claim", "octavo-garbled"):
        assert conflicting in reasons


def test_devices_prints_the_same_for_a_reader(everything_broken):
    ended = run_octavo(everything_broken, "devices", environ=LIMITS)

    assert ended.returncode == 0
    assert "hello from a plugin" not in ended.stdout
    assert "Traceback" not in ended.stderr
    lines = [line for line in ended.stdout.splitlines() if line.startswith("  cpu:0")]
    assert len(lines) == 1
    assert "numpy" in lines[0]
    for fault in FAULTY_PLUGINS:
        assert f"  {fault} " in ended.stdout


def test_hanging_plugins_do_not_outlast_the_default_limits(tmp_path):
    install(tmp_path / "site", "hangs-at-import", HANG)
    install(
        tmp_path / "site",
        "hangs-in-probe",
        f"def probe(): {HANG}\n" + _BACKEND.format("probe=probe"),
    )

    ended = run_octavo(tmp_path / "site", "devices", "--json", time_limit_s=120)

    assert ended.returncode == 0
    broken = {each["plugin"] for each in json.loads(ended.stdout)["broken"]}
    assert broken == {"hangs-at-import", "hangs-in-probe"}


def test_plugins_shows_all_of_them(everything_broken):
    ended = run_octavo(everything_broken, "plugins", "--json", environ=LIMITS)

    assert ended.returncode == 0
    records = json.loads(ended.stdout)["plugins"]
    status = {(each["name"], each["distribution"]): each["status"] for each in records}
    assert status["cpu", "octavo-cpu"] == "ok"
    assert status["same", "octavo-same-one"] == status["same", "octavo-same-two"] == "broken"
    assert all(each["reason"] for each in records if each["status"] == "broken")
