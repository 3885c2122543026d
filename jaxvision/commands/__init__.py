"""The commands, one file each: what it prints, and the function that Python calls."""

from jaxvision.commands.benchmark import benchmark
from jaxvision.commands.compare import compare
from jaxvision.commands.distance import compare_folders
from jaxvision.commands.eval import evaluate, evaluate_weights
from jaxvision.commands.explore import explore
from jaxvision.commands.export import export
from jaxvision.commands.sample import sample
from jaxvision.commands.sweep import sweep
from jaxvision.commands.train import train
from jaxvision.config import load as load_config
from jaxvision.inference.generator import load_generator
from jaxvision.inference.loading import load_run

__all__ = [
  'benchmark',
  'compare',
  'compare_folders',
  'evaluate',
  'evaluate_weights',
  'explore',
  'export',
  'load_config',
  'load_generator',
  'load_run',
  'sample',
  'sweep',
  'train',
]
