"""Report of a GAN."""
