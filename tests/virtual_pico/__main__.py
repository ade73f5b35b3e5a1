"""
`./dev pico`: the prompt of a virtual Pico; `./dev pico figures`: what it measures;
`./dev pico arithmetic`: the arithmetic of P-256, held against mbedTLS's.
"""

import sys

from tests.virtual_pico import arithmetic, figures, prompt
from tests.virtual_pico.pico import PicoError
from tools.debian import Unavailable

if __name__ == "__main__":
    name, *rest = sys.argv[1:] or [""]
    try:
        if name == "figures":
            figures.main(rest)
        elif name == "arithmetic":
            arithmetic.main(rest)
        else:
            prompt.main(sys.argv[1:])
    except (PermissionError, PicoError, RuntimeError, Unavailable) as error:
        sys.exit(f"./dev pico: {error}")
    except KeyboardInterrupt:  # while it builds, for one
        sys.exit(130)
