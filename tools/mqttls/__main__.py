"""`python -m tools.mqttls` from the project's folder, `python -m mqttls` where it is installed."""

import sys
from pathlib import Path

from .cli import main

sys.exit(main(program=f"{Path(sys.executable).stem} -m {__package__}"))
