"""DCGM's page: shares of the time between two collections."""

from simulations.gpu_exporter import GpuExporter
from tests.simulations.scrapes import scrape


def test_utilisation_is_the_growth_of_busy_time_over_the_interval() -> None:
    exporter = GpuExporter()
    assert exporter.ratio is None
    exporter.collect(scrape(0.0, {0: {"busy_s": 100.0}}))
    assert exporter.ratio is None, "one collection is no interval"
    exporter.collect(scrape(30.0, {0: {"busy_s": 115.0}, 1: {"busy_s": 6.0}}))
    assert exporter.ratio == {0: 0.5, 1: 0.2}  # the second one is new: all its work is in between
    exporter.collect(scrape(60.0, {1: {"busy_s": 36.0}}))
    assert exporter.ratio == {1: 1.0}


def test_utilisation_is_at_most_all_of_the_time() -> None:
    exporter = GpuExporter()
    exporter.collect(scrape(0.0, {0: {}}))
    exporter.collect(scrape(30.0, {0: {"busy_s": 30.000001}}))
    assert exporter.ratio == {0: 1.0}
