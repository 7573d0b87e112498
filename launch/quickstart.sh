#!/usr/bin/env bash
# From nothing to a graph file: bash launch/quickstart.sh
# Sets up an environment, trains without labels on drawings of lines, triangles and
# rectangles (minutes on two cores), scores the result on fresh ones, and turns
# a drawing into graph files. A second run skips what stands; a killed one goes on.
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/setup.sh
set_up train

run=quickstart/run
prediction=quickstart/prediction
drawing=examples/rectangle.png

if [ -f "$run/results.json" ] && [ -f "$run/weights.npz" ]; then
  echo "$run is trained already (remove it to train again)."
else
  echo "Training without labels in $run ..."
  "$VENV/bin/python" -m launch.main \
    --config=configs/simple_shapes.py:quick --workdir="$run"
fi

echo "Turning $drawing into a graph ..."
"$VENV/bin/python" -m img2graph.cli predict "$drawing" \
  --weights="$run/weights.npz" --output="$prediction" --format=json,svg

"$VENV/bin/python" - "$run" "$prediction/rectangle.json" "$VENV/bin/img2graph" <<'END'
import json
import pathlib
import sys

run, graph, command = map(pathlib.Path, sys.argv[1:])
at = json.loads((run / 'results.json').read_text())['scores']['at']['0.05']
found = json.loads(graph.read_text())
panels = sorted((run / 'panels').glob('*.png'))
print(f"""
Trained without one label. On fresh drawings, within 5 % of the side:
  F1 of edges       {100 * at['edge_lenient']['micro']['f1']:.2f} %
  exact graphs      {100 * at['exact']:.2f} %
Found in the drawing: {len(found['nodes'])} nodes, {len(found['edges'])} edges.

Where to look:
  the graph         {graph}
  as a picture      {graph.with_suffix('.svg')}
  over the drawing  {graph.with_name(graph.stem + '_overlay.png')}
  training          {panels[-1] if panels else run}
  all scores        {run / 'results.json'}
  the weights       {run / 'weights.npz'}

Your own drawing:
  {command} predict drawing.png --output=graphs
Weights that know more than three shapes come with the package and are the default.""")
END
