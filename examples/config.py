"""Your settings. Every example imports them; on a board this file lies beside main.py."""

from mqtt_as_tls import TLS, WiFi

host = "broker.lan"  # or its IP address: one of the names in its certificate
port = 8883

link = WiFi("my-ssid", "my-password")  # link = None on a PC: its network is up already

# For a broker that wants no client certificates: TLS(ca="/certs/ca.der")
tls = TLS(ca="/certs/ca.der", cert="/certs/cert.der", key="/certs/key.der")

# Only two_brokers.py and cloud_broker.py use these.
cloud_host = "mycluster.example.com"
cloud_port = 8883
cloud_ca = "/certs/cloud-ca.der"
cloud_user = "my-user"
cloud_password = "my-cloud-password"
