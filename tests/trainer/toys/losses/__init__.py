"""Of the extension."""
