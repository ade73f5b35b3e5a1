"""The settings of a virtual Pico W. `wiring` is the test's part."""

import wiring

from mqtt_as_tls import TLS
from mqtt_as_tls.wifi import WiFi

host = "broker.lan"
port = wiring.tls_port
tcp_port = wiring.tcp_port

link = WiFi("my-ssid", "my-password")
tls = TLS(ca="/certs/ca.der", cert="/certs/cert.der", key="/certs/key.der", ntp="time.lan")
mqtt = {"host": host, "port": port, "client_id": "garden", "link": link, "tls": tls}
home = "devices/garden/"
