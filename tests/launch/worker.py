"""A worker for tests/launch/cells_test.py.

python worker.py WORKDIR SEEDS SECONDS [COORDINATOR PROCESSES PROCESS]
"""

import json
import os
import pathlib
import sys
import time

import ml_collections

from img2graph.training import parallel
from img2graph.training import record
from launch import cells


def make_cells(seeds):
  config = ml_collections.ConfigDict({'seed': 0, 'lr': 0.1})
  return [
    cells.Cell(f'seed_{i}', cells.override(config, {'seed': i}), {'table': 'a'})
    for i in range(seeds)
  ]


def train_slowly(seconds, config, workdir):
  """Counts to ten in a file, from where the file is, like a run with checkpoints."""
  folder = pathlib.Path(workdir)
  folder.mkdir(parents=True, exist_ok=True)
  count = folder / 'count'
  with open(folder / 'workers', 'a') as file:
    file.write(f'{os.getpid()}\n')
  while (done := int(count.read_text()) if count.exists() else 0) < 10:
    time.sleep(seconds / 10)
    (folder / 'next').write_text(str(done + 1))
    (folder / 'next').rename(count)
  plain = cells.plain(config)
  return {'config': plain, 'config_hash': record.config_hash(plain)}


def main(workdir, seeds, seconds, coordinator=None, processes=None, process=None):
  workdir = pathlib.Path(workdir)
  part = ''
  if coordinator:
    parallel.initialize(
      coordinator=coordinator, num_processes=int(processes), process_id=int(process)
    )
    part = f'part_{process}'
  tally = cells.run_missing(
    make_cells(int(seeds)),
    workdir,
    workdir / 'out.jsonl',
    train=lambda config, folder: train_slowly(
      float(seconds), config, pathlib.Path(folder) / part
    ),
    wait=True,
  )
  print(json.dumps(tally._asdict()))


if __name__ == '__main__':
  main(*sys.argv[1:])
