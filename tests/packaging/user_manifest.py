# ruff: noqa: F821  (the functions are MicroPython's, see its docs: manifest files)
# What a user of the library writes: the board's own modules, then ours.
# (The unix port has no board; its own manifest takes packages that Debian does not carry.)

include("$(MPY_DIR)/extmod/asyncio")
include("../../manifest.py")
