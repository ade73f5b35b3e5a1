"""The settings of a virtual Pico: PPP on UART1 instead of Wi-Fi. `wiring` is the test's part."""

import wiring
from machine import UART, Pin
from ppp_link import PPP

from mqtt_as_tls import TLS

host = "broker.lan"
port = wiring.tls_port
tcp_port = wiring.tcp_port

link = PPP(UART(1, 2_000_000, tx=Pin(4), rx=Pin(5), rxbuf=8192, txbuf=2048, timeout=0))
tls = TLS(ca="/certs/ca.der", cert="/certs/cert.der", key="/certs/key.der", ntp="time.lan")
mqtt = {"host": host, "port": port, "client_id": "garden", "link": link, "tls": tls}
home = "devices/garden/"
