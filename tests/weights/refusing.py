"""Shared by the tests of files of weights."""

import pytest

from jaxvision import weights
from jaxvision.errors import UserError


def read_refused(path, *expected):
  with pytest.raises(UserError) as caught:
    weights.read(str(path))
  message = str(caught.value)
  assert len(message.splitlines()) == 1
  for text in (str(path), *expected):
    assert text in message
  return message
