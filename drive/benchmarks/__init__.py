"""Published protocols: the only producers of headline numbers."""
