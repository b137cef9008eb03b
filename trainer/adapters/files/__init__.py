"""Adapter files of any kind, ours and others': read, described, changed from one format to another. Knows no model at work."""
