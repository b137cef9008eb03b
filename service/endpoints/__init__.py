"""Speaks to HTTP servers that tenants name: their addresses are looked at before they are connected to."""
