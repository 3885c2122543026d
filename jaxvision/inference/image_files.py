"""The image files that a user names."""

from collections.abc import Sequence
from pathlib import Path

from jaxvision.errors import UserError

SUFFIXES = ('.png', '.jpg', '.jpeg', '.webp', '.bmp', '.gif', '.tif', '.tiff')


def find_images(inputs: Sequence[str], command: str = 'predict') -> list[Path]:
  """Returns the named files, and all images in named folders, sorted within each.

  A file is taken whatever its suffix; in folders, which are searched to any depth, the
  suffix tells images from other files. `command` is for messages.

  Raises:
    UserError: an input that is not there, or a folder without an image.
  """
  found: list[Path] = []
  for name in inputs:
    path = Path(name)
    if path.is_dir():
      inside = sorted(
        p for p in path.rglob('*') if p.suffix.lower() in SUFFIXES and p.is_file()
      )
      if not inside:
        raise UserError(
          f'{command}: there is no image in {path} ({", ".join(SUFFIXES)})'
        )
      found += inside
    elif path.exists():
      found.append(path)
    else:
      raise UserError(f'{command}: {path} is not there')
  return found
