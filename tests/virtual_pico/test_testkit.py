"""What the test kit makes of a user's app on the chip."""

from tests.kit.broker import Broker
from tests.kit.chip import Chip
from tests.support import mpy, udp

TOPIC = "devices/test-device/temperature"


def test_an_app_runs_on_the_chip_and_again_after_a_power_cut(firmware, tmp_path, pki):
    main = tmp_path / "app/sensor.py"
    main.parent.mkdir()
    main.write_bytes((mpy.ROOT / "examples/sensor.py").read_bytes())
    with (
        udp.SNTP() as sntp,
        Broker(tmp_path / "broker", pki) as broker,
        Chip(firmware, tmp_path / "chip", main, broker, sntp.port) as chip,
    ):
        chip.start_app()
        float(broker.published(TOPIC, within_s=60, device=chip).text)
        chip.lose_power()
        broker.published(TOPIC, within_s=60, device=chip)
        chip.wait_for("connected in .* session resumed")
        assert "connected in" in chip.tail()
