"""The commands as functions: train, evaluate, compare, sweep, export, and the others."""

from jaxvision.api.comparing import compare
from jaxvision.api.evaluating import evaluate, evaluate_weights
from jaxvision.api.exploring import explore
from jaxvision.api.exporting import export
from jaxvision.api.measuring import benchmark
from jaxvision.api.measuring_folders import compare_folders
from jaxvision.api.sampling import generator, sample
from jaxvision.api.sweeping import sweep
from jaxvision.api.training import train
from jaxvision.config import load as load_config
from jaxvision.deploy.generator import load_generator
from jaxvision.deploy.loading import load_run

__all__ = [
  'benchmark',
  'compare',
  'compare_folders',
  'evaluate',
  'evaluate_weights',
  'explore',
  'export',
  'generator',
  'load_config',
  'load_generator',
  'load_run',
  'sample',
  'sweep',
  'train',
]
