"""What a call is refused with."""

import pytest

from jaxvision.errors import UserError


def refused(make, *arguments):
  with pytest.raises(UserError) as error:
    make(*arguments)
  message = str(error.value)
  assert '\n' not in message
  assert len(message) < 500
  return message
