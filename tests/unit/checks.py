"""Helpers for unit tests that run on CPython and on MicroPython alike."""


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
