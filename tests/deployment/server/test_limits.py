"""Limits that make no sense are told by the names of their options."""

import pytest
from refusals import refused

from jaxvision.deployment.server.limits import Limits


@pytest.mark.parametrize(
  ('option', 'values'),
  [
    ('--max-batch', {'batch': 0}),
    ('--max-delay-ms', {'delay_ms': -1}),
    ('--timeout', {'timeout': float('nan')}),
    ('--max-body-mb', {'body_mb': float('inf')}),
    ('--max-connections', {'connections': 0}),
    ('--queue', {'queue': 3, 'images': 4}),
    ('--max-megapixels', {'megapixels': 121}),
  ],
)
def test_impossible_ones(option, values):
  assert option in refused(lambda: Limits(**values))


def test_no_delay_is_a_delay():
  assert Limits(delay_ms=0).delay_ms == 0
