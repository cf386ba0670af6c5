"""The form of a fixture: `key = value` lines, long hexadecimal values wrapped with an indent."""

import pathlib

DIRECTORY = pathlib.Path(__file__).parent


def text(comment, values):
    """A fixture's text; `values` maps keys to bytes (packets), booleans, numbers or strings."""
    lines = [f"# {line}" for line in comment.splitlines()]
    for key, value in values.items():
        if isinstance(value, bytes):
            digits = value.hex()
            lines.append(f"{key} =")
            lines += ["  " + digits[i : i + 64] for i in range(0, len(digits), 64)]
        elif isinstance(value, bool):
            lines.append(f"{key} = {str(value).lower()}")
        else:
            lines.append(f"{key} = {value}")
    return "\n".join(lines) + "\n"


def path(name):
    return DIRECTORY / f"{name}.txt"
