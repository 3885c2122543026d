"""onnxruntime-web, which runs ONNX files in browsers and does not come with the package.

It is downloaded once from the registry of npm, into the cache of the data sets, and
compared with the checksum that the registry has for it. Of its 33 MB three files are
kept: the smallest build, which runs on the processor by WebAssembly.
"""

import base64
import hashlib
import io
import os
import shutil
import tarfile
import tempfile
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from jaxvision.data import cache
from jaxvision.errors import UserError

VERSION = '1.30.0'
URL = f'https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz'
# `npm view onnxruntime-web@1.30.0 dist.integrity`: SHA-512 in base64.
INTEGRITY = 'q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=='

SCRIPT = 'ort.wasm.min.js'
GLUE = 'ort-wasm-simd-threaded.mjs'
WASM = 'ort-wasm-simd-threaded.wasm'

# SHA-256 of the files of this version, so that a damaged cache is found.
_SHA256 = {
  SCRIPT: 'faece07e84faa9001f5104bbe4e5c70861d06cb2376a0dea1fa0ad33a67adc81',
  GLUE: 'e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b',
  WASM: '3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2',
}
_MOST_BYTES = 200_000_000  # of an archive, and of a file in it
_TIMEOUT = 60  # seconds without a byte

# The package says that its licence is MIT and holds no text of it; this is that of
# https://github.com/microsoft/onnxruntime/blob/v1.30.0/LICENSE.
LICENSE = """\
MIT License

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""


class Runtime(NamedTuple):
  """The files of onnxruntime-web that a page needs.

  Attributes:
    script: JavaScript of its interface, which defines `ort`.
    glue: JavaScript module that starts the WebAssembly.
    wasm: the WebAssembly.
  """

  script: bytes
  glue: bytes
  wasm: bytes


def find(given: Path | None = None, url: str = URL) -> Runtime:
  """Returns onnxruntime-web out of a given place, the cache, or the registry of npm.

  Args:
    given: a folder with the three files, in it or in its `dist` or `package/dist`, or the
      archive that `npm pack` writes, of any version; None: the cache of the data sets, or
      a download into it.
    url: of the archive.

  Raises:
    UserError: the folder lacks a file, or there is no archive where it is looked for; the
      line has the command that gets it by hand.
  """
  if given is not None:
    return _of_archive(given) if given.is_file() else _of_folder(given)
  folder = cache.directory('') / f'onnxruntime-web-{VERSION}'
  if kept := _intact(folder):
    return kept
  runtime = _extracted(_downloaded(url), url)
  _keep(folder, runtime)
  return runtime


def _of_folder(folder: Path) -> Runtime:
  for place in (folder, folder / 'dist', folder / 'package' / 'dist'):
    if all((place / name).is_file() for name in _SHA256):
      return _in_folder(place)
  raise UserError(
    f'--runtime: {folder} has no {", ".join(_SHA256)}, in it or in its dist: name the '
    f'unpacked package onnxruntime-web or its archive ({_by_hand()})'
  )


def _of_archive(path: Path) -> Runtime:
  if path.stat().st_size > _MOST_BYTES:
    raise UserError(f'--runtime: {path} is too large for the package onnxruntime-web')
  return _extracted(path.read_bytes(), str(path))


def _in_folder(folder: Path) -> Runtime:
  return Runtime(*((folder / name).read_bytes() for name in (SCRIPT, GLUE, WASM)))


def _intact(folder: Path) -> Runtime | None:
  """Returns what the cache holds; None where it is not what was downloaded."""
  try:
    runtime = _in_folder(folder)
  except OSError:
    return None
  sums = [hashlib.sha256(content).hexdigest() for content in runtime]
  return runtime if sums == list(_SHA256.values()) else None


def _downloaded(url: str) -> bytes:
  try:
    with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer:
      archive = answer.read(_MOST_BYTES)
  except (OSError, ValueError) as error:  # no network, no such file, no URL
    reason = ' '.join(str(getattr(error, 'reason', error)).split())
    raise UserError(
      f'the page needs onnxruntime-web, and {url} cannot be read ({reason}): '
      f'{_by_hand()}'
    ) from error
  digest = base64.b64encode(hashlib.sha512(archive).digest()).decode('ascii')
  if digest != INTEGRITY:
    raise UserError(
      f'{url} is not onnxruntime-web {VERSION}: its SHA-512 is another: {_by_hand()}'
    )
  return archive


def _by_hand() -> str:
  return (
    f'`npm pack onnxruntime-web@{VERSION}` where there is a network, then '
    f'--runtime=onnxruntime-web-{VERSION}.tgz'
  )


def _extracted(archive: bytes, origin: str) -> Runtime:
  """Reads the three files out of an archive; nothing of it is written under its names."""
  found: dict[str, bytes] = {}
  wanted = {f'package/dist/{name}': name for name in _SHA256}
  try:
    with tarfile.open(fileobj=io.BytesIO(archive), mode='r:gz') as members:
      for member in members:
        name = wanted.get(member.name)
        if name and member.isreg() and member.size <= _MOST_BYTES:
          content = members.extractfile(member)
          assert content, 'a regular file has a content'
          found[name] = content.read()
  except (tarfile.TarError, OSError, EOFError, ValueError) as error:
    reason = ' '.join(str(error).split())
    raise UserError(
      f'{origin} is no archive of npm ({reason}): {_by_hand()}'
    ) from error
  if missing := [name for name in _SHA256 if name not in found]:
    raise UserError(
      f'{origin} has no {", ".join(missing)}: it is not the package onnxruntime-web: '
      f'{_by_hand()}'
    )
  return Runtime(found[SCRIPT], found[GLUE], found[WASM])


def _keep(folder: Path, runtime: Runtime) -> None:
  """Writes the files into the cache, whole or not at all; without a cache that is no loss."""
  named: Mapping[str, bytes] = dict(zip((SCRIPT, GLUE, WASM), runtime))
  part = None
  try:
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f'.{folder.name}-', dir=folder.parent))
    for name, content in named.items():
      (part / name).write_bytes(content)
    (part / 'LICENSE').write_text(LICENSE, 'utf-8')
    part.chmod(0o755)
    shutil.rmtree(folder, ignore_errors=True)  # it is damaged, or not there
    os.replace(part, folder)
  except OSError:  # not writable, full, or another process was first
    if part:
      shutil.rmtree(part, ignore_errors=True)
