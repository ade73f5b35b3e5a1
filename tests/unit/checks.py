"""Helpers for unit tests that run on CPython and on MicroPython alike."""

import sys


class raises:
    """
    Check that the body of a `with` raises `expected` (or a subclass), and nothing else.

        with raises(ValueError, "set the clock") as caught:
            ...
        assert caught.error.args

    expected  an exception class, or a tuple of them
    text      str that must be part of the message; "" accepts any
    """

    def __init__(self, expected, text=""):
        self.expected = expected
        self.text = text
        self.error = None

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is None:
            raise AssertionError("nothing was raised, expected {}".format(self.expected))
        if not issubclass(kind, self.expected):
            return False
        self.error = error
        if self.text not in str(error):
            raise AssertionError("{!r} is not in {!r}".format(self.text, str(error)))
        return True


def fields(decoder, first):
    """Return the fields of the packet that `decoder` is at."""
    if first & 0xF0 == 0x30:
        return decoder.publish(first >> 1 & 3)
    if first == 0x20:
        return decoder.connack()
    if first == 0xD0:
        return None
    if first == 0x90:
        return decoder.packet_id(), decoder.suback()
    return decoder.packet_id()


def run_tests(module, run=None):
    """
    Call every function test_* of `module` (dict, its globals): print "ok NAME", or "FAILED NAME"
    with a traceback, for each.

    run  function of one, that calls it; None: they are called
    """
    for name in sorted(module):
        if not name.startswith("test_") or not callable(module[name]):
            continue
        try:
            run(module[name]) if run else module[name]()
            print("ok", name)
        except Exception as error:
            print("FAILED", name)
            sys.print_exception(error, sys.stdout)
