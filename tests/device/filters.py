"""For programs of many topic filters: up to 64 that all match one topic, and who handled what."""

TOPIC = "a/b/c/d/e/f"


def filter_of(i):
    """Return one (str) of 64 filters that match TOPIC, all but number 0 with wildcards."""
    levels = TOPIC.split("/")
    return "/".join(["+" if i >> at & 1 else levels[at] for at in range(6)])


def order(count):
    """Return numbers of `count` of them (list), the exact one somewhere in between."""
    return [i * 37 % 64 for i in range(64 - count // 2, 64 + (count + 1) // 2)]


class Account:
    """
    What was handled, of messages that are numbered from 0 on.

    spans  {who: [first number, last number]}, of one after the other without a gap
    ran    list: who handled the newest message, in order
    """

    def __init__(self):
        self.spans = {}
        self.ran = []
        self._newest = -1

    def handler(self, who):
        """Return a handler that notes its messages as those of `who`."""

        def handle(message):
            number = int(message.payload)
            span = self.spans.setdefault(who, [number, number - 1])
            if number != span[1] + 1:
                print("WRONG", who, span, number)
            span[1] = number
            if number != self._newest:
                self._newest = number
                self.ran = []
            self.ran.append(who)

        return handle
