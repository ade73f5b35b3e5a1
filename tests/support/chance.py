"""
What tests leave to chance, in a way that can be repeated.

Before each test `random` begins anew with a seed that is made of the run's and of the test's name:
alone, and in another order, the test gets the same numbers. A run that fails names its seed.

Environment
    TEST_SEED  the run's seed, instead of a new one
"""

import os
import random

_NAME = "TEST_SEED"


def begin():
    """Choose the seed of this run; this process and those that it starts go by it."""
    os.environ.setdefault(_NAME, str(random.SystemRandom().randrange(1_000_000)))


def seed(test):
    """Have `random` begin with the numbers of `test` (str, its name)."""
    random.seed(f"{os.environ[_NAME]} {test}")


def told():
    """Return what repeats the chances of this run (str)."""
    return f"{_NAME}={os.environ[_NAME]}"
