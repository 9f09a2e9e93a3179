"""What words of a command line mean."""


def comma_separated(text: str) -> list[str]:
    """The parts of `a,b,c`, none of an empty text; a list, as what runners are sent of options has no tuples."""
    return [part.strip() for part in text.split(",") if part.strip()]
