"""Prepares a TFDS set as array_record: the only module that runs TensorFlow.

    python -m jaxvision.data.sources.prepare_tfds NAME DIR

It is a program of its own, so that TensorFlow never enters a process that trains
(it takes GPU memory, threads and seconds). Its last line of output is JSON: the
folder of the prepared set as {"path": ...}, or {"error": ..., "kind": ...}.
"""

import json
import os
import sys

from jaxvision.errors import closest


def prepare_here(name: str, data_dir: str) -> dict[str, str]:
  """Downloads where necessary and prepares `name` under `data_dir`, in this process.

  Returns:
    {'path': folder}, or {'error': one line, 'kind': 'tensorflow' | 'unknown' |
    'failed'}.
  """
  os.environ.setdefault('CUDA_VISIBLE_DEVICES', '')
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
  try:
    import tensorflow  # noqa: F401
  except ImportError as error:
    return {
      'kind': 'tensorflow',
      'error': f'TensorFlow is not installed ({_line(error)})',
    }
  import tensorflow_datasets as tfds
  from tensorflow_datasets.core.download import downloader

  # Ten tries of every file keep a machine without a network waiting for minutes.
  downloader.MAX_RETRIES = 3
  try:
    builder = tfds.builder(name, data_dir=data_dir, file_format='array_record')
  # Unknown sets raise DatasetNotFoundError, unknown versions AssertionError, broken
  # optional imports whatever they like: each becomes one line.
  except Exception as error:
    if isinstance(error, tfds.core.DatasetNotFoundError):
      near = closest(name, tfds.list_builders(with_community_datasets=False))
      return {'kind': 'unknown', 'error': f'TFDS has no set of that name{near}'}
    return {'kind': 'failed', 'error': _line(error)}
  try:
    builder.download_and_prepare(file_format='array_record')
  except Exception as error:  # network, checksums, disk, missing extras
    return {'kind': 'failed', 'error': _line(error)}
  return {'path': str(builder.data_dir)}


def _line(error: BaseException) -> str:
  """Returns an exception as one line of at most 300 characters."""
  text = f'{type(error).__name__}: ' + ' '.join(str(error).split())
  return text if len(text) <= 300 else text[:297] + '...'


def main() -> int:
  if len(sys.argv) != 3:
    print(
      'usage: python -m jaxvision.data.sources.prepare_tfds NAME DIR', file=sys.stderr
    )
    return 2
  result = prepare_here(sys.argv[1], sys.argv[2])
  print(json.dumps(result), flush=True)
  return 0 if 'path' in result else 1


if __name__ == '__main__':
  sys.exit(main())
