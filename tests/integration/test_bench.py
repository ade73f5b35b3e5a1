"""
The benchmark's programs run. What they measure says nothing on a machine that is busy with tests,
so it is not looked at; clients of others take part where ./dev bench has fetched them.
"""

import json
import os
import subprocess
import sys

import pytest

from benchmarks import growth, path
from benchmarks.contestants import ALL, BARE, OURS, PEERS
from tests.support import patience
from tests.support.broker import mosquitto
from tests.support.mpy import ROOT
from tools.figures import tables


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The figures of a quick run."""
    mosquitto()
    path = tmp_path_factory.mktemp("bench") / "figures.json"
    parts = ("connect", "speed", "memory", "idle")
    subprocess.run(
        [sys.executable, "-m", "benchmarks.run", "--quick", *parts, "--json", path],
        cwd=ROOT,
        check=True,
        timeout=patience.stretched(240),
    )
    return json.loads(path.read_text())


@pytest.mark.timeout(120)
def test_every_client_is_measured_or_it_is_said_why_not(results):
    figures = [figure for figure in results["figures"] if "what" in figure]
    names = {each.name for each in ALL}
    counted = os.path.exists("/proc/self/schedstat")  # CPU time and wake-ups of a process
    assert len(figures) == (39 if counted else 23)
    for figure in figures:
        if figure["what"].startswith("TLS / TCP"):
            continue
        there = set(figure["median"])
        assert {OURS, BARE} <= there, figure
        assert names == there | set(figure["absent"]), figure
        broken = [reason for reason in figure["absent"].values() if reason.startswith("failed")]
        assert broken == [], figure


@pytest.mark.timeout(120)
def test_the_readme_gets_a_line_a_figure_and_a_reason_for_every_gap(results):
    text = tables(results)
    for figure in results["figures"]:
        if "what" in figure:
            assert text.count(f"| {figure['what']}") == 1
    for each in ALL:
        assert each.name.replace(BARE, "a bare socket") in text
    if not PEERS.exists():
        assert "aiomqttc not downloaded: run ./dev bench once" in text


@pytest.mark.timeout(120)
def test_many_filters_are_measured_in_every_number_and_kind():
    command = [sys.executable, "-m", "benchmarks.filters", "--dry-run"]
    said = subprocess.run(
        [*command, "--rounds", "1", "--messages", "2"],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=patience.stretched(60),
    ).stdout
    cells = [[cell.strip() for cell in line.split("|")] for line in said.splitlines()]
    rows = [(each[1], each[2]) for each in cells if len(each) == 7 and each[1].isdigit()]
    kinds = "without wildcards", "with a wildcard"
    assert rows == [(count, kind) for kind in kinds for count in ("1", "10", "100", "500")]


@pytest.mark.parametrize("protocol", path.PROTOCOLS)
def test_every_piece_of_a_message_s_way_is_measured(protocol):
    pieces = path.here(protocol, 20, 1)
    assert set(pieces) == set(path.PIECES)
    assert all(taken > 0 for name, (_, taken) in pieces.items() if name.startswith("publish"))


@pytest.mark.parametrize("case", growth.CASES)
def test_growth_is_measured_in_both_ways(case):
    assert growth.measure(case, 8) > 0


def test_another_benchmark_is_started_by_its_name():
    command = [sys.executable, "-m", "benchmarks.run", "fleet", "--help"]
    said = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    assert "--devices" in said
