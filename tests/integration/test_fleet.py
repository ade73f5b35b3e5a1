"""A small run of benchmarks/fleet.py, which has 200 devices."""

from benchmarks import fleet


def test_a_fleet_comes_back_after_a_restart_of_its_broker_and_loses_nothing(tmp_path):
    figures = fleet.run(
        tmp_path, "tls", devices=12, processes=2, down_s=0.3, period_s=0.2, calm_s=0.5
    )
    assert figures["first_connect_s"]["count"] == figures["back_s"]["count"] == 12
    assert sum(figures["back_in_each_second"]) == 12
    assert figures["sent"] >= 12
    assert figures["lost"] == 0
