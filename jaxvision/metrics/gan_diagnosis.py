"""What goes wrong with a GAN, as far as its log shows it."""

from collections.abc import Sequence
from typing import Any

# Beyond these D(x) and D(G(z)) the discriminator is taken to have won.
_WON = (0.98, 0.02)
_POINTS = 3  # log points in a row that must be so
# Below this share of the diversity of real images, samples are taken to have collapsed.
_COLLAPSED = 0.35
_EVALUATIONS = 2  # in a row: at the very start of a run all samples are alike


def diagnose(history: Sequence[dict[str, Any]], loss: str) -> dict[str, str]:
  """Returns what is wrong at the end of a log: 'saturated', 'collapsed' -> in words.

  Args:
    history: log points, those of training with 'd_real' and 'd_fake', those of
      evaluations with 'diversity'.
    loss: `gan.loss`; only logits become probabilities that can saturate.

  >>> point = {'step': 100, 'split': 'train', 'd_real': 0.999, 'd_fake': 0.001}
  >>> list(diagnose([point] * 3, 'bce'))
  ['saturated']
  """
  found = {}
  training = [p for p in history if p['split'] == 'train'][-_POINTS:]
  high, low = _WON
  if loss in ('bce', 'hinge') and len(training) == _POINTS:
    pairs = [(p.get('d_real') or 0.0, p.get('d_fake') or 0.0) for p in training]
    if all(real > high and fake < low for real, fake in pairs):
      real, fake = pairs[-1]
      found['saturated'] = (
        f'step {training[-1]["step"]}: the discriminator tells all images apart '
        f'(D(x) {real:.3f}, D(G(z)) {fake:.3f}), so that the generator learns little: '
        'lower gan.d_learning_rate, set label_smoothing or gan.r1, or gan.diffaugment'
      )
  evaluations = [p for p in history if 'diversity' in p][-_EVALUATIONS:]
  values = [p['diversity'] for p in evaluations]
  if len(values) == _EVALUATIONS and max(values) < _COLLAPSED:
    found['collapsed'] = (
      f'step {evaluations[-1]["step"]}: the samples are much alike (diversity '
      f'{values[-1]:.2f} of that of real images): the generator may have collapsed; '
      'model.minibatch=stddev, gan.r1 or a lower learning rate help'
    )
  return found
