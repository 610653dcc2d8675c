"""What the advisory report draws of a target's rows."""

import numpy as np

from simulations import report_advisory
from tests.simulations.report_inputs import advisory
from tests.simulations.test_report import carried


def test_attainment_over_time_is_drawn_and_thinning_keeps_the_worst(monkeypatch):
    """Row 4001 of 0.7 is an odd one: of every second row it would be left out."""
    monkeypatch.setattr(report_advisory, "ROWS_MAX", 6_000)
    made = advisory()
    attained = np.where(np.arange(11_520) == 4001, 0.7, 0.999)
    one = {**made["targets"][0], "attainment_target_ratio": 0.99}
    one["series"] = {**one["series"], "attained_ratio": attained}
    found = carried(report_advisory.render({**made, "targets": [one]}))["targets"][0]
    drawn = found["columns"]["attained_ratio"]
    assert found["attainment_target_ratio"] == 0.99
    assert len(found["at_s"]) == len(drawn) == 5_760
    assert min(drawn) == drawn[2000] == 0.7
