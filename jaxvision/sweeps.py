"""What sweep files import; the classes live in `jaxvision.config.search_space`."""

from jaxvision.config.search_space import Choice, Range, Sweep

__all__ = ['Choice', 'Range', 'Sweep']
