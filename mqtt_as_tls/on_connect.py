"""on_connect: functions of the app that run after every connect. Imported when there is one."""

import asyncio

from . import load


class Callbacks:
    """
    The on_connect functions of a client, and their tasks.

    handlers  list of async functions; tasks  list, those of the last connect
    """

    def __init__(self, client):
        self._client = client
        self.handlers = []
        self.tasks = []
        self._due = False

    def connected(self):
        """A connection was made: the functions run once its subscriptions are renewed."""
        self._due = True
        self.answered()

    def answered(self):
        """A request of this connection was answered, maybe the last one."""
        if self._due and not self._client.session.requests:
            self._due = False
            for task in self.tasks:
                task.cancel()
            self.tasks = [asyncio.create_task(self._guard(each)) for each in self.handlers]

    def stop(self):
        """The client stops: return the tasks (list) that are to be cancelled."""
        tasks = self.tasks
        self.tasks = []
        return tasks

    async def _guard(self, handler):
        try:
            await handler()
        except Exception as e:
            self._client.failed("%s", "on_connect", e)


def on_connect(client, handler):
    """
    `@client.on_connect`: run `handler` (async, no arguments) after every connect, in a task of its
    own, once the subscriptions are renewed.

    Returns `handler`. Raises TypeError for what is no function.
    """
    if not callable(handler):
        raise load("argument_errors").option("on_connect", handler)
    client.lazily("callbacks", Callbacks).handlers.append(handler)
    return handler
