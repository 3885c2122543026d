"""The page about a classification run."""
