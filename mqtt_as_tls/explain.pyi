"""What an error means and what to do about it, in plain words; for the device and the PC."""

def explain(
    error: BaseException | str,
    *,
    year: int | str | None = None,
    rows: tuple[tuple[int | str, ...], ...] = ...,
    platform: str | None = None,
    state: str | None = None,
) -> tuple[str, str]:
    """
    Look up an error in the table of docs/tls.md, "What each error means".

    Args:
        error: An exception of this package or of the firmware, or its text, such as
            "OSError(-30592, 'MBEDTLS_ERR_...')".
        year: That the device's clock says, or the day, such as "2021-01-01", if the error is from
            there.
        rows: Another table: keys, then "cause|cure".
        platform: `sys.platform` of the device that the error is from: 113 is another error on an
            esp32 than elsewhere. By default this one for an exception, unknown for a text.
        state: In which a connection ended, such as "CONNECT", "UP": hung up before CONNACK is
            another thing than later.

    Returns:
        The cause and the cure, one line each, "" where nothing is known.
    """
