"""Reads and writes small objects of known size in stores, in bounded time, for the control plane. Knows no job."""
