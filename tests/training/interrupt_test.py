import os
import signal
import threading

import jax
import pytest

from img2graph.training import interrupt


def test_sigterm_is_noted_and_the_handlers_come_back():
  before = signal.getsignal(signal.SIGTERM)
  with interrupt.StopSignal() as stop:
    assert not stop.requested
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.requested and stop.signum == signal.SIGTERM
  assert signal.getsignal(signal.SIGTERM) is before


def test_the_second_ctrl_c_interrupts_as_usual():
  # In the background of a shell it is ignored.
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  try:
    with pytest.raises(KeyboardInterrupt):
      with interrupt.StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested
        os.kill(os.getpid(), signal.SIGINT)
  finally:
    signal.signal(signal.SIGINT, before)


def test_what_may_be_cut_short_is_left_at_once():
  reached = []
  with interrupt.StopSignal() as stop:
    with pytest.raises(interrupt.Interrupted):
      with stop.at_once():
        os.kill(os.getpid(), signal.SIGTERM)
        reached.append('after the signal')
    with pytest.raises(interrupt.Interrupted):
      with stop.at_once():
        reached.append('after the request')
  assert not reached


def test_what_does_several_runs_is_told_what_a_run_is_told():
  before = signal.getsignal(signal.SIGTERM)
  with interrupt.StopSignal() as stop:
    with interrupt.StopSignal() as first:
      assert not first.requested
      os.kill(os.getpid(), signal.SIGTERM)
      assert first.requested
    assert stop.signum == signal.SIGTERM
    with interrupt.StopSignal() as second:
      assert second.signum == signal.SIGTERM
  assert signal.getsignal(signal.SIGTERM) is before


def test_the_second_ctrl_c_interrupts_runs_within_runs():
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  try:
    with pytest.raises(KeyboardInterrupt):
      with interrupt.StopSignal() as stop, interrupt.StopSignal():
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.signum == signal.SIGINT
        os.kill(os.getpid(), signal.SIGINT)
  finally:
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_is_a_sigterm_to_jax_where_processes_are_joined(monkeypatch):
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  told = []
  before = {
    signal.SIGTERM: signal.signal(
      signal.SIGTERM, lambda signum, frame: told.append(signum)
    ),
    signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
  }
  try:
    with pytest.raises(KeyboardInterrupt):
      with interrupt.StopSignal(), interrupt.StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert not stop.requested
        with stop.at_once():  # The others would go on.
          told.append('went on')
        os.kill(os.getpid(), signal.SIGINT)
        told.append('a second Ctrl-C did nothing')
  finally:
    for signum, handler in before.items():
      signal.signal(signum, handler)
  assert told == [signal.SIGTERM, 'went on']


def test_in_another_thread_nothing_is_caught():
  before = signal.getsignal(signal.SIGTERM)
  found = []

  def enter():
    with interrupt.StopSignal():
      found.append(signal.getsignal(signal.SIGTERM))

  thread = threading.Thread(target=enter)
  thread.start()
  thread.join()
  assert found == [before]
