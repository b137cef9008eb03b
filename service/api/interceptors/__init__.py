"""Wraps every call: who calls, within which limits, for how long, and what is told of it."""
