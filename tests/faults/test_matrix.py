"""
Faults at every moment of a connection's life: the pairwise part of the matrix (matrix.py), on real
brokers. `python -m benchmarks.faults` runs all of it.

The cases run in a few lanes at once, each a broker and a device of its own, as most of a case is
waiting; each test is the result of one case.
"""

import itertools

import pytest

from tests.faults import matrix
from tests.faults.driver import Unable
from tests.faults.lanes import Lanes

LANES = 8
CASES = {matrix.name(case): case for case in matrix.pairwise()}


@pytest.fixture(scope="module")
def lanes(request, tmp_path_factory, pki):
    """The lanes, at work on the cases that were selected, in the order of their tests."""
    wanted = [
        item.callspec.params["name"]
        for item in request.session.items
        if item.fspath == request.node.fspath and hasattr(item, "callspec")
    ]
    folder = tmp_path_factory.mktemp("faults")
    with Lanes(folder, pki, min(LANES, len(wanted)), [CASES[name] for name in wanted]) as running:
        yield running


@pytest.mark.parametrize("name", CASES)
def test_a_fault_at_this_moment_costs_time_and_nothing_else(lanes, name):
    try:
        lanes.result(CASES[name])
    except Unable as reason:
        pytest.skip(str(reason))


def test_the_cases_are_every_pair_of_any_two_factors_that_makes_sense():
    covered = set().union(*map(matrix.pairs, CASES.values()))
    assert covered == set().union(*map(matrix.pairs, matrix.everything()))
    for moment, fault in itertools.product(matrix.MOMENTS, matrix.FAULTS):
        some = {((0, moment), (2, fault))} & covered
        reasons = {
            matrix.nonsense(matrix.Case(moment, side, fault, 4, transport))
            for side, transport in itertools.product(matrix.SIDES, matrix.TRANSPORTS)
        }
        assert some or None not in reasons, (moment, fault)
