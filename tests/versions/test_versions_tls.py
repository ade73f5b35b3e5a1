"""A core of the tests of TLS under each release: see conftest.py."""

from tests.integration.test_tls import (
    mosquitto,  # noqa: F401
    test_a_context_serves_many_connections_also_after_failures,  # noqa: F401
    test_a_name_that_nobody_certified_is_explained,  # noqa: F401
    test_an_address_is_checked_like_a_name,  # noqa: F401
    test_pem_and_der_may_be_mixed,  # noqa: F401
    test_several_faults_are_one_line,  # noqa: F401
)
