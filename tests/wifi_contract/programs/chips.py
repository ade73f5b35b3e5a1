"""A chip that hangs, and one that does not start."""

import network
from observer import call, happens, watch

wlan = network.WLAN(network.STA_IF)
call("active", wlan.active, True)
call("connect", wlan.connect, "my-ssid", "my-password")
watch(wlan, 1500)
happens("hang")
watch(wlan, 1000)
call("rssi", lambda: type(wlan.status("rssi")))
call("pm", wlan.config, pm=0xA11140)
call("disconnect", wlan.disconnect)
watch(wlan, 300)
call("connect", wlan.connect, "my-ssid", "my-password")
call("deinit", wlan.deinit)
watch(wlan, 300)
call("active", wlan.active, True)
call("connect", wlan.connect, "my-ssid", "my-password")
watch(wlan, 1500)
call("deinit", wlan.deinit)
happens("die")
for _ in range(4):
    call("active while dead", wlan.active, True)
    call("active?", wlan.active)
    call("status", wlan.status)
    call("connect while dead", wlan.connect, "my-ssid", "my-password")
happens("well")
call("active", wlan.active, True)
call("deinit", wlan.deinit)
happens("die")
for _ in range(3):
    call("active while dead", wlan.active, True)
happens("well")
call("active, too often", wlan.active, True)
call("status", wlan.status)
call("connect", wlan.connect, "my-ssid", "my-password")
