"""Commands of `lorafleet` that need torch: they work on files, without a server. Found by the entry points of the package."""
