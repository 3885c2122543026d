"""Numbers in the text that Prometheus reads."""

import re

from jaxvision.deployment.server.metrics import Histogram, Metrics


def test_a_histogram_counts_up_to_each_bound():
  histogram = Histogram((1, 2.5))
  for value in (0.5, 1, 2, 99):
    histogram.add(value)
  assert histogram.lines('x', 'a="b"') == [
    'x_bucket{a="b",le="1"} 2',
    'x_bucket{a="b",le="2.5"} 3',
    'x_bucket{a="b",le="+Inf"} 4',
    'x_sum{a="b"} 102.5',
    'x_count{a="b"} 4',
  ]


def test_every_line_is_of_the_format():
  model = {'model': 'a "hostile"\\ name\n'}
  metrics = Metrics(model, (1, 2), {('queue', 'Waits.'): lambda: 3})
  metrics.request('/predict', 200, 0.01)
  metrics.request('/predict', 429, 0.01)
  metrics.request('other', 404, 0.01)
  metrics.images['predicted'] += 2
  metrics.batches.add(2)
  text = metrics.text()
  assert text.endswith('\n')
  value = r'"(?:[^"\\\n]|\\["\\n])*"'
  sample = rf'[a-z_]+(?:\{{[a-z]+={value}(?:,[a-z]+={value})*\}})? [0-9.e+-]+'
  for line in text.splitlines():
    assert re.fullmatch(rf'# (?:HELP|TYPE) [a-z_]+ .+|{sample}', line), line
  assert 'jaxvision_requests_total{route="/predict",status="429"} 1' in text
  assert 'queue 3' in text
  named = [line.split()[2] for line in text.splitlines() if line.startswith('# TYPE')]
  assert len(named) == len(set(named))
