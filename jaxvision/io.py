"""Writing files."""

import os
from collections.abc import Collection, Mapping
from pathlib import Path


def write_whole(path: Path, content: str | bytes) -> None:
  """Writes a file such that it is either as before or complete, never in between."""
  data = content.encode('utf-8') if isinstance(content, str) else content
  temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
  try:
    temporary.write_bytes(data)
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


def write_all(
  directory: Path, files: Mapping[str, str | bytes], optional: Collection[str] = ()
) -> None:
  """Writes files into a directory in their order, each by `write_whole`.

  Args:
    directory: is made where it is not there.
    files: name -> content.
    optional: names that an earlier call may have written; those without a content now
      are removed.
  """
  directory.mkdir(parents=True, exist_ok=True)
  for name, content in files.items():
    write_whole(directory / name, content)
  for name in set(optional) - files.keys():
    (directory / name).unlink(missing_ok=True)
