"""Writing files."""

import os
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
