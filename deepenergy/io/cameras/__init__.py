"""Camera files."""
