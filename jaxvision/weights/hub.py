"""The weights file and the config of a Hugging Face repository, through its cache."""

import contextlib
import dataclasses
import importlib.util
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxvision.errors import UserError
from jaxvision.weights.choosing import one_line

_log = logging.getLogger(__name__)

WEIGHTS = ('model.safetensors', 'pytorch_model.bin')
_PATIENCE = 5  # seconds to wait for an answer of the hub
_NAME = re.compile(r'(\w[\w.-]*/\w[\w.-]*)(?:@(\S+))?')


@dataclasses.dataclass(frozen=True)
class Snapshot:
  """What a repository gave.

  Attributes:
    file: the weights.
    config: the parsed config.json; None if there is none.
    revision: the commit, in hexadecimal.
  """

  file: Path
  config: Any
  revision: str


def parse(source: str) -> tuple[str, str | None] | None:
  """Returns (ORGANISATION/NAME, REVISION or None), or None if it is no such name.

  >>> parse('timm/resnet18.a1_in1k@v2'), parse('timm/resnet18'), parse('../resnet18')
  (('timm/resnet18.a1_in1k', 'v2'), ('timm/resnet18', None), None)
  """
  match = _NAME.fullmatch(source)
  return (match[1], match[2]) if match else None


def download(name: str, revision: str | None) -> Snapshot:
  """Brings a repository's weights and config, as far as they are not in the cache.

  Without a network, or with HF_HUB_OFFLINE=1, what the cache holds is taken.

  Args:
    name: ORGANISATION/NAME.
    revision: branch, tag or commit; None: the main branch.

  Raises:
    UserError: it cannot be reached, may not be read or has no weights, or the package
      huggingface_hub is not installed.
  """
  if importlib.util.find_spec('huggingface_hub') is None:
    raise UserError(
      f'weights {name}: there is no such file here, and reading them from Hugging Face '
      "needs huggingface_hub: pip install 'jaxvision[hub]'"
    )
  _log.info('looking up %s on Hugging Face', name)
  problem = _out_of_reach()
  # `file` lies in .../snapshots/COMMIT/. Its commit is what the config is taken of, so
  # that the two belong together even if the repository changes in between.
  file = _weights(name, revision, problem)
  commit = file.parent.name
  config = _get(name, 'config.json', commit, problem)
  if config is None and problem and not _is_known_to_lack(name, 'config.json', commit):
    raise _not_cached(name, 'config.json', problem)
  return Snapshot(file, read_config(config, name) if config else None, commit)


def _out_of_reach() -> str | None:
  """Returns why the hub cannot be reached, None if it can, after seconds at most.

  The package itself tries each file five times before it looks into the cache.
  """
  from huggingface_hub import constants, get_session

  if constants.HF_HUB_OFFLINE:
    return 'HF_HUB_OFFLINE is set'
  try:
    get_session().head(constants.ENDPOINT, timeout=_PATIENCE)
  except Exception as error:  # of the HTTP package, which has changed with versions
    return _reason(error)
  return None


def read_config(path: Path, name: str) -> Any:
  """Returns the parsed config.json of the repository `name`, or of a folder like it."""
  try:
    return json.loads(path.read_text('utf-8'))
  except (ValueError, RecursionError, OSError) as error:
    raise UserError(
      f'weights {name}: its config.json is no JSON: {one_line(error)}'
    ) from error


def _weights(name: str, revision: str | None, problem: str | None) -> Path:
  for filename in WEIGHTS:
    file = _get(name, filename, revision, problem)
    if file is not None:
      return file
  if problem:
    raise _not_cached(name, WEIGHTS[0], problem, revision)
  raise UserError(f'weights {name}: the repository has neither {" nor ".join(WEIGHTS)}')


def _where(name: str, revision: str | None) -> str:
  return f'weights {name}' + (f'@{revision}' if revision else '')


def _not_cached(
  name: str, filename: str, problem: str, revision: str | None = None
) -> UserError:
  return UserError(
    f'{_where(name, revision)}: {filename} is not in the cache of Hugging Face, and the '
    f'hub cannot be reached ({problem}); read it once with a network, or give a file'
  )


def _get(
  name: str, filename: str, revision: str | None, problem: str | None
) -> Path | None:
  """Returns where a file of a repository lies, or None if the repository has it not.

  Where there is a `problem` with the hub, None stands for a file that the cache has not.
  """
  import huggingface_hub
  from huggingface_hub import errors

  where = _where(name, revision)
  try:
    with _quiet():
      return Path(
        huggingface_hub.hf_hub_download(
          name, filename, revision=revision, local_files_only=bool(problem)
        )
      )
  except errors.LocalEntryNotFoundError as error:
    if problem:
      return None
    raise _not_cached(name, filename, _reason(error), revision) from error
  except errors.GatedRepoError as error:
    raise UserError(
      f'{where}: access is restricted: accept its terms on its page, then log in with '
      '`hf auth login` or HF_TOKEN'
    ) from error
  except errors.RepositoryNotFoundError as error:
    raise UserError(
      f'{where}: there is no such file here and no such repository on Hugging Face, or '
      'it is private (then log in with `hf auth login` or HF_TOKEN)'
    ) from error
  except errors.RevisionNotFoundError as error:
    raise UserError(f'{where}: the repository has no such revision') from error
  except errors.EntryNotFoundError:
    return None
  # Nothing of ours runs in there; which errors a network has depends on the version.
  except Exception as error:
    raise UserError(f'{where}: {filename} cannot be read: {_reason(error)}') from error


def _is_known_to_lack(name: str, filename: str, revision: str | None) -> bool:
  """Returns whether the cache remembers that the repository has no such file."""
  import huggingface_hub

  known = huggingface_hub.try_to_load_from_cache(name, filename, revision=revision)
  return known is not None and not isinstance(known, str)


def _reason(error: BaseException) -> str:
  lines = str(error.__cause__ or error).strip().splitlines()
  return (lines[0] if lines else type(error).__name__)[:160].rstrip('.')


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Keeps the hub's warnings of single attempts back; bars it shows on terminals only.

  By a filter where they arise: the package sets the level of its loggers as it is
  imported, part by part.
  """

  def is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR

  logger = logging.getLogger('huggingface_hub.utils._http')
  logger.addFilter(is_error)
  try:
    yield
  finally:
    logger.removeFilter(is_error)
