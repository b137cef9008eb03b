"""Keeps what runs report: tokens, progress, stops, ends, and workers that stay warm. Knows no loop."""
