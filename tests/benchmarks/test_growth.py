"""How cost grows: the rows that stay, the tables, and the page that was made of them."""

import json

import pytest


def row(axis, at, seconds, work=None, **known):
  spread = {'n': 5, 'min': seconds, 'median': seconds, 'max': seconds}
  hello = {'device': 'a device', 'versions': {'jax': '0.0', 'python': '3.0'}}
  return {
    **{'axis': axis, 'at': at, 'seconds': spread, 'work': work},
    **{'peak_bytes': 3_000_000, 'hello': hello},
    **known,
  }


def test_time_and_work_are_multiples_of_the_first_row(module):
  page = module('growth_page')
  rows = [
    row('batch', 16, 0.5, work=10, temp_bytes=2_000_000),
    {'axis': 'batch', 'at': 32, 'error': 'out of memory'},
    row('batch', 64, 1.5, work=40, temp_bytes=9_000_000),
  ]
  first, failed, last = page.cells('batch', rows)
  assert first == (16, 500.0, 500.0, 500.0, 1.0, 1.0, 2.0, 3.0)
  assert failed[:2] == (32, 'out of memory')
  assert last[4:] == (3.0, 4.0, 9.0, 3.0)
  # Where no network computes, the work is what the axis counts.
  rows = [row('splits', 1000, 0.1), row('splits', 10_000, 0.3)]
  _, last = page.cells('splits', rows)
  assert last[4:6] == pytest.approx((3, 10))
  assert last[6:] == (None, 3.0)


def test_rows_that_are_not_measured_stay_in_the_file(module, monkeypatch, tmp_path):
  growth = module('growth')
  path = tmp_path / 'growth.json'
  kept = [row('depth', 20, 1.0, work=5), row('batch', 32, 7.0, work=2)]
  path.write_text(json.dumps({'benchmark': 'growth', 'rows': kept}))
  measured = []

  def measure(axis, at, options):
    measured.append((axis, at))
    return row(axis, at, 1.0, work=at)

  monkeypatch.setattr(growth, 'measure', measure)
  growth.main(['--axes=batch', '--least=32', '--most=64', f'--json={path}'])
  assert measured == [('batch', 32), ('batch', 64)]
  rows = json.loads(path.read_text())['rows']
  found = [(r['axis'], r['at'], r['work']) for r in rows]
  assert found == [('batch', 32, 32), ('batch', 64, 64), ('depth', 20, 5)]


def test_page_is_that_of_its_result(module, request):
  page, root = module('growth_page'), request.config.rootpath
  path = root / 'benchmarks' / 'results' / 'growth_cpu.json'
  made = page.page(page.read(path), path.name)
  assert (root / 'docs' / 'growth.md').read_text() == made, 'run `make results`'
  for axis, _ in page.by_axis(page.read(path)):
    assert (root / 'docs' / 'images' / f'growth-{axis}.png').exists()


def test_another_file_is_refused(module, tmp_path):
  page = module('growth_page')
  for content in ('[]', '{"benchmark": "scaling"}', 'nothing'):
    (tmp_path / 'other.json').write_text(content)
    with pytest.raises(SystemExit, match=r'other\.json'):
      page.read(tmp_path / 'other.json')
