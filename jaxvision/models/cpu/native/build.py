"""The operators in C++, built where the extra `onednn` and a compiler are.

They are built the first time that they are needed, in about ten seconds, and kept in the
cache. Where something is missing nothing else changes: XLA's operators are taken.
"""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from importlib import metadata
from pathlib import Path

import jax
import jaxlib

from jaxvision.data import cache

_SOURCES = sorted(
  path for path in Path(__file__).parent.iterdir() if path.suffix in ('.cc', '.h')
)
_PACKAGES = ('onednn-cpu-gomp', 'onednn-devel-cpu-gomp')
_COMPILERS = ('c++', 'g++', 'clang++')
_FLAGS = ('-std=c++17', '-O2', '-fPIC', '-shared', '-w')
_BUILD_SECONDS = 300

# Those of the sources.
_HANDLERS = (
  'Forward',
  'Images',
  'Kernel',
  'Normalize',
  'NormalizeGradient',
  'MaxPoolGradient',
  'Sum',
  'WinogradForward',
  'WinogradImages',
  'WinogradKernel',
)


def target(handler: str) -> str:
  """Returns the name by which XLA knows a handler of the sources."""
  return f'jaxvision_{handler.lower()}'


def library() -> ctypes.CDLL | None:
  """Returns the operators, built and known to XLA, or None where they cannot be had."""
  found, _ = _load()
  return found


def problem() -> str | None:
  """Returns a line where the extra is installed and cannot be used."""
  _, reason = _load()
  return reason and f'oneDNN is installed and not used: {reason}'


def must_build() -> bool:
  """Returns whether the next call of `library` takes about ten seconds."""
  places = _places() if is_wanted() else None
  return bool(places and _compiler() and not _built(*places).exists())


def is_wanted() -> bool:
  """Returns whether the environment leaves oneDNN switched on."""
  return os.environ.get('JAXVISION_ONEDNN', '1') != '0'


@functools.cache
def has_bfloat16() -> bool:
  """Returns whether the processor multiplies bfloat16, by AVX512-BF16 or AMX."""
  return _ask('HasBfloat16')


@functools.cache
def has_amx() -> bool:
  """Returns whether the processor multiplies matrices of bfloat16 by AMX."""
  return _ask('HasAmx')


def _ask(name: str) -> bool:
  """Returns what a function of the library answers; without the library no."""
  loaded = library()
  if loaded is None:
    return False
  function = getattr(loaded, name)
  function.restype = ctypes.c_bool
  return function()


@functools.cache
def _load() -> tuple[ctypes.CDLL | None, str | None]:
  """Returns the library, or None and why not; neither where the extra is not installed."""
  places = _places() if is_wanted() else None
  if places is None:
    return None, None
  try:
    built = _built(*places)
    if not built.exists():
      _build(built, *places)
    try:
      loaded = ctypes.CDLL(str(built))
    except OSError:  # damaged, such as by a full disk
      _build(built, *places)
      loaded = ctypes.CDLL(str(built))
  except _CannotBuild as error:
    return None, str(error)
  except OSError as error:
    return None, f'its operators cannot be loaded ({error})'
  for name in _HANDLERS:
    handler = jax.ffi.pycapsule(getattr(loaded, name))
    jax.ffi.register_ffi_target(target(name), handler, platform='cpu')
  return loaded, None


class _CannotBuild(Exception):
  """Why, in part of a line."""


def _places() -> tuple[Path, Path] | None:
  """Returns oneDNN's library and its directory of headers; None if it is not installed."""
  found = {}
  for package in _PACKAGES:
    try:
      files = metadata.files(package) or []
    except metadata.PackageNotFoundError:
      return None
    for file in files:
      if str(file).endswith(('/libdnnl.so.3', '/oneapi/dnnl/dnnl.hpp')):
        found[file.name] = Path(str(file.locate())).resolve()
  if len(found) != 2:
    return None
  return found['libdnnl.so.3'], found['dnnl.hpp'].parents[2]


def _compiler() -> str | None:
  chosen = os.environ.get('CXX')
  return (
    shutil.which(chosen)
    if chosen
    else next(filter(None, map(shutil.which, _COMPILERS)), None)
  )


def _built(shared: Path, headers: Path) -> Path:
  """Returns where the built library is kept: a name for each set of what it is made of."""
  digest = hashlib.sha256(b''.join(source.read_bytes() for source in _SOURCES))
  parts = (*_FLAGS, str(shared), str(headers), jaxlib.__version__)
  digest.update('\n'.join(parts).encode())
  return cache.directory('') / 'native' / f'{digest.hexdigest()[:16]}.so'


def _build(built: Path, shared: Path, headers: Path) -> None:
  """Compiles the sources; raises _CannotBuild."""
  compiler = _compiler()
  if compiler is None:
    raise _CannotBuild(
      'there is no C++ compiler on the PATH: install g++ or clang++, or set CXX'
    )
  try:
    built.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=built.parent) as folder:
      # Under another name until it is whole: another process may look for it.
      part = Path(folder) / built.name
      command = [
        *(
          compiler,
          *_FLAGS,
          f'-I{jax.ffi.include_dir()}',
          f'-I{headers}',
          *(str(source) for source in _SOURCES if source.suffix == '.cc'),
        ),
        *('-o', str(part), str(shared), f'-Wl,-rpath,{shared.parent}'),
      ]
      done = subprocess.run(
        command, capture_output=True, text=True, timeout=_BUILD_SECONDS, check=False
      )
      if done.returncode:
        errors = [line for line in done.stderr.splitlines() if 'error' in line]
        said = (errors or done.stderr.splitlines() or ['without a word'])[0]
        raise _CannotBuild(
          f'{Path(compiler).name} cannot compile its operators ({said})'
        )
      os.replace(part, built)
  except subprocess.TimeoutExpired as error:
    raise _CannotBuild(
      f'{compiler} takes over {_BUILD_SECONDS} s to compile it'
    ) from error
  except OSError as error:
    raise _CannotBuild(
      f'{built.parent} cannot be written ({error.strerror}): set JAXVISION_CACHE'
    ) from error
