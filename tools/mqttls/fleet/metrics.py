"""How boards are, as Prometheus reads it."""

import socketserver
import threading
from wsgiref import simple_server

from ..messages import Failure
from . import hosts

try:
    import prometheus_client
    from prometheus_client import core
except ImportError:
    prometheus_client = None

_GAUGES = (
    ("rssi", "mqttls_board_rssi_dbm", "signal"),
    ("mem_free", "mqttls_board_mem_free_bytes", "heap that is free"),
    ("mem_block", "mqttls_board_mem_block_bytes", "largest piece of it, up to 32 KB"),
    ("queue", "mqttls_board_queue_messages", "messages that wait"),
    ("uptime_s", "mqttls_board_uptime_seconds", "since it was reset"),
    ("days", "mqttls_board_certificate_days", "until its certificate ends"),
    ("heard", "mqttls_board_report_timestamp_seconds", "when its last report was made"),
)
_COUNTERS = (
    ("connects", "mqttls_board_connects", "connections"),
    ("outage_s", "mqttls_board_outage_seconds", "without a connection"),
)


class _Collector:
    """
    What prometheus-client asks for metrics. The label `name` is a board's, as it is shown: on one
    line and bounded, as all labels are.
    """

    def __init__(self, boards):
        self._boards = boards

    def collect(self):
        rows = self._boards.rows()
        online = core.GaugeMetricFamily(
            "mqttls_board_online", "1: it is connected, 0: it is not", labels=["name"]
        )
        look = core.GaugeMetricFamily(
            "mqttls_board_needs", "how many things somebody should look at", labels=["name"]
        )
        info = core.InfoMetricFamily("mqttls_board", "what runs on it", labels=["name"])
        for row in rows:
            name = [row["name"]]
            if row["online"] is not None:
                online.add_metric(name, int(row["online"]))
            look.add_metric(name, len(row["needs"]))
            texts = {each: row[each] or "" for each in ("package", "firmware", "machine")}
            info.add_metric(name, texts)
        yield from (online, look, info)
        yield from _families(core.GaugeMetricFamily, _GAUGES, rows)
        yield from _families(core.CounterMetricFamily, _COUNTERS, rows)


def _families(kind, table, rows):
    for key, title, what in table:
        family = kind(title, what, labels=["name"])
        for row in rows:
            if row[key] is not None:
                family.add_metric([row["name"]], row[key])
        yield family


class _Quiet(simple_server.WSGIRequestHandler):
    timeout = 10

    def log_message(self, *_):
        pass


class _Server(socketserver.ThreadingMixIn, simple_server.WSGIServer):
    daemon_threads = True


class Server:
    """
    Metrics of Boards at http://127.0.0.1:PORT/metrics, in a thread of its own. Use it in a `with`.

    Raises Failure where the port is taken, or prometheus-client is not installed.
    """

    def __init__(self, boards, port):
        if prometheus_client is None:
            raise Failure(
                "--prometheus needs prometheus-client, which is not installed",
                "pip install 'mqttls[fleet,prometheus]', in the Python that mqttls runs in",
                stage="files",
            )
        registry = prometheus_client.CollectorRegistry()
        registry.register(_Collector(boards))
        app, allowed = prometheus_client.make_wsgi_app(registry), hosts.allowed(port)

        def checked(environ, start_response):
            if environ.get("HTTP_HOST") not in allowed:
                start_response("403 Forbidden", [("Content-Type", "text/plain")])
                return [hosts.REFUSED.encode()]
            return app(environ, start_response)

        try:
            self._server = simple_server.make_server(hosts.ADDRESS, port, checked, _Server, _Quiet)
        except OSError as error:
            raise hosts.taken(port, error) from None

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
