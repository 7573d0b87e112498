import jax
import numpy as np
import pytest

from img2graph.data import drawing


def ink_of(start, end, slope0=0.0, slope1=0.0, *, width=3.0, side=40, **options):
  options = dict(gap_at=0.5, gap_half_px=-1.0) | options
  gap_at, gap_half = (np.array([options[k]]) for k in ('gap_at', 'gap_half_px'))
  y, x = np.mgrid[:side, :side].astype(np.float32) + 0.5
  return np.asarray(
    jax.jit(drawing.curves_ink)(
      np.array([start], np.float32),
      np.array([end], np.float32),
      np.array([slope0]),
      np.array([slope1]),
      np.array([width]),
      np.ones(1),
      gap_at=gap_at,
      gap_half_px=gap_half,
      aliased=False,
      x=x,
      y=y,
    )
  )


def sampled_ink(curve, *, width=3.0, side=40):
  """Ink of a curve `[T, 2]` by the distance to dense samples."""
  rows, columns = np.mgrid[:side, :side] + 0.5
  pixels = np.stack([columns, rows], axis=-1).reshape(-1, 1, 2)
  far = np.linalg.norm(pixels - curve[None], axis=-1).min(axis=1).reshape(side, side)
  return np.clip(width / 2 + 0.5 - far, 0, 1)


@pytest.mark.parametrize('slopes', [(0, 0), (0.3, -0.3), (-0.4, 0.4), (0.5, 0.5)])
def test_curves_agree_with_dense_samples_of_the_cubic(slopes):
  start, end = np.array([6.0, 10.0]), np.array([33.0, 26.0])
  t = np.linspace(0, 1, 800)[:, None]
  edge = end - start
  normal = np.array([-edge[1], edge[0]])
  sideways = slopes[0] * t * (1 - t) ** 2 - slopes[1] * t**2 * (1 - t)
  curve = start + t * edge + sideways * normal
  difference = np.abs(ink_of(start, end, *slopes) - sampled_ink(curve))
  assert difference.max() < (0.35 if any(slopes) else 0.03)
  assert difference.mean() < 0.006


def test_straight_curves_equal_the_distance_field():
  start, end = np.array([[5.0, 7.0]]), np.array([[30.0, 21.0]])
  far = jax.jit(lambda a, b: drawing.distance(a, b, height=40, width=40))(start, end)
  expected = drawing.line_ink(far, 3.0, False)
  np.testing.assert_allclose(ink_of(start[0], end[0]), expected, atol=1e-4)


def test_a_gap_has_no_ink():
  ink = ink_of((5.0, 20.5), (35.0, 20.5), gap_at=0.5, gap_half_px=2.0)
  assert ink[20, 10] == 1 and ink[20, 30] == 1
  assert not ink[:, 18:22].any()


def test_dashes_have_their_period_and_share():
  start, end = np.array([[4.0, 8]]), np.array([[60.0, 8]])
  y, x = np.mgrid[:16, :64] + 0.5
  one = np.ones(1)
  ink = jax.jit(drawing.curves_ink)(
    start,
    end,
    0 * one,
    0 * one,
    2 * one,
    one,
    gap_at=0 * one,
    gap_half_px=-one,
    dash_px=8 * one,
    dash_share=0.5,
    aliased=True,
    x=x,
    y=y,
  )
  row = np.asarray(ink)[8, 4:60]
  assert row.reshape(-1, 8).sum(axis=1).tolist() == [4] * 7
  np.testing.assert_array_equal(row[:-8], row[8:])
