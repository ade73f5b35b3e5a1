"""`python -m tools.mqttls` from the project's folder, `python -m mqttls` where it is installed."""

import sys

from .cli import main

sys.exit(main())
