"""Damaged files of weights: whatever a disk, a network or a hand did, one line says so."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from jaxvision import weights
from jaxvision.errors import UserError

hypothesis = pytest.importorskip('hypothesis', reason='comes with the extra "test"')
st = hypothesis.strategies

pytestmark = pytest.mark.long

TENSORS = {
  'module.conv1.weight': np.ones((2, 3, 3, 3), np.float32),
  'module.bn1.weight': np.ones(2, np.float16),
  'module.layer1.0.conv1.weight': np.zeros((2, 2, 1, 1), np.float32),
  'module.bn1.num_batches_tracked': np.array(3),
}


def whole_files():
  """Bytes of small files by suffix: safetensors, and both formats of PyTorch."""
  own = json.dumps({'mean': [0.5], 'std': [0.5], 'model': 'resnet18', 'fields': {}})
  yield '.safetensors', safetensors.numpy.save(TENSORS, {'jaxvision': own})
  try:
    import torch
  except ImportError:
    return
  tensors = {name: torch.from_numpy(array) for name, array in TENSORS.items()}
  content = {'epoch': 3, 'state_dict': tensors, 'best': np.float64(1.5)}
  with tempfile.TemporaryDirectory() as folder:
    for old in (False, True):
      path = Path(folder) / 'model.pth'
      torch.save(content, path, _use_new_zipfile_serialization=not old)
      yield '.pth', path.read_bytes()


WHOLE = list(whole_files())

place = st.floats(0, 1, exclude_max=True)
damage = st.one_of(
  st.tuples(st.just('truncate'), place, place, st.just(b'')),
  st.tuples(st.just('flip'), place, place, st.binary(min_size=1, max_size=1)),
  st.tuples(st.just('insert'), place, place, st.binary(min_size=1, max_size=16)),
  st.tuples(st.just('copy'), place, place, st.binary(min_size=1, max_size=64)),
)


def damaged(data, kind, first, second, extra):
  """Returns `data` cut off, with other bits, or with other bytes put in the middle."""
  i, j = int(first * len(data)), int(second * len(data))
  if kind == 'truncate':
    return data[:i]
  if kind == 'flip':
    return data[:i] + bytes([data[i] ^ extra[0]]) + data[i + 1 :] if data else data
  piece = extra if kind == 'insert' else data[j : j + len(extra)]
  return data[:i] + piece + data[i + (len(extra) if kind == 'copy' else 0) :]


def check(whole, damages):
  suffix, data = whole
  for one in damages:
    data = damaged(data, *one)
  with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / f'damaged{suffix}'
    path.write_bytes(data)
    error, read = None, None
    try:
      read = weights.read(str(path))
    except UserError as caught:
      error = caught
    if read is None:
      assert_one_line(error, path)
    else:
      assert all(array.dtype == np.float32 for array in read.tensors.values())
      assert sum(array.nbytes for array in read.tensors.values()) <= 4 * len(data)


def assert_one_line(error, path):
  assert len(str(error).splitlines()) == 1
  assert len(str(error)) <= 400
  assert str(path) in str(error)


cases = hypothesis.given(
  st.sampled_from(WHOLE), st.lists(damage, min_size=1, max_size=4)
)


def settings(examples):
  return hypothesis.settings(
    max_examples=examples, derandomize=True, deadline=None, database=None
  )


@settings(150)
@cases
def test_damage_is_one_line_that_names_the_file(whole, damages):
  check(whole, damages)


@pytest.mark.slow
@settings(10_000)
@cases
def test_much_damage_is_one_line_that_names_the_file(whole, damages):
  check(whole, damages)


@pytest.mark.parametrize(
  'header',
  [
    '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4000000000000]}}',
    '{"a":{"dtype":"F32","shape":[9223372036854775807,9],"data_offsets":[0,4]}}',
    '{"a":{"dtype":"F32","shape":[0,9223372036854775807],"data_offsets":[0,0]}}',
    '{"a":{"dtype":"F32","shape":[' + 98 * '1,' + '1],"data_offsets":[0,4]}}',
    '{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}',
    '{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}',
    '{"__metadata__":{"jaxvision":["x"]}}',
    '{"__metadata__":' + 10_000 * '{"a":' + '1' + 10_001 * '}',
    10_000 * '[',
    '[]',
    'null',
    '{"a":{"dtype":"X","shape":[1],"data_offsets":[0,4]}}',
    '{"' + 2000 * r'long\n' + '":{"dtype":"I8","shape":[4],"data_offsets":[0,4]}}',
  ],
  ids=range(13),
)
def test_headers_that_lie(header, tmp_path):
  path = tmp_path / 'lying.safetensors'
  data = header.encode()
  for length in (len(data), len(data) + 4, 2**62, 2**64 - 1):
    path.write_bytes(length.to_bytes(8, 'little') + data + bytes(4))
    with pytest.raises(UserError) as caught:
      weights.read(str(path))
    assert_one_line(caught.value, path)
