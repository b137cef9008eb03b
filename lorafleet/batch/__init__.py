"""Handles batches as users write and see them: files, folders, reports and views. Knows no server."""
