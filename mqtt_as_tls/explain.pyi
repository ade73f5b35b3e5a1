def explain(
    error: BaseException | str,
    *,
    year: int | None = None,
    rows: tuple[tuple[int | str, ...], ...] = ...,
) -> tuple[str, str]: ...
