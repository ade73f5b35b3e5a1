# ruff: noqa: F821  (the functions are MicroPython's, see its docs: manifest files)
# What a user of the library writes: the board's own modules, then ours.
# (The port's own manifest takes packages that Debian does not carry.)

freeze("$(PORT_DIR)/modules")
include("$(MPY_DIR)/extmod/asyncio")
include("../../manifest.py")
