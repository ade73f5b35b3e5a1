"""Runs programs of the contract against the fake: their paths are the arguments."""

import sys

from tests.wifi_contract import scene_fake

sys.modules["scene"] = scene_fake

for path in sys.argv[1:]:
    scene_fake.begin()
    print("#", path)
    with open(path) as file:
        exec(file.read(), {"__name__": "program"})
