"""Networks that are not there, do not answer, or have another password."""

import network
from observer import call, happens, watch

wlan = network.WLAN(network.STA_IF)
call("active", wlan.active, True)
call("connect to nobody", wlan.connect, "nobody", "my-password")
watch(wlan, 2000)
call("disconnect", wlan.disconnect)
watch(wlan, 500)
call("connect", wlan.connect, "my-ssid", "wrong-password")
watch(wlan, 6000)
call("disconnect", wlan.disconnect)
watch(wlan, 500)
happens("keys are told briefly")
call("connect", wlan.connect, "my-ssid", "wrong-password")
watch(wlan, 10_000)
call("disconnect", wlan.disconnect)
watch(wlan, 500)
happens("keys are never told")
call("connect", wlan.connect, "my-ssid", "wrong-password")
watch(wlan, 12_000)
call("disconnect while joining", wlan.disconnect)
watch(wlan, 500)
happens("no answer")
call("connect", wlan.connect, "my-ssid", "my-password")
watch(wlan, 3000)
