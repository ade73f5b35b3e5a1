# ruff: noqa: F821  (the functions are MicroPython's, see its docs: manifest files)
# What manifest.py freezes without the package, to measure what it adds.

freeze("$(PORT_DIR)/modules")
include("$(MPY_DIR)/extmod/asyncio")
require("ssl")
