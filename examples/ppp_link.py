"""A link without Wi-Fi: PPP on a UART, to a PC or a modem (`dial` gives it the AT commands).

Not on the PC: it has no network.PPP. What uses it does, with link=None.
"""

import asyncio

import network

from mqtt_as_tls import LinkError


class PPP:
    def __init__(self, uart, dial=None, **login):
        self.uart, self.dial, self.login = uart, dial, login  # login: what connect() takes
        self.ppp = network.PPP(uart)

    def is_up(self):
        return self.ppp.isconnected()

    async def up(self):
        await self.down()  # whatever an earlier try left
        if self.dial:
            await self.dial(self.uart)
        self.ppp.connect(**self.login)
        if not await within(20, self.is_up):
            raise LinkError("PPP: no address: check wiring, baud rate, login", self.ppp.status())

    async def down(self):
        self.ppp.disconnect()
        await within(10, lambda: self.ppp.status() <= 0)  # the other side is told

    reset = down  # up() follows

    def dns_servers(self):
        return [self.ppp.ifconfig()[3]]


async def within(seconds, done):
    while seconds > 0 and not done():
        await asyncio.sleep_ms(50)
        seconds -= 0.05
    return done()
