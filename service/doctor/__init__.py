"""Looks at everything that a server, or a client, stands on, and says what to do about what is wrong: `lorafleet doctor`."""
