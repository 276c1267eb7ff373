"""Samples of an exposition, read by the parsers of prometheus_client."""

from __future__ import annotations

from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families


class Exposition:
    def __init__(self, text, is_openmetrics=False):
        parse = openmetrics_families if is_openmetrics else text_string_to_metric_families
        self.families = {family.name: family for family in parse(text)}
        self.samples = [sample for family in self.families.values() for sample in family.samples]

    def sum(self, name, **labels):
        """Of the samples of a name with these labels; fails if there are none."""
        found = [
            sample.value
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        assert found, f"no sample {name} with {labels}"
        return sum(found)

    def by_label(self, name, label):
        """The values of a name by one of its labels, those of 0 left out."""
        return {
            sample.labels[label]: sample.value
            for sample in self.samples
            if sample.name == name and sample.value
        }


async def scrape(http, **headers):
    response = await http.get("/metrics", headers=headers)
    assert response.status_code == 200
    return Exposition(response.text)
