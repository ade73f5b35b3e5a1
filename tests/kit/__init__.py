"""
The test kit for users' apps: a pytest plugin, and `mqttls try`.

tools/build.py makes a wheel of it with those modules of tests/ that it stands on, as the package
`mqtt_as_tls_testkit`. There and here they import each other by relative names; what comes from
outside of tests/ comes through tests/support/elsewhere.py.
"""
