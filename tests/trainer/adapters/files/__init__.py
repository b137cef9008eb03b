"""Adapter files of any kind."""
