"""Options of the backend ``xpu``, with a torch that records graphs and with one that does not."""

from __future__ import annotations

import pytest

pytest.importorskip("octavo_xpu", reason="octavo-xpu is not installed")
torch = pytest.importorskip("torch")

from octavo.errors import UsageError  # noqa: E402
from octavo_xpu.options import parse_options  # noqa: E402


@pytest.mark.parametrize(
    ("has_graphs", "options", "graphs"),
    [
        (True, {}, True),
        (True, {"graphs": True}, True),
        (True, {"graphs": False}, False),
        (False, {}, False),
        (False, {"graphs": False}, False),
        (False, {"graph_batch_sizes": [1, 2]}, False),
    ],
)
def test_graphs_are_used_where_torch_has_them(monkeypatch, has_graphs, options, graphs):
    choose(monkeypatch, has_graphs)
    assert parse_options(options).graphs is graphs


def test_graphs_that_are_asked_for_in_vain_are_one_clear_error(monkeypatch):
    choose(monkeypatch, has_graphs=False)
    with pytest.raises(UsageError) as refused:
        parse_options({"graphs": True})
    said = str(refused.value)
    assert said.startswith("Option graphs of backend 'xpu' is true, and torch 2.")
    assert "Install a newer torch, or leave the option out of [options.xpu]" in said


def choose(monkeypatch, has_graphs):
    if has_graphs:
        monkeypatch.setattr(torch.xpu, "XPUGraph", object, raising=False)
    else:
        monkeypatch.delattr(torch.xpu, "XPUGraph", raising=False)
