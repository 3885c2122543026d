"""CIFAR-10 as the airbench scripts keep it, from the decoded copy in our cache.

    python benchmarks/peer_cifar10.py CACHE/cifar10 FOLDER/cifar10

The scripts download the set where FOLDER/cifar10/train.pt and test.pt are not there. Needs
torch and NumPy alone.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch


def main(cached: Path, target: Path) -> None:
  """Writes both files: images uint8 [n, 32, 32, 3], labels int64 [n], names of classes."""
  classes = json.loads((cached / 'index.json').read_text())['classes']
  target.mkdir(parents=True, exist_ok=True)
  for split in ('train', 'test'):
    images = np.load(cached / f'{split}_images.npy', allow_pickle=False)
    labels = np.load(cached / f'{split}_labels.npy', allow_pickle=False)
    content = {
      'images': torch.from_numpy(images),
      'labels': torch.from_numpy(labels.astype(np.int64)),
      'classes': classes,
    }
    torch.save(content, target / f'{split}.pt')


if __name__ == '__main__':
  main(*map(Path, sys.argv[1:]))
