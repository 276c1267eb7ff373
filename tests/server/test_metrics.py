"""Figures: equal to what the answers say, the same as the library's, and all in the docs."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import prometheus_client
import pytest
from fake_clients import FakeClient, scheduler_stats
from hypothesis import given
from hypothesis import strategies as st
from metric_samples import Exposition, scrape

from octavo.engine_snapshot import EngineStats
from octavo.outputs import CompletionOutput, RequestMetrics, RequestOutput
from octavo.scheduling.stats import GroupStats
from octavo.server.monitoring import request_metrics
from octavo.server.monitoring.histogram import Histogram
from octavo.server.monitoring.metrics import PREFIX, Metrics
from octavo.server.monitoring.request_metrics import RequestFigures
from octavo.server.served_model import ServedModel, ServedModels

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"


def output(*answers, finished=False, error=None, metrics=None):
    """Of answers as (index, number of new tokens, finish reason)."""
    return RequestOutput(
        "request",
        None,
        [1, 2, 3],
        [
            CompletionOutput(index, "", [7] * num_tokens, finish_reason=reason)
            for index, num_tokens, reason in answers
        ],
        finished,
        error=error,
        metrics=metrics,
    )


@pytest.fixture
def clock(monkeypatch):
    """Seconds that a test sets: ``clock.now = 3.0``."""

    class Clock:
        now = 0.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(request_metrics, "time", clock)
    return clock


def observed(figures, name):
    """(sum, {upper bound of a bucket: values in it})."""
    histogram = figures.histograms[name]
    before, counts = 0, {}
    for bound, total in histogram.buckets:
        if total > before:
            counts[bound] = total - before
        before = total
    return pytest.approx(histogram.sum), counts


def exposition_of(*models):
    return Exposition(Metrics(ServedModels(models)).render()[0].decode())


@given(
    st.lists(st.floats(0, 20) | st.sampled_from([0.0, 0.5, 1.0, 10.0]), max_size=50),
    st.lists(st.sampled_from([0.1, 0.5, 1.0, 2.5, 10.0]), min_size=1, unique=True),
)
def test_a_histogram_is_the_librarys(values, bounds):
    bounds = sorted(bounds)
    registry = prometheus_client.CollectorRegistry()
    theirs = prometheus_client.Histogram("x", "y", buckets=bounds, registry=registry)
    ours = Histogram(bounds)
    for value in values:
        theirs.observe(value)
        ours.observe(value)
    samples = {
        sample.labels.get("le", sample.name): sample.value
        for family in registry.collect()
        for sample in family.samples
    }
    assert ours.buckets == [(bound, samples[bound]) for bound, _ in ours.buckets]
    assert len(ours.buckets) == len(bounds) + 1
    assert ours.sum == pytest.approx(samples["x_sum"])


def test_a_value_seen_often_counts_as_often():
    once, often = Histogram([1, 2]), Histogram([1, 2])
    for _ in range(5):
        once.observe(1.5)
    often.observe(1.5, 5)
    assert (once.buckets, once.sum) == (often.buckets, often.sum)


def test_tokens_are_timed_from_arrival_and_from_each_other(clock):
    """By hand: at 3.0 s one token, at 3.1 s four, at 3.5 s the last."""
    figures = RequestFigures()
    clock.now = 1.0
    timer = figures.timer()
    times = RequestMetrics(
        1.5, first_scheduled_time_s=1.8, first_token_time_s=2.9, finished_time_s=3.45
    )
    for now, piece in (
        (3.0, output((0, 1, None))),
        (3.1, output((0, 4, None))),
        (3.2, output((0, 0, None))),  # news without a token
        (3.5, output((0, 1, "length"), finished=True, metrics=times)),
    ):
        clock.now = now
        timer.note_output(piece)
    timer.close()
    assert observed(figures, "time_to_first_token_seconds") == (2.0, {"2.0": 1})
    assert observed(figures, "inter_token_latency_seconds") == (0.5, {"0.03": 4, "0.5": 1})
    assert observed(figures, "e2e_request_latency_seconds") == (2.5, {"5.0": 1})
    assert observed(figures, "request_queue_time_seconds") == (0.3, {"0.5": 1})
    assert observed(figures, "request_prefill_time_seconds") == (1.1, {"2.0": 1})
    assert observed(figures, "request_decode_time_seconds") == (0.55, {"1.0": 1})
    assert observed(figures, "request_prompt_tokens") == (3, {"5.0": 1})
    assert observed(figures, "request_generation_tokens") == (6, {"10.0": 1})
    assert +figures.num_ended == {"length": 1}


def test_each_of_several_answers_is_timed_by_itself(clock):
    """Answers of a request advance together, and a second one begins after the first."""
    figures = RequestFigures()
    timer = figures.timer(arrival_s=-1.0)
    for now, piece in (
        (0.0, output((0, 1, None))),
        (0.3, output((0, 1, None), (1, 1, None))),
        (0.42, output((0, 1, "length"), (1, 1, None))),
        (0.66, output((1, 1, "stop"), finished=True)),
    ):
        clock.now = now
        timer.note_output(piece)
    assert observed(figures, "time_to_first_token_seconds") == (1.0, {"1.0": 1})
    assert observed(figures, "inter_token_latency_seconds") == (
        0.3 + 0.12 + 0.12 + 0.24,
        {"0.3": 2, "0.15": 2},
    )
    assert observed(figures, "request_generation_tokens") == (6, {"10.0": 1})
    assert +figures.num_ended == {"stop": 1}


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        (None, "abort"),
        (output((0, 0, "abort"), finished=True), "abort"),
        (output((0, 0, "error"), finished=True, error="the device is gone"), "error"),
        (output(finished=True, error="ended before its first token"), "error"),
    ],
)
def test_a_request_that_was_cut_off_counts_and_is_not_timed(last, reason):
    figures = RequestFigures()
    timer = figures.timer()
    timer.note_output(output((0, 1, None)))
    if last is not None:
        timer.note_output(last)
    timer.close()
    timer.close()
    assert +figures.num_ended == {reason: 1}
    for name in ("e2e_request_latency_seconds", "request_prompt_tokens"):
        assert observed(figures, name) == (0, {})


def test_what_engines_say_is_shown_for_each_model():
    first, second = FakeClient(), FakeClient(model="other")
    groups = (GroupStats(2, 1, 5, 0, 0), GroupStats(3, 0, 1, 0, 0))
    first.shown.stats = EngineStats(
        scheduler_stats(
            num_waiting=1,
            num_running=2,
            num_swapped=3,
            num_recompute_preemptions=4,
            num_swap_preemptions=5,
            num_prefix_query_tokens=60,
            num_prefix_hit_tokens=7,
            groups=groups,
        ),
        num_steps=8,
        num_prompt_tokens=9,
        num_generated_tokens=10,
        num_failed_steps=11,
        step_time_s=1.25,
    )
    second.shown.failure, second.shown.is_sleeping = "it broke", True
    shown = exposition_of(
        ServedModel(names=('a "quoted"\nname', "alias"), engine=first),
        ServedModel(names=("b",), engine=second),
    )
    of_first = {
        (sample.name.removeprefix(PREFIX), *list(sample.labels.values())[1:]): sample.value
        for sample in shown.samples
        if sample.labels.get("model_name") == 'a "quoted"\nname'
    }
    expected = {
        ("num_requests_waiting",): 1,
        ("num_requests_running",): 2,
        ("num_requests_swapped",): 3,
        ("num_preemptions_total",): 4 + 5,
        ("prefix_cache_queries_total",): 60,
        ("prefix_cache_hits_total",): 7,
        ("engine_steps_total",): 8,
        ("prompt_tokens_total",): 9,
        ("generation_tokens_total",): 10,
        ("engine_failed_steps_total",): 11,
        ("engine_step_seconds_total",): 1.25,
        ("kv_cache_usage_perc",): 0.75,
        ("engine_up",): 1,
        ("engine_sleeping",): 0,
    }
    for (name,), value in expected.items():
        assert shown.sum(PREFIX + name, model_name='a "quoted"\nname') == value, (name, of_first)
    blocks = {
        (sample.labels["group"], sample.labels["state"]): sample.value
        for sample in shown.families[f"{PREFIX}kv_cache_blocks"].samples
        if sample.labels["model_name"] != "b"
    }
    assert blocks == {
        ("0", "used"): 2,
        ("0", "cached"): 1,
        ("0", "unused"): 5,
        ("1", "used"): 3,
        ("1", "cached"): 0,
        ("1", "unused"): 1,
    }
    assert shown.sum(f"{PREFIX}engine_up", model_name="b") == 0
    assert shown.sum(f"{PREFIX}engine_sleeping", model_name="b") == 1
    assert shown.sum(f"{PREFIX}engine_info", backend="numpy", max_model_len="64") == 2


def test_an_engine_without_a_cache_uses_none_of_it():
    engine = FakeClient()
    engine.shown.stats = EngineStats(scheduler_stats(groups=()))
    shown = exposition_of(ServedModel(names=("a",), engine=engine))
    assert shown.sum(f"{PREFIX}kv_cache_usage_perc") == 0


def test_servers_share_no_figures_and_touch_no_global_registry():
    model = ServedModel(names=("a",), engine=FakeClient())
    one, other = Metrics([model]), Metrics([model])
    one.of(model).timer().close()
    one.note_http("/health", "GET", 200)
    shown = [Exposition(metrics.render()[0].decode()) for metrics in (one, other)]
    assert [each.sum("octavo:request_success_total") for each in shown] == [1, 0]
    assert [len(each.families["octavo:http_requests"].samples) for each in shown] == [1, 0]
    names = [family.name for family in prometheus_client.REGISTRY.collect()]
    assert not [name for name in names if name.startswith(PREFIX)]


def test_labels_of_http_answers_come_from_routes_and_not_from_clients():
    metrics = Metrics([])
    for path in range(100):
        metrics.note_http(None, f"M{path}", 404)
    metrics.note_http("/v1/models/{name:path}", "GET", 404)
    shown = Exposition(metrics.render()[0].decode())
    assert shown.sum("octavo:http_requests_total", route="none", method="other") == 100
    assert shown.sum("octavo:http_requests_total", route="/v1/models/{name:path}") == 1
    assert shown.by_label("octavo:request_errors_total", "status") == {"404": 101}


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text; version=1.0.0",
        "application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
        "application/openmetrics-text; version=x; escaping=?",
    ],
)
def test_openmetrics_is_given_to_who_asks_for_it(accept):
    metrics = Metrics([ServedModel(names=("a",), engine=FakeClient())])
    metrics.note_http("/health", "GET", 200)
    text, content_type = metrics.render(accept)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0; charset=utf-8")
    shown = Exposition(text.decode(), is_openmetrics=True)
    assert shown.families["octavo:time_to_first_token_seconds"].type == "histogram"
    assert shown.sum("octavo:http_requests_total") == 1


@pytest.mark.parametrize("accept", ["", "*/*", "text/plain; version=abc", "text/html", "\x00;;,"])
def test_everybody_else_gets_the_plain_format(accept):
    text, content_type = Metrics([]).render(accept)
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert text.endswith(b"\n")


def test_the_page_lists_every_metric():
    """With its type, its labels and its meaning, and nothing else."""
    page = PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(octavo:\S+)` \| (\w+) \| (.*?) \| (.*) \|$", page, re.MULTILINE)
    metrics = Metrics([ServedModel(names=("a",), engine=FakeClient())])
    metrics.note_http("/x", "GET", 500)
    shown = Exposition(metrics.render()[0].decode())
    expected = {
        (
            family.name + ("_total" if family.type == "counter" else ""),
            family.type,
            frozenset(family.samples[0].labels) - {"le"},
            family.documentation,
        )
        for family in shown.families.values()
        if family.name.startswith(PREFIX)
    }
    listed = {
        (name, kind, frozenset(re.findall(r"`(\w+)`", labels)), text)
        for name, kind, labels, text in rows
    }
    assert listed == expected
    assert len(rows) == len(expected)
    others = {name for name in shown.families if not name.startswith(PREFIX)}
    assert others <= {name.removesuffix("_total") for name in re.findall(r"process_\w+", page)}


async def chat(http, **body):
    body = {"messages": [{"role": "user", "content": "Say: x"}], "max_tokens": 5, **body}
    return await http.post("/v1/chat/completions", json=body)


@pytest.mark.anyio
async def test_figures_equal_what_the_answers_say(http):
    requests = [
        {"max_tokens": 3 + index, "n": 1 + index % 2, "ignore_eos": True} for index in range(6)
    ]
    answers = [await chat(http, **requests[0])]  # the others find its prompt in the cache
    answers += await asyncio.gather(*(chat(http, **request) for request in requests[1:]))
    usages = [answer.json()["usage"] for answer in answers]
    assert (await chat(http, temperature=-1)).status_code == 400
    assert (await chat(http, model="nobody")).status_code == 404
    assert (await http.get("/nowhere")).status_code == 404
    shown = await scrape(http)

    prompt_tokens = sum(usage["prompt_tokens"] for usage in usages)
    completion_tokens = sum(usage["completion_tokens"] for usage in usages)
    cached_tokens = sum(usage["prompt_tokens_details"]["cached_tokens"] for usage in usages)
    num_answers = sum(request["n"] for request in requests)
    assert cached_tokens > 0
    assert completion_tokens == sum(request["max_tokens"] * request["n"] for request in requests)
    for name, value in {
        "request_prompt_tokens_sum": prompt_tokens,
        "request_generation_tokens_sum": completion_tokens,
        "generation_tokens_total": completion_tokens,
        "prompt_tokens_total": prompt_tokens - cached_tokens,
        "prefix_cache_hits_total": cached_tokens,
        "prefix_cache_queries_total": prompt_tokens,
        "request_success_total": 6,
        "time_to_first_token_seconds_count": 6,
        "e2e_request_latency_seconds_count": 6,
        "request_queue_time_seconds_count": 6,
        "num_requests_running": 0,
        "num_requests_waiting": 0,
        "kv_cache_usage_perc": 0,
        "engine_up": 1,
        "http_requests_in_flight": 0,
    }.items():
        assert shown.sum(PREFIX + name) == value, name
    # Tokens that come together with an answer's first have no time between them.
    num_intervals = shown.sum("octavo:inter_token_latency_seconds_count")
    assert 0 < num_intervals <= completion_tokens - num_answers
    assert shown.by_label("octavo:request_success_total", "finished_reason") == {"length": 6}
    assert shown.by_label("octavo:request_errors_total", "status") == {"400": 1, "404": 2}
    route = "/v1/chat/completions"
    assert shown.sum("octavo:http_requests_total", route=route, status="200") == 6
    assert shown.sum("octavo:http_requests_total", route=route, status="400") == 1
    assert shown.sum("octavo:http_requests_total", route="none", status="404") == 1
    phases = ("request_queue_time", "request_prefill_time", "request_decode_time")
    in_engine = sum(shown.sum(f"{PREFIX}{phase}_seconds_sum") for phase in phases)
    assert 0 < in_engine <= shown.sum("octavo:e2e_request_latency_seconds_sum")


@pytest.mark.anyio
async def test_the_content_type_is_the_one_of_the_format(http):
    plain = await http.get("/metrics")
    assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    wanted = {"accept": "application/openmetrics-text; version=1.0.0"}
    openmetrics = await http.get("/metrics", headers=wanted)
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
    assert openmetrics.text.endswith("# EOF\n")
