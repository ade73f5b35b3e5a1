"""
Connect once with a CA that did not sign the broker's certificate, and print what comes of it.

    wrong_ca_program.py PORT CA CERTIFICATE KEY
"""

import asyncio
import sys

from mqtt_as_tls import TLS, CertificateError, MQTTClient

port, ca, certificate, key = sys.argv[1:]
tls = TLS(ca=ca, cert=certificate, key=key, server_hostname="broker.lan", ntp=None)


async def main():
    client = MQTTClient("127.0.0.1", int(port), tls=tls, client_id="core")
    try:
        await client.connect(timeout_s=20)
        print("connected")
    except CertificateError as error:
        print("CertificateError:", error)
    finally:
        await client.disconnect()


asyncio.run(main())
