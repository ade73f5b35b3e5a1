"""umqtt.simple with verified TLS: it takes the context that TLS makes.

On the PC: .venv/bin/micropython -m examples.umqtt_tls (docs/tls.md, An app on the PC).
"""

import asyncio

import config
from umqtt.simple import MQTTClient, MQTTException  # mpremote mip install umqtt.simple

from mqtt_as_tls import clock
from mqtt_as_tls.explain import explain


async def prepare():
    if config.link:
        await config.link.up()
        if not clock.plausible():  # a board starts in 2021: every certificate is from the future
            await clock.sync("pool.ntp.org", config.link.dns_servers())


asyncio.run(prepare())
# The certificate is checked against `config.host`; a plain ssl=True would believe any broker.
who = config.client_id, config.host, config.port, config.user, config.password
client = MQTTClient(*who, ssl=config.tls.context)
try:
    client.connect()
    client.publish(config.home + "temperature", "21.5", qos=1)
    client.disconnect()
    print("published")
except (OSError, ValueError, MQTTException) as error:
    print(repr(error), *explain(error))
