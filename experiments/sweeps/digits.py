"""Learning rate, weight decay, dropout and label smoothing of the digits CNN: 20 trials.

    python -m jaxvision.main sweep --config=configs/digits_cnn.py \
      --sweep=experiments/sweeps/digits.py --config.epochs=5
"""

from jaxvision.sweeps import Range, Sweep


def get_sweep():
  return Sweep(
    space={
      'optimizer.learning_rate': Range(1e-3, 1.0, log=True),
      'optimizer.weight_decay': Range(1e-5, 1e-1, log=True),
      'model.dropout': Range(0.0, 0.6),
      'label_smoothing': Range(0.0, 0.2),
    },
    trials=20,
  )
