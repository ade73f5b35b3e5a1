"""Several lanes (driver.py) that share a list of cases."""

import concurrent.futures
import queue
import threading

from tests.faults.driver import Lane, broker_identity
from tests.support import patience


class Lanes:
    """
    directory  Path of an empty folder
    keys       tests.support.pki.PKI
    count      int, how many lanes
    cases      list of matrix.Case; their work begins at once, in this order

    Use it in a `with`.
    """

    def __init__(self, directory, keys, count, cases):
        self._futures = {case: concurrent.futures.Future() for case in cases}
        self._cases = queue.SimpleQueue()
        for case in cases:
            self._cases.put(case)
        self._closing = False
        identity = broker_identity(keys)
        self._threads = [
            threading.Thread(
                target=self._work, args=(Lane(directory / f"lane{i}", keys, identity),)
            )
            for i in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._closing = True
        for thread in self._threads:
            thread.join(patience.stretched(60))

    def result(self, case, timeout_s=110):
        """Return the report of `case`; raise what its run raised. `timeout_s` None: no limit."""
        limit_s = None if timeout_s is None else patience.stretched(timeout_s)
        return self._futures[case].result(limit_s)

    def _work(self, lane):
        try:
            while not self._closing:
                case = self._cases.get_nowait()
                future = self._futures[case]
                try:
                    future.set_result(lane.run(case))
                except Exception as e:
                    future.set_exception(e)
        except queue.Empty:
            pass
        finally:
            lane.close()
