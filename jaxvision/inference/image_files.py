"""The image files that a user names."""

import logging
from collections.abc import Sequence
from pathlib import Path

from jaxvision.data.decode import readable_suffixes
from jaxvision.data.image_files import describe_others, find_in
from jaxvision.errors import UserError, printable

_log = logging.getLogger(__name__)


def find_images(inputs: Sequence[str], command: str = 'predict') -> list[Path]:
  """Returns the named files, and all images in named folders, sorted within each.

  A file is taken whatever its suffix. What counts in folders, which are searched to any
  depth, is told in `image_files.find_in`; what lies there beside is counted in one line
  of the log. `command` is for messages.

  Raises:
    UserError: an input that is not there, or a folder without an image.
  """
  found: list[Path] = []
  for name in inputs:
    path = Path(name)
    if path.is_dir():
      inside = find_in(path)
      if not inside.images:
        raise UserError(
          f'{command}: there is no image in {path} ({", ".join(readable_suffixes())})'
        )
      if line := describe_others(inside.others):
        _log.info('%s: %s', printable(path), line)
      found += [path / image.path for image in inside.images]
    elif path.exists():
      found.append(path)
    else:
      raise UserError(f'{command}: {path} is not there')
  return found
