import pytest

from jaxvision.models.cpu import native


@pytest.fixture
def without_onednn(monkeypatch):
  """Convolutions go the ways that there are without the extra."""
  monkeypatch.setattr(native, 'suits', lambda images, geometry: False)
