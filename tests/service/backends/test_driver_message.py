"""The driver's own last words, as a job's message shows them."""

from service.backends.driver_message import MESSAGE_TAIL, last_lines


def test_colours_of_a_worker_are_no_part_of_a_message() -> None:
    said = f"(truncated to 20,000 chars):\n{'x' * MESSAGE_TAIL}\x1b[36mray::run()\x1b[39m: \x1b[1mno memory\x1b[0m\n"
    assert last_lines(said).endswith("xray::run(): no memory")
    assert "\x1b" not in last_lines(said)
    assert len(last_lines(said)) == MESSAGE_TAIL
