# ruff: noqa: F821  (the functions are MicroPython's, see its docs: manifest files)
# For firmware with mqtt_as_tls frozen in: include() this file from your own manifest.py.
# The paths in it are relative to it, wherever the manifest that includes it lies.

metadata(
    version="0.1.0",
    description="Asyncio MQTT client with verified TLS",
    license="MIT",
)

# Frozen in the standard firmware of every board with a network; named for those without.
require("ssl")

package("mqtt_as_tls", opt=3)
