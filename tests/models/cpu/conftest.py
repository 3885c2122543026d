import pytest

from jaxvision.models.cpu import onednn


@pytest.fixture
def without_onednn(monkeypatch):
  """Convolutions go the ways that there are without the extra."""
  monkeypatch.setattr(onednn, 'suits', lambda images, geometry: False)
