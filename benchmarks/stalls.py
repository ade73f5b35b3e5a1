"""
How long a 1 ms ticker waits for its turn while mqtt_as_tls is in trouble beside it.

    stalls.py alone|dns|tcp|tls|black_hole PORT TOPIC CA

The result is the longest stall in ms and what ended the attempt to connect.
"""

import asyncio

from benchmarks.common import CA, HOST, PORT, WORKLOAD, Ticker, report
from mqtt_as_tls import TLS, MQTTClient

NAME = "broker.lan"


class Link:
    """A network that is always up, with a DNS server on loopback."""

    def is_up(self):
        return True

    async def up(self):
        pass

    reset = up

    def dns_servers(self):
        return [(HOST, PORT)]


async def trouble():
    client = MQTTClient(
        NAME if WORKLOAD == "dns" else HOST,
        PORT,
        link=Link() if WORKLOAD == "dns" else None,
        tls=TLS(ca=CA, server_hostname=NAME) if WORKLOAD == "tls" else None,
        connect_timeout_s=1,
        log=lambda line: None,
    )
    async with Ticker() as ticker:
        if WORKLOAD == "alone":
            await asyncio.sleep(1)
        else:
            async with client:
                while client.error is None:
                    await asyncio.sleep_ms(50)
    return {"stall_ms": ticker.worst_ms, "error": repr(client.error)}


report(asyncio.run(trouble()))
