"""Simulates admission on a recorded or a made load: the very functions that the service decides with, and a clock that jumps."""
