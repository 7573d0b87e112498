import io
import json
import math
import pathlib

import numpy as np
import pytest

from img2graph.training import logging


class Terminal(io.StringIO):
  def isatty(self):
    return True


def rows(workdir):
  lines = (pathlib.Path(workdir) / 'metrics.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


def test_progress_is_plain_lines_in_a_file_and_one_line_on_a_terminal():
  plain, terminal = io.StringIO(), Terminal()
  for stream in (plain, terminal):
    console = logging.Console(out=stream, err=io.StringIO())
    console.progress('step 1', 0.5)
    console.progress('step 2', 1.0)
    console.say('done')
  assert plain.getvalue() == 'step 1\nstep 2\ndone\n'
  shown = terminal.getvalue()
  assert shown.count('\n') == 2 and shown.count('\r') == 2
  assert '[============            ] step 1' in shown


def test_warnings_go_to_standard_error_and_other_processes_are_silent():
  out, err = io.StringIO(), io.StringIO()
  logging.Console(out=out, err=err).warn('look')
  assert (out.getvalue(), err.getvalue()) == ('', 'look\n')
  silent = logging.Console(active=False, out=out, err=err)
  silent.say('a')
  silent.warn('b')
  silent.progress('c')
  assert (out.getvalue(), err.getvalue()) == ('', 'look\n')


def test_speed_counts_steps_images_and_time_left_without_pauses():
  now = [100.0]
  speed = logging.Speed(
    start_step=10, train_steps=110, batch_size=8, clock=lambda: now[0]
  )
  now[0] += 4
  with speed.pause():
    now[0] += 1000
  line = speed.line(30, {'loss': 0.125})
  assert line == 'step 30/110   27%  loss 0.125  5.00 steps/s  40.0 images/s  0:16 left'
  assert speed.seconds == 4
  now[0] += 1
  # The last line's rate is its own; the time left is from the whole.
  assert '20.0 steps/s  160 images/s  0:08 left' in speed.line(50, {'loss': 1.0})


def test_seconds_are_shown_as_clock_time():
  assert logging.format_seconds(59.6) == '1:00'
  assert logging.format_seconds(3723) == '1:02:03'


def test_nested_scores_become_names():
  scores = {'f1': {'5': 0.5, 'macro': np.float32(0.25)}, 'n': 3, 'note': 'text'}
  assert logging.flatten_scores(scores, 'eval/') == {
    'eval/f1/5': 0.5,
    'eval/f1/macro': 0.25,
    'eval/n': 3.0,
  }


def test_a_resumed_file_drops_later_steps_and_a_line_cut_short(tmp_path):
  file = logging.MetricsFile(tmp_path)
  for step in (2, 4, 6):
    file.write(step, {'loss': step / 10})
  file.write(4, {'eval/f1': 1.0})
  file.close()
  with open(tmp_path / 'metrics.jsonl', 'a') as raw:
    raw.write('{"step": 4, "lo')
  file = logging.MetricsFile(tmp_path, start_step=4)
  assert file.has(4, 'eval/') and not file.has(2, 'eval/') and not file.has(6, 'l')
  file.write(6, {'loss': math.nan})
  file.close()
  assert rows(tmp_path) == [
    {'step': 2, 'loss': 0.2},
    {'step': 4, 'loss': 0.4},
    {'step': 4, 'eval/f1': 1.0},
    {'step': 6, 'loss': None},
  ]


def test_processes_that_do_not_write_leave_the_file_alone(tmp_path):
  file = logging.MetricsFile(tmp_path, active=False)
  file.write(1, {'loss': 1.0})
  file.image(1, 'panel', np.zeros((2, 2, 3), np.uint8))
  file.close()
  assert not list(tmp_path.iterdir())


def test_tensorboard_events_can_be_read_back(tmp_path):
  pytest.importorskip('tensorboardX')
  from tensorboardX import proto

  file = logging.MetricsFile(tmp_path, start_step=4)
  file.write(6, {'loss': 0.5})
  file.image(6, 'panel', np.zeros((4, 5, 3), np.uint8))
  file.close()
  (path,) = (tmp_path / 'tensorboard').iterdir()
  data, events = path.read_bytes(), []
  while data:  # A record: length, its checksum, the event, its checksum.
    length = int.from_bytes(data[:8], 'little')
    events.append(proto.event_pb2.Event.FromString(data[12 : 12 + length]))
    data = data[16 + length :]
  start = [e for e in events if e.HasField('session_log')]
  assert [e.step for e in start] == [5]
  values = {v.tag: v for e in events for v in e.summary.value}
  assert values['loss'].simple_value == 0.5
  assert (values['panel'].image.height, values['panel'].image.width) == (4, 5)
