"""Tests of img2graph/methods/base.py."""

import sys
import types

import pytest

from img2graph import methods


def _install(monkeypatch, name, **contents):
  module = types.ModuleType(f'img2graph.methods.{name}')
  vars(module).update(contents)
  monkeypatch.setitem(sys.modules, module.__name__, module)


def test_a_method_is_built_by_its_own_module_from_the_options(monkeypatch):
  _install(monkeypatch, 'echo', build=lambda **options: options)
  built = methods.build('echo', train_steps=3, precision='float32', width=5)
  assert built == {'train_steps': 3, 'precision': 'float32', 'width': 5}


@pytest.mark.parametrize('name', ['alchemy', 'a.b', '1.5', 1.5, '', 'base', None])
def test_an_unknown_method_is_refused_in_one_sentence(name):
  with pytest.raises(ValueError, match=f'no method named {name!r}'):
    methods.build(name, train_steps=1, precision='float32')


@pytest.mark.parametrize(
  'sides', [(), 64, None, (64, 0), (-1,), (2.5,), (128, 64), (64, 64), 'ab']
)
def test_sides_that_no_image_can_have_are_refused(sides):
  with pytest.raises(ValueError, match='method.sides must be one or more .*; got'):
    methods.Method(init=None, loss=None, sides=sides)


def test_sides_are_a_tuple_wherever_they_come_from():
  assert methods.Method(init=None, loss=None, sides=[32, 64]).sides == (32, 64)


def test_a_package_that_a_method_lacks_is_not_taken_for_the_method(
  tmp_path, monkeypatch
):
  (tmp_path / 'needy.py').write_text('import a_package_that_is_not_there\n')
  import img2graph.methods

  path = [*img2graph.methods.__path__, str(tmp_path)]
  monkeypatch.setattr(img2graph.methods, '__path__', path)
  with pytest.raises(ModuleNotFoundError, match='a_package_that_is_not_there'):
    methods.build('needy')
