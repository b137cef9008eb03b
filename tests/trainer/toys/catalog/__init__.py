"""What the extension tells of its ideas without torch."""
