"""Tests of launch/tables.py."""

import json
import types

import jax
import ml_collections
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from PIL import Image

from configs import affinity
from img2graph.training import loop
from img2graph.training import parallel
from img2graph.training import record
from launch import cells
from launch import tables


def _scores(f1):
  micro = {'precision': f1 / 2, 'recall': f1 / 4, 'f1': f1}
  at = {'edge_lenient': {'micro': micro}, 'exact': f1 / 5}
  return {'at': {t: at for t in ('0.03', '0.05', '0.08')}}


def _results(config, f1, seconds=90.0):
  plain = cells.plain(config)
  return {
    'config': plain,
    'config_hash': record.config_hash(plain),
    'seed': plain['seed'],
    'scores': _scores(f1) | {'capacity_4': _scores(f1 / 10)},
    'images_seen': plain['train_steps'] * plain['batch_size'],
    'wall_clock': {'total_seconds': seconds},
    'hardware': {'platform': 'cpu', 'cpu_model': 'abacus', 'device_kind': 'cpu'},
    'code': {'commit': '0123456789abcdef', 'dirty': False},
  }


def _config(variant):
  recipe, scale = variant.split(',')
  side = {'paper': 128, 'cpu': 48}[scale]
  return ml_collections.ConfigDict(
    {
      'seed': 0,
      'train_steps': 10 if recipe == 'ours' else 20,
      'batch_size': 4,
      'data': {'side': side},
      'method': {'capacity': 8},
    }
  )


def _sweep(name):
  base = {'overrides': {}, 'published': {}, 'part': ''}
  if name == '1':
    yield base | {
      'recipe': 'paper',
      'row': {'method': 'theirs'},
      'published': {'precision': (57.7, 2.7), 'f1': (67.9, 5.4)},
    }
    yield base | {'recipe': 'ours', 'row': {'method': 'mine'}}
    # The same runs, other scores of them.
    yield base | {'recipe': 'ours', 'row': {'method': 'small'}, 'part': 'capacity_4'}
  else:
    yield base | {'recipe': 'ours', 'row': {'capacity': '8'}}
    yield base | {
      'recipe': 'ours',
      'row': {'capacity': '9'},
      'overrides': {'method.capacity': 9},
    }


MODULE = types.SimpleNamespace(
  RECIPES=('paper', 'ours'),
  SCALES=('paper', 'cpu'),
  TABLES={'1': 'First', '2': 'Second'},
  get_config=_config,
  sweep=_sweep,
)


def _cells(table, **options):
  return tables.cells_of(MODULE, table, **{'scale': 'cpu', 'seeds': 2, **options})


def _lines(found, f1s):
  return [
    json.loads(json.dumps({**_results(cell.config, f1), **cell.label}))
    for cell, f1 in zip(found, f1s, strict=True)
  ]


def test_cells_are_rows_by_seeds_and_rows_of_one_config_share_them():
  found = _cells('1')
  assert [(c.label['recipe'], c.config.seed) for c in found] == [
    ('paper', 0),
    ('ours', 0),
    ('paper', 1),
    ('ours', 1),
  ]
  rows = [[row['row']['method'] for row in c.label['rows']] for c in found]
  assert rows == 2 * [['theirs'], ['mine', 'small']]
  assert len({cell.name for cell in found}) == 4
  # A run that two tables want has one name, by which it is claimed.
  assert _cells('2')[0].name == found[1].name
  assert len(_cells('1', recipes=['ours'])) == 2
  assert not {c.name for c in found} & {c.name for c in _cells('1', scale='paper')}


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'table': '9'}, 'the tables are 1, 2 and all'),
    ({'scale': 'huge'}, 'scale must be one of paper, cpu'),
    ({'recipes': ['ours', 'pie']}, "recipes must be of paper, ours; got 'pie'"),
    ({'seeds': 0}, 'seeds must be at least 1'),
    ({'table': '2', 'recipes': ['paper']}, 'table 2 has no row at the scale cpu'),
  ],
)
def test_what_there_is_not_is_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    _cells(**{'table': '1'} | changes)


def test_rows_may_leave_out_what_has_a_default(tmp_path):
  rows = [{'recipe': 'ours', 'row': {'method': 'mine'}}]
  short = types.SimpleNamespace(**vars(MODULE) | {'sweep': lambda name: iter(rows)})
  found = tables.cells_of(short, '1', scale='cpu', seeds=1)
  assert found[0].name == _cells('1')[1].name
  lines = _lines(found, (0.5,))
  (row,) = tables.summarize(lines, settings=tables.settings_of(short, '1', scale='cpu'))
  assert row['published'] == {} and row['scores']['F1 5 %'] == (50.0, 0.0)


@pytest.mark.parametrize('name', ['recipe', 'row'])
def test_a_row_without_its_name_or_recipe_is_refused(name):
  rows = list(_sweep('1'))
  del rows[1][name]
  module = types.SimpleNamespace(**vars(MODULE) | {'sweep': lambda table: iter(rows)})
  with pytest.raises(ValueError, match=f'^row 2 of table 1 lacks {name}.$'):
    tables.cells_of(module, '1', scale='cpu', seeds=1)


@pytest.mark.parametrize(
  'name, value',
  [
    ('row', 'mine'),
    ('row', {'capacity': 4}),
    ('published', 4.0),
    ('published', {'F1 5 %': 4.0}),
    ('published', {'F1 5 %': (4.0,)}),
  ],
)
def test_a_row_that_cannot_be_drawn_is_refused_before_it_is_run(name, value):
  rows = [row | {name: value} if i else row for i, row in enumerate(_sweep('1'))]
  module = types.SimpleNamespace(**vars(MODULE) | {'sweep': lambda table: iter(rows)})
  with pytest.raises(ValueError, match=f'^{name} in row 2 of table 1 must be'):
    tables.cells_of(module, '1', scale='cpu', seeds=1)


def test_rows_are_means_and_deviations_over_seeds():
  rows = tables.summarize(_lines(_cells('1'), [0.5, 0.9, 0.7, 1.0]))
  assert [row['row']['method'] for row in rows] == ['theirs', 'mine', 'small']
  np.testing.assert_allclose(rows[0]['scores']['F1 3 %'], (60, 100 * 0.2 / 2**0.5))
  np.testing.assert_allclose(rows[1]['scores']['P 5 %'][0], 47.5)
  np.testing.assert_allclose(rows[2]['scores']['F1 8 %'][0], 9.5)
  assert [row['n'] for row in rows] == [2, 2, 2]
  (single, *_) = tables.summarize(_lines(_cells('1', seeds=1), [0.5, 0.9]))
  assert single['scores']['F1 5 %'] == (50.0, 0.0)


def test_the_page_has_the_papers_numbers_beside_ours_and_tells_scales_apart():
  lines = _lines(_cells('1'), [0.5, 0.9, 0.7, 1.0])
  lines += _lines(_cells('1', scale='paper', seeds=1), [0.1, 0.2])
  page = tables.markdown('First', lines)
  small, large = page.split('## Scale: paper')
  assert '## Scale: cpu' in small and 'Images of 48 pixels' in small
  assert 'Images of 128 pixels' in large and 'abacus' in large
  theirs = next(line for line in small.splitlines() if line.startswith('| paper'))
  assert theirs == (
    '| paper | theirs | 57.7 ± 2.7 | 67.9 ± 5.4 | 30.0 ± 7.1 | 15.0 ± 3.5 '
    '| 60.0 ± 14.1 | 60.0 ± 14.1 | 60.0 ± 14.1 | 12.0 ± 2.8 | 2 |'
  )
  mine = next(line for line in small.splitlines() if '| mine |' in line)
  assert mine.startswith('| ours | mine |  |  | 47.5')
  # One seed has no deviation.
  assert '| 10.0 | 10.0 | 10.0 | 2.0 | 1 |' in large and '| ours | mine |' in large


def test_a_page_says_what_the_figures_of_a_scale_should_not_be_mistaken_for():
  lines = _lines(_cells('1'), [0.5, 0.9, 0.7, 1.0])
  lines += _lines(_cells('1', scale='paper', seeds=1), [0.1, 0.2])
  form = tables.TRIPLETS._replace(notes={'cpu': 'Of few images.'})
  small, large = tables.markdown('First', lines, form).split('## Scale: paper')
  assert 'Of few images. Images of 48 pixels' in small and 'few' not in large
  form = tables.form_of(affinity, '3')
  assert '8,000 train' in form.notes['cpu'] and 'JPEG' in form.notes['jpeg']
  assert 'paper' not in form.notes


def test_rows_are_held_against_others_seed_by_seed():
  form = tables.Form(columns={'accuracy': ('test/accuracy', 100)}, about='In percent.')

  def line(order, seed, accuracy):
    row = {'order': order, 'recipe': 'r', 'row': {'loss': 'ab'[order]}, 'part': ''}
    row |= {'published': {'accuracy': (91.3, None)}} if order else {'published': {}}
    row |= {'against': {'loss': 'a'}} if order else {}
    scores = {'test': {'accuracy': accuracy}}
    return {'rows': [row], 'seed': seed, 'scores': scores, 'config': {'loss': order}}

  lines = [line(0, 0, 0.5), line(0, 1, 0.7), line(0, 2, 0.6), line(0, 3, 0.1)]
  lines += [line(1, 2, 0.63), line(1, 0, 0.51), line(1, 1, 0.72)]
  base, other = tables.summarize(lines, form)
  assert 'gain' not in base and base['n'] == 4
  # Differences of 1, 2 and 3 percent; Student's t of two degrees of freedom is 4.303.
  np.testing.assert_allclose(other['gain'], (2, 4.303 / 3**0.5, 3), rtol=1e-3)
  head, first, second = tables.as_text([base, other], form)
  assert head == [
    'recipe',
    'loss',
    'paper: accuracy',
    'accuracy',
    'gain in accuracy',
    'n',
  ]
  assert first[2] == first[4] == '' and second[2] == '91.3'
  assert second[4] == '+2.00 [-0.48, +4.48] (3 pairs)'
  seeds = tables.Form(columns={'seed': ('/seed', 2)}, about='')
  assert tables.summarize(lines[1:2], seeds)[0]['scores'] == {'seed': (2, 0)}
  speed = tables.Form(columns={'speed': ('/speed', 1)}, about='')
  told = [lines[0], lines[1] | {'speed': 4.0}, lines[4]]
  table = tables.as_text(tables.summarize(told, speed), speed)
  assert [row[-2] for row in table[1:]] == ['4.0 ± 0.0', '']
  *_, alone = tables.summarize([lines[1], lines[-1]], form)
  assert alone['gain'] == (pytest.approx(2), None, 1)


def _rows(*names, **changes):
  """A module with one table of these rows, each of a capacity of its own."""

  def sweep(name):
    for recipe, text, capacity in names:
      row = {'recipe': recipe, 'row': {'method': text}, 'published': {}, 'part': ''}
      yield row | {'overrides': {'method.capacity': capacity}}

  return types.SimpleNamespace(
    **vars(MODULE) | {'sweep': sweep, 'TABLES': {'1': 'First'}} | changes
  )


def _record(module, folder, seeds=2):
  """What `cells.run_missing` runs of a module's table, and its rows then."""
  seen = []

  def train(config, workdir):
    seen.append(config.method.capacity)
    return _results(config, config.method.capacity / 100)

  output = folder / 'table_1.jsonl'
  found = tables.cells_of(module, '1', scale='cpu', seeds=seeds)
  cells.run_missing(found, folder, output, train=train, say=lambda text: None)
  settings = tables.settings_of(module, '1', scale='cpu')
  rows = tables.summarize(tables.read(output), settings=settings)
  return seen, [
    (*r['row'].values(), r['n'], round(r['scores']['F1 5 %'][0])) for r in rows
  ]


def test_recipes_of_one_config_are_run_once_and_have_their_rows(tmp_path):
  config = lambda variant: _config(f'ours,{variant.split(",")[1]}')  # noqa: E731
  module = _rows(('paper', 'a', 5), ('ours', 'b', 5), get_config=config)
  seen, rows = _record(module, tmp_path)
  assert seen == [5, 5]
  assert rows == [('a', 2, 5), ('b', 2, 5)]
  (cell,) = tables.cells_of(module, '1', scale='cpu', seeds=1, recipes=['ours'])
  assert len(cell.label['rows']) == 2  # The same cell, by the same name.
  assert cell.name.startswith('paper_cpu')


def test_rows_may_come_between_others_be_renamed_and_change_their_setting(tmp_path):
  _record(_rows(('ours', 'a', 5), ('ours', 'b', 6)), tmp_path)
  seen, rows = _record(
    _rows(('ours', 'a', 5), ('ours', 'between', 7), ('ours', 'c', 6)), tmp_path
  )
  assert seen == [7, 7]
  assert rows == [('a', 2, 5), ('between', 2, 7), ('c', 2, 6)]
  seen, rows = _record(_rows(('ours', 'a', 8), ('ours', 'c', 6)), tmp_path, seeds=1)
  assert seen == [8]
  assert ('a', 1, 8) in rows and ('c', 2, 6) in rows


def test_rows_that_take_back_their_names_have_their_own_numbers(tmp_path):
  first, second = ('ours', 'a', 5), ('ours', 'b', 6)
  swapped = ('ours', 'b', 5), ('ours', 'a', 6)
  assert _record(_rows(first, second), tmp_path)[1] == [('a', 2, 5), ('b', 2, 6)]
  assert _record(_rows(*swapped), tmp_path) == ([], [('b', 2, 5), ('a', 2, 6)])
  for _ in range(2):
    found = _record(_rows(first, second), tmp_path)
    assert found == ([], [('a', 2, 5), ('b', 2, 6)])
  assert len(cells.read(tmp_path / 'table_1.jsonl')) == 3 * 4


def test_a_row_that_takes_back_its_setting_has_its_lines_back(tmp_path):
  _record(_rows(('ours', 'a', 5)), tmp_path)
  assert _record(_rows(('ours', 'a', 8)), tmp_path, seeds=1) == ([8], [('a', 1, 8)])
  assert _record(_rows(('ours', 'a', 5)), tmp_path) == ([], [('a', 2, 5)])
  # A setting without a line yet, and a scale that is no more: what was run last.
  lines = tables.read(tmp_path / 'table_1.jsonl')
  for module in (_rows(('ours', 'a', 6)), _rows(('ours', 'a', 5), SCALES=())):
    settings = tables.settings_of(module, '1', scale='cpu')
    assert [row['n'] for row in tables.summarize(lines, settings=settings)] == [1]


def test_time_is_estimated_from_the_same_row_or_else_the_same_recipe():
  first = _cells('1', seeds=1)
  lines = _lines(first, [0.5, 0.9])  # 90 s for 80 and 40 images.
  assert tables.estimate(first[0], lines) == pytest.approx(90)
  other = _cells('2', seeds=1)[1]
  assert tables.estimate(other, lines) == pytest.approx(90)
  assert tables.estimate(_cells('1', scale='paper')[0], lines) is None
  said = []
  tables.list_cells([*_cells('1', seeds=1), other], lines, say=said.append)
  assert said[0].endswith('theirs  done') and said[2].endswith('to do, 1.5 min')
  assert said[3].startswith('3 cells; 0.0 h to do')


def test_the_command_runs_what_is_missing_and_draws_it(tmp_path, monkeypatch, capsys):
  seen = []

  def train(config, workdir):
    seen.append(workdir)
    if len(seen) == 3:
      return {'interrupted': 15, 'step': 1}
    return _results(config, 0.5)

  monkeypatch.setattr(tables, 'load', lambda paper: MODULE)
  monkeypatch.setattr(loop, 'train', train)
  monkeypatch.setattr(parallel, 'use_cores', lambda *args: None)
  monkeypatch.setattr(tables, '_keep_compiled', lambda workdir: None)

  def run(*arguments):
    folders = [f'--workdir={tmp_path / "runs"}', f'--output={tmp_path / "results"}']
    with flagsaver.flagsaver():
      options = ['--paper=toy', '--scale=cpu', *folders, *arguments]
      flags.FLAGS(['tables', *options])
      return tables.run(['tables'])

  for name in ('workdir', 'output'):
    with pytest.raises(ValueError, match=f'^--{name} must not be empty.$'):
      run('--table=1', '--seeds=2', '--dry_run', f'--{name}=')
  assert run('--table=1', '--seeds=2', '--dry_run') == 0
  assert '4 cells; 0.0 h to do on one such machine, and 4' in capsys.readouterr().out
  assert run('--table=1', '--seeds=2', '--nodry_run') == 128 + 15
  assert len(seen) == 3
  assert run('--table=all', '--seeds=2') == 0
  # Two cells of table 1, and of table 2 the one setting that table 1 does not have.
  assert len(seen) == 3 + 2 + 2 and seen[2] == seen[3]
  folder = tmp_path / 'results' / 'toy'
  assert len(cells.read(folder / 'table_1.jsonl')) == 4
  assert '| 50.0 ± 0.0 |' in (folder / 'table_2.md').read_text()
  picture = Image.open(folder / 'table_1_cpu.png')
  assert picture.width > 400 and np.asarray(picture).std() > 10


def test_the_devices_divide_the_batches_of_all_cells(monkeypatch):
  def sweep(name):
    for row, size in zip(_sweep(name), (24, 32), strict=True):
      yield row | {'overrides': {'batch_size': size}}

  module = types.SimpleNamespace(**vars(MODULE) | {'sweep': sweep})
  monkeypatch.setattr(tables, 'load', lambda paper: module)
  monkeypatch.setattr(tables.processes, 'run', lambda values, size, work: size)
  with flagsaver.flagsaver():
    flags.FLAGS(['tables', '--paper=toy', '--table=2', '--nodry_run'])
    assert tables.run(['tables']) == 8


def test_seeds_at_once_share_their_time():
  lines = _lines(_cells('1'), 4 * [0.5])  # 90 s each.
  shared = [line | {'seeds_at_once': 2} for line in lines]
  assert '1.0 hours' in tables.markdown('First', 10 * lines)
  assert '0.5 hours' in tables.markdown('First', 10 * shared)
  assert tables.estimate(_cells('1')[0], shared) == pytest.approx(45)


@pytest.mark.parametrize('alone, expected', [(True, [1, 1]), (False, [2])])
def test_runs_that_are_timed_are_alone(tmp_path, monkeypatch, alone, expected):
  form = dict(columns={'s': ('/wall_clock/total_seconds', 1)}, about='', alone=alone)
  module = types.SimpleNamespace(**vars(MODULE) | {'FORMS': {'1': form}})
  sizes = []

  def train_seeds(configs, workdirs):
    sizes.append(len(configs))
    return [_results(config, 0.5) | {'seeds_at_once': 2} for config in configs]

  def train(config, workdir):
    return train_seeds([config], [workdir])[0]

  monkeypatch.setattr(loop, 'train', train)
  monkeypatch.setattr(loop, 'train_seeds', train_seeds)
  monkeypatch.setattr(tables, '_keep_compiled', lambda workdir: None)
  wanted = {'1': _cells('1', recipes=['ours'])}
  paths = {'1': tmp_path / 'table_1.jsonl'}
  with flagsaver.flagsaver():
    arguments = ['--paper=toy', f'--workdir={tmp_path}', '--seeds_at_once=2']
    flags.FLAGS(['tables', *arguments])
    assert tables._run_tables(module, wanted, paths, tmp_path) == 0
  assert sizes == expected


def test_a_failure_is_told_before_the_cells_of_others(tmp_path, monkeypatch):
  tallies = iter(
    [cells.Tally(0, [], {'a': 'no'}, None), cells.Tally(0, ['b'], {}, None)]
  )
  monkeypatch.setattr(tables.cells, 'run_missing', lambda *a, **o: next(tallies))
  monkeypatch.setattr(tables, '_keep_compiled', lambda workdir: None)
  monkeypatch.setattr(tables, 'draw', lambda *arguments: None)
  wanted = {'1': _cells('1'), '2': _cells('1')}
  module = types.SimpleNamespace(**vars(MODULE) | {'FORMS': {}})
  with flagsaver.flagsaver():
    flags.FLAGS(['tables', '--paper=toy', f'--workdir={tmp_path}'])
    assert tables._run_tables(module, wanted, dict.fromkeys(wanted), tmp_path) == 1


def test_how_many_seeds_at_once():
  assert tables.seeds_at_once('4', 10) == 4
  assert tables.seeds_at_once('auto', 10) == tables.seeds_at_once('0', 10) == 1
  for text in ('many', '-1', '1.5'):
    with pytest.raises(ValueError, match='must be a number or auto'):
      tables.seeds_at_once(text, 10)


def test_seeds_that_do_not_fit_into_memory_are_run_fewer_at_a_time(monkeypatch):
  sizes = []

  def train_seeds(configs, workdirs):
    sizes.append(len(configs))
    if len(configs) > 2:
      raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory')
    return [{'of': workdir} for workdir in workdirs]

  monkeypatch.setattr(loop, 'train_seeds', train_seeds)
  found = tables.train_seeds(list(range(5)), list('abcde'))
  assert [r['of'] for r in found] == list('abcde')
  assert sizes == [5, 2, 3, 1, 2]


@pytest.mark.parametrize(
  'paper, message', [('origami', 'no configs/origami'), ('simple_shapes', 'no tables')]
)
def test_a_paper_without_tables_is_refused(paper, message):
  with pytest.raises(ValueError, match=message):
    tables.load(paper)
