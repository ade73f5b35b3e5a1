"""
Runs programs of the contract against the fake. Arguments: the version of MicroPython whose driver
it has, the paths of the programs.
"""

import sys

from tests.wifi_contract import scene_fake

sys.modules["scene"] = scene_fake

for path in sys.argv[2:]:
    scene_fake.begin(sys.argv[1])
    print("#", path)
    with open(path) as file:
        exec(file.read(), {"__name__": "program"})
