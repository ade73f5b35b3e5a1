"""Your settings, where `mqttls provision` did not write them. On a board beside main.py."""

from mqtt_as_tls import TLS, WiFi

host = "broker.lan"  # or its IP address: one of the names in its certificate
port = 8883
client_id = "garden-1"  # no other client of the broker has it
user = None  # for a broker that wants them
password = None

link = WiFi("my-ssid", "my-password")  # link = None on a PC: its network is up already

# For a broker that wants no client certificates: TLS(ca="/certs/ca.der")
tls = TLS(ca="/certs/ca.der", cert="/certs/cert.der", key="/certs/key.der")

mqtt: dict = {  # MQTTClient(**config.mqtt)
    "host": host,
    "port": port,
    "client_id": client_id,
    "user": user,
    "password": password,
    "link": link,
    "tls": tls,
}

home = "devices/" + client_id + "/"  # the topics that this device may use begin so
