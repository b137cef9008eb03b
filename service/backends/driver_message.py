"""The end of a driver's output, as Ray quotes it in a failed job's message. Pure."""

MESSAGE_TAIL = 600  # characters of the driver's last lines that a job's message shows
RAYS_OWN_LINES = ("Runtime env is setting up.", "Running entrypoint for job ")


def last_lines(message: str | None) -> str:
    """The driver's own words."""
    quoted = (message or "").rsplit("(truncated to 20,000 chars):\n", 1)[-1]
    lines = [line for line in quoted.splitlines() if not any(rays in line for rays in RAYS_OWN_LINES)]
    return "\n".join(lines).strip()[-MESSAGE_TAIL:] or "none"
