"""The unit tests, and a core of those of the client, under each release: see conftest.py."""

from tests.integration.test_client_outages import (
    test_a_broker_that_is_down_at_the_start_is_waited_for,  # noqa: F401
    test_a_client_that_was_stopped_can_be_started_again,  # noqa: F401
)
from tests.integration.test_client_publish import (
    test_after_a_reconnect_the_same_ids_go_again_in_order_with_dup,  # noqa: F401
    test_every_kind_of_payload_arrives_as_it_was_given,  # noqa: F401
)
from tests.integration.test_client_tls import (
    mosquitto,  # noqa: F401
    test_a_foreign_client_certificate_is_refused_until_the_broker_knows_its_ca,  # noqa: F401
    test_a_second_tls_socket_is_never_open_beside_the_first,  # noqa: F401
    test_a_stall_in_the_middle_of_a_message_damages_no_record,  # noqa: F401
    test_messages_larger_than_a_tls_record_go_both_ways,  # noqa: F401
)
from tests.integration.test_units_on_micropython import UNIT, files
from tests.support import mpy


def test_it_is_another_release(version):
    said = mpy.check("import sys; print(*sys.implementation[1][:2])").split()
    here = tuple(map(int, said))
    assert here == (1, 25) if version == "1.25" else here > (1, 25)


def test_the_unit_tests(version):
    for name in files():
        out = mpy.check(UNIT / "run_micropython.py", name, timeout_s=110)
        assert out.splitlines()[-1].endswith(" passed, 0 failed"), out
