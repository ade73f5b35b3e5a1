"""Several lanes (driver.py) that share a list of cases."""

import concurrent.futures
import queue
import threading

from tests.faults.driver import Lane, Unable


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
        keys.device, keys.broker  # noqa: B018 - made here, not by several threads at once
        self._closing = False
        self._threads = [
            threading.Thread(target=self._work, args=(directory / f"lane{i}", keys))
            for i in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._closing = True
        for thread in self._threads:
            thread.join(60)

    def result(self, case, timeout_s=110):
        """Return the report of `case`; raise what its run raised."""
        return self._futures[case].result(timeout_s)

    def _work(self, directory, keys):
        lane = None
        try:
            lane = Lane(directory, keys)
            while not self._closing:
                case = self._cases.get_nowait()
                future = self._futures[case]
                try:
                    future.set_result(lane.run(case))
                except (AssertionError, Unable) as e:
                    future.set_exception(e)
        except queue.Empty:
            pass
        except BaseException as e:  # no lane, no results
            for future in self._futures.values():
                if not future.done():
                    future.set_exception(e)
            raise
        finally:
            if lane:
                lane.close()
