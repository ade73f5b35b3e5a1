"""
The PC's half of mqtt_as_tls: certificates, the broker's files, boards, and why TLS does not work.

Run it as `mqttls`, or from the project's folder as `python -m tools.mqttls`.
"""
