"""
Random outages with messages of every QoS both ways: a short run of benchmarks/soak.py, which runs
for hours, too.

    SOAK_S  seconds, 25 unless given
"""

import os
import random

import pytest

from benchmarks import soak

SECONDS = float(os.environ.get("SOAK_S", "25"))


@pytest.mark.timeout(SECONDS + 180)
def test_outages_by_chance_lose_nothing_and_leak_nothing(tmp_path):
    seed = random.randrange(1_000_000)
    print("seed", seed)
    figures = soak.run(tmp_path, SECONDS, seed, hurry=True, verbose=True)
    print(figures)
    assert figures["rounds"] >= 10
    for qos, count in figures["up"].items():
        assert count["received"] and figures["down"][qos]["received"], qos
    assert not figures["failures"]
