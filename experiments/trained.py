"""A run as a trained classifier of the package: weights, int8, and a card.

    python experiments/trained.py --workdir=runs/digits_cnn [--half] [--int8=RUN]

Writes jaxvision/trained/NAME.safetensors, .int8.onnx, .json and .md, NAME being that of the
config. `--half` keeps the weights in float16, for networks of a million parameters. `--int8`
is a run that was fine-tuned from the first with quantization_aware, where int8 costs more
than half a point.
"""

import argparse
import json
import re
from pathlib import Path

import numpy as np

import jaxvision
from jaxvision.commands.quantize import Quantization, quantize
from jaxvision.commands.run_data import data_of_run, read
from jaxvision.inference.trained import FOLDER, Trained
from jaxvision.training.run_directory import RunDirectory

_CONFUSIONS = 5  # that a card lists
_LIMITS = {
  'digits': 'It knows digits of 8x8 pixels as scikit-learn has them (NIST forms of the '
  '1990s, white on black, grey in 17 levels). Photographs of handwriting are other images.',
  'mnist': 'It knows single digits, white on black, centred by their mass in 28x28 pixels '
  'as MNIST has them. A photograph of a page must be cut, inverted and centred first.',
  'cifar10': 'It says one of ten classes of any image, also of one that shows none of them, '
  'and was trained on images of 32x32 pixels: of a photo it sees 32x32. It is no detector. '
  '0.77 % of the test images have a near copy in the training images '
  '(`jaxvision explore`).',
  'cifar100': 'It says one of a hundred classes of any image, also of one that shows none of '
  'them, and was trained on images of 32x32 pixels. 1.07 % of the test images have a near '
  'copy in the training images (`jaxvision explore`).',
}
_SOURCES = {
  'digits': "scikit-learn's `load_digits` (UCI, Alpaydin and Kaynak 1998; CC BY 4.0)",
  'mnist': 'MNIST (LeCun, Cortes and Burges 1998)',
  'cifar10': 'CIFAR-10 (Krizhevsky 2009)',
  'cifar100': 'CIFAR-100 (Krizhevsky 2009)',
}


def main() -> None:
  """Writes the files of one run."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--workdir', required=True)
  parser.add_argument('--half', action='store_true')
  parser.add_argument('--int8', metavar='RUN')
  options = parser.parse_args()
  summary = RunDirectory(options.workdir).summary()
  if summary is None:
    raise SystemExit(f'{options.workdir} has not ended: train it to the end first')
  model = Trained(summary['config_name'], {})
  jaxvision.export(options.workdir, model.weights, format='safetensors')
  if options.half:
    _halve(model.weights)
  how = Quantization()
  if options.int8:  # it was trained to have every layer rounded
    how = Quantization(method='percentile', images=1024, max_loss=100)
  _, rows = quantize(options.int8 or options.workdir, model.int8, how=how)
  found, labels = _measured(model.weights, options.workdir)
  accuracy = float((found.labels == labels).mean())
  facts = {
    key: summary.get(key)
    for key in (
      'model',
      'dataset',
      'params',
      'seed',
      'epochs',
      'device_kind',
      'command',
    )
  } | {
    'test_accuracy': accuracy,
    'int8_accuracy': rows[1]['accuracy'],
    'int8_agreement': rows[1]['agreement'],
    'kept_in_float32': rows[1]['kept'],
    'seconds_train': summary['seconds_train'],
    'command': f'python -m jaxvision.main --config=configs/{model.name}.py '
    f'--config.seed={summary["seed"]}',
    'versions': summary['versions'],
  }
  if options.int8:
    tuned = RunDirectory(options.int8).summary()
    command = re.sub(r' --workdir=\S+', '', tuned['command'])
    facts['int8_command'] = re.sub(
      r'(init\.pretrained)=\S+', rf'\1=runs/{model.name}', command
    )
    facts['int8_epochs'] = tuned['epochs']
  (FOLDER / f'{model.name}.json').write_text(json.dumps(facts, indent=2) + '\n')
  model.card.write_text(_card(Trained(model.name, facts), found, labels))
  print(f'wrote: {", ".join(str(file) for file in model.files)}')


def _halve(path: Path) -> None:
  """Keeps the weights of a file in float16."""
  import safetensors
  import safetensors.numpy

  with safetensors.safe_open(path, 'numpy') as file:
    metadata = file.metadata()
    tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
  halves = {
    name: array.astype(np.float16) if array.dtype == np.float32 else array
    for name, array in tensors.items()
  }
  path.write_bytes(safetensors.numpy.save(halves, metadata))


def _measured(path: Path, workdir: str):
  """Returns the predictions of a file for the test images of the run, and the labels."""
  source = data_of_run(workdir).splits['test']
  images, labels = read(source, np.arange(len(source)))
  return jaxvision.load_model(path).predict(images), labels


def _card(model: Trained, found, labels: np.ndarray) -> str:
  facts, names = model.facts, found.class_names
  wrong = np.stack([labels, found.labels], 1)[labels != found.labels]
  pairs, counts = np.unique(wrong, axis=0, return_counts=True)
  worst = np.argsort(-counts, kind='stable')[:_CONFUSIONS]
  confusions = ', '.join(
    f'{names[pairs[i][0]]} for {names[pairs[i][1]]} ({counts[i]})' for i in worst
  )
  recalls = {
    names[k]: float((found.labels[labels == k] == k).mean()) for k in range(len(names))
  }
  ranked = sorted(recalls, key=recalls.get)
  shown = list(dict.fromkeys([*ranked[:3], *ranked[-2:]]))
  dataset = facts['dataset']
  minutes = facts['seconds_train'] / 60
  sizes = ', '.join(
    f'{file.name} {file.stat().st_size / 1e6:.2f} MB'
    for file in (model.weights, model.int8)
  )
  kept = ', '.join(facts['kept_in_float32']) or 'none'
  tuned = ''
  if 'int8_command' in facts:
    tuned = (
      f', fine-tuned for {facts["int8_epochs"]:.0f} epochs with quantization_aware'
    )
  return f"""# {model.name}

| | |
|---|---|
| network | `{facts['model']}`, {facts['params']:,} parameters |
| data | {_SOURCES.get(dataset, dataset)} |
| recipe | `configs/{model.name}.py`, seed {facts['seed']}, {facts['epochs']:.0f} epochs |
| trained on | {facts['device_kind']}, {minutes:.1f} minutes |
| test accuracy | {facts['test_accuracy']:.2%} of {len(labels):,} images |
| in int8 | {facts['int8_accuracy']:.2%}{tuned}; {facts['int8_agreement']:.2%} of the predictions are those of float32; layers in float32: {kept} |
| files | {sizes} |
| licence | MIT; the images are research data of their authors and not in the files |

By class: {', '.join(f'{name} {recalls[name]:.1%}' for name in shown)}, from the worst to the best.
Most often confused, the true class first: {confusions or 'nothing'}.

**Limits.** {_LIMITS.get(dataset, '')}

```sh
jaxvision predict --model={model.name} photo.png          # weights, by JAX
jaxvision predict --model={model.name}.int8 photo.png     # int8, by onnxruntime
python -m jaxvision.main --config=configs/{model.name}.py # trains it again
```
"""


if __name__ == '__main__':
  main()
