"""Report of generated images."""
