"""The README's tables of results and studies, and the studies' pages, from their files.

    python experiments/results.py      # or: make results

Trains nothing and needs no data set: `results/` has the summaries of runs, `studies/` a
JSON for each study that has been run. What has not been measured stays blank.
"""

import importlib
import json
from pathlib import Path

import results_table
import study_report
from study import ROOT, STUDIES, Study, redraw

# In the README's order.
NAMES = (
  'batch_size',
  'optimisers_and_rates',
  'dropout',
  'augmentation',
  'augmentation_policies',
  'model_comparison',
  'epochs',
  'smallcnn_activations',
  'pretraining',
  'transfer',
)


def load(name: str) -> Study:
  """Returns the study of a file of this directory."""
  return importlib.import_module(name).STUDY


def measured(name: str) -> list[Path]:
  """Returns the files of a study that has been run, that of the full budget first."""
  study = load(name)
  files = [STUDIES / f'{study.stem(budget)}.json' for budget in study.budgets]
  return [file for file in reversed(files) if file.is_file()]


def readme(text: str) -> str:
  """Returns the README with every table as the files have it.

  Of a study that has been run with both budgets, the full one is shown.
  """
  summaries = results_table.load_results(ROOT / 'experiments' / 'results')
  tables = {
    'results': results_table.table(summaries),
    'gan results': results_table.gan_table(summaries),
  }
  for name in NAMES:
    study = load(name)
    report = study.report or study_report.REPORT
    shown = [
      report.section(study, json.loads(file.read_text())) for file in measured(name)[:1]
    ]
    tables[f'study {name}'] = ''.join(shown)
  for name, content in tables.items():
    text = results_table.replaced(text, content, name)
  return text


def main() -> None:
  for name in NAMES:
    for file in measured(name):
      redraw(load(name), file)
      print(f'redrawn: {file.relative_to(ROOT)}')
  page = ROOT / 'README.md'
  page.write_text(readme(page.read_text()))


if __name__ == '__main__':
  main()
