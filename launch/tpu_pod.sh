#!/usr/bin/env bash
# Runs a command on every host of a Cloud TPU slice, in the folder of this repository:
#   bash launch/tpu_pod.sh COMMAND...
#
# Change these, or set them in the environment:
: "${TPU:=img2graph}"       # name of the slice
: "${ZONE:=us-central2-b}"  # its zone
: "${FOLDER:=img2graph}"    # the repository there, in the home folder
#
# Once, to copy the repository and to install it:
#   git archive --output=/tmp/img2graph.tgz HEAD
#   gcloud compute tpus tpu-vm scp /tmp/img2graph.tgz "$TPU": --zone="$ZONE" --worker=all
#   FOLDER=. bash launch/tpu_pod.sh bash -c \
#     'mkdir -p img2graph && tar -xzf img2graph.tgz -C img2graph'
#   bash launch/tpu_pod.sh bash -c \
#     'python3 -m venv .venv && .venv/bin/pip install -c constraints.txt -e ".[train,tpu]"'
# Then train; jax finds the other hosts. DIR must lie in a folder that all hosts share,
# for example a mounted Filestore or bucket:
#   bash launch/tpu_pod.sh .venv/bin/python -m launch.main --distributed \
#     --config=configs/simple_shapes.py --workdir=DIR
# or, for the table of a paper, every cell on the whole slice:
#   bash launch/tpu_pod.sh .venv/bin/python -m launch.tables --distributed \
#     --paper=image_graph_image --table=1 --scale=paper --workdir=DIR --output=DIR/results
# The same command goes on after a host was lost or preempted. To stop and save:
#   bash launch/tpu_pod.sh pkill -TERM -f '^[^ ]*python[^ ]* -m launch[.]'
set -euo pipefail
if [ $# = 0 ]; then
  echo 'Name the command for the hosts: bash launch/tpu_pod.sh COMMAND...' >&2
  exit 2
fi
exec gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all \
  --command="cd $(printf %q "$FOLDER") && $(printf '%q ' "$@")"
