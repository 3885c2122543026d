"""The page about a GAN run."""
