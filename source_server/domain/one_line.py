"""Text from strangers for one line of ours."""


def one_line(text: str) -> str:
    """The text without line breaks and anything else that a terminal, or the header of a mail, would obey."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
