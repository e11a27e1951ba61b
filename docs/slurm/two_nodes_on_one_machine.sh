#!/usr/bin/env bash
# Two nodes of one process each, on one machine: what a cluster does, tried without one.
#
#     bash docs/slurm/two_nodes_on_one_machine.sh RECIPE [OPTIONS of g2sd run ...]
#
# On real machines, run the same line on each of them with its own --node-rank, the first one's name in place of 127.0.0.1, and an --out that all of them mount.
set -euo pipefail
port=${MASTER_PORT:-$((20000 + RANDOM % 20000))}

node() {
    torchrun --nnodes 2 --node-rank "$1" --nproc-per-node 1 --master-addr 127.0.0.1 --master-port "$port" -m g2sd_deploy run "${@:2}"
}

node 1 "$@" &
other=$!
trap 'kill "$other" 2>/dev/null || true' EXIT
node 0 "$@"
wait "$other"
