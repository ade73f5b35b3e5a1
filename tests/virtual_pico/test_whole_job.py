"""What a device does from power-on to its goodbye, on the RP2040's own firmware."""

import time

import pytest

from tests.support import docs
from tests.virtual_pico.desk import Desk

_MAIN = """
import asyncio
import job

client = job.make({protocol})
{watchdog}
async def main():
    asyncio.create_task(watchdog())
    await job.run(client)

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("image", "protocol"), [("firmware", 4), ("firmware", 5), ("steps_firmware", 4)]
)
def test_a_pico_does_its_whole_job(request, tmp_path, pki, image, protocol):
    with Desk(request.getfixturevalue(image), tmp_path, pki) as desk:
        pico, broker = desk.pico, desk.broker
        desk.install("job")
        peer = broker.peer("from/pico/#", qos=2, client_id="host", clean=False)
        pico.start(_MAIN.format(protocol=protocol, watchdog=docs.text("watchdog")))

        # the clock is unset, so the certificates could not be checked
        pico.wait_for("^clock says 2021")
        pico.wait_for("link up")
        pico.wait_for("clock")
        pico.wait_for(r"connected in \d+ ms \(TLS \d+\)")
        assert f"now it says {time.gmtime().tm_year}" in pico.wait_for("^now it says")
        assert "broker.lan" in str(desk.dns.queries)

        for qos in (0, 1, 2):
            peer.publish(f"to/pico/{qos}", f"hello at {qos}", qos=qos)
            (message,) = peer.wait_for(topic=f"from/pico/{qos}")
            assert (message.payload, message.qos) == (f"hello at {qos}".encode(), qos)

        broker.restart()
        # mosquitto 2.0.11 forgets a session of MQTT 5 that began with the connection it ends
        pico.wait_for(f"connected in .* session {'new' if protocol == 5 else 'resumed'}", 60)
        peer.publish("to/pico/restarted", b"1", qos=2)
        peer.wait_for(topic="from/pico/restarted")

        # half-open: nobody is told
        pico.fault(link="silent")
        pico.wait_for("connection lost", 60)
        peer.publish("to/pico/queued", b"2", qos=2)
        pico.heal()
        pico.wait_for("connected in .* session resumed", 60)
        peer.wait_for(topic="from/pico/queued")

        peer.publish("to/pico/wrong", b"", qos=1)
        refused = pico.wait_for("^refused:")
        assert (
            "CertificateError The certificate is not correctly signed by the trusted CA" in refused
        )
        assert "give the CA that signed it" in refused

        peer.publish("to/pico/stop", b"", qos=1)
        counted = int(pico.wait_for(r"^counted \d+").split()[1])
        pico.wait_for("^job done")
        # at least once: the broker hands the end of it on after all that came before
        broker.peer().publish("from/pico/end", qos=1)
        peer.wait_for(topic="from/pico/end")
        numbers = {int(m.payload) for m in peer.wait_for(topic="from/pico/count")}
        assert numbers == set(range(counted))
        broker.wait_for_log("Received DISCONNECT from pico")

        # the loop has ended: nobody feeds the watchdog
        assert pico.wait_for_boot() == "watchdog"
        assert (
            pico.run("import machine; print(machine.reset_cause() == machine.WDT_RESET)") == "True"
        )
