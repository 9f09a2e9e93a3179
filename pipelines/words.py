"""What words of a command line mean."""


def comma_separated(text: str) -> tuple[str, ...]:
    """The parts of `a,b,c`; none of an empty text."""
    return tuple(part.strip() for part in text.split(",") if part.strip())
