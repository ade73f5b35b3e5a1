"""
Run the unit tests under MicroPython:

    micropython tests/unit/run_micropython.py [test_packet.py …]

Every function named test_* of every file tests/unit/test_*.py is called without arguments; the
exit status is 1 if one of them raised. Files named test_*_properties.py and files with a line
`CPYTHON_ONLY = True` are left to CPython. pytest runs this file by itself, once a test file.
"""

import gc
import os
import sys

_HERE = __file__.rsplit("/", 1)[0] if "/" in __file__ else "."
_MARK = "CPYTHON_ONLY = True"
sys.path.append(_HERE + "/../..")  # after .frozen: a package that is frozen in is the one to test


def _runs_here(name):
    if not (name.startswith("test_") and name.endswith(".py")):
        return False
    if name[5:].endswith("_properties.py"):
        return False
    with open(_HERE + "/" + name) as source:
        for line in source:
            if line.rstrip() == _MARK:
                return False
    return True


def _run(name):
    """Run the tests of one file; return how many (passed, failed)."""
    passed = failed = 0
    try:
        module = __import__("tests.unit." + name[:-3], None, None, ["*"])
    except Exception as error:
        print("FAILED", name, "cannot be imported")
        sys.print_exception(error)
        return 0, 1
    for test in sorted(dir(module)):
        function = getattr(module, test)
        if not (test.startswith("test_") and callable(function)):
            continue
        gc.collect()
        try:
            function()
            passed += 1
        except Exception as error:
            failed += 1
            print("FAILED", name + "::" + test)
            sys.print_exception(error)
    del sys.modules["tests.unit." + name[:-3]]
    return passed, failed


def main(names):
    """Run the files `names`, or all; print one line with the counts; return the exit status."""
    passed = failed = 0
    for name in names or sorted(os.listdir(_HERE)):
        if _runs_here(name):
            ok, bad = _run(name)
            passed += ok
            failed += bad
        elif name in names:
            print(name, "is for CPython only")
    print("{} passed, {} failed".format(passed, failed))
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
