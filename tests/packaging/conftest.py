"""What `./dev build` makes, for the tests that look into it or install it."""

import pytest

from tools import build
from tools.mqttls.device import bytecode


@pytest.fixture(scope="session")
def dist(tmp_path_factory):
    """A folder like dist/, built from the sources as they are now."""
    folder = tmp_path_factory.mktemp("built") / "dist"
    try:
        build.build(folder)
    except bytecode.Unavailable as reason:
        pytest.skip(f"nothing was built: {reason}")
    return folder
