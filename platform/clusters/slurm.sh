#!/usr/bin/env bash
# A Ray cluster inside one Slurm allocation, and a command of cider-platform on it:
#
#   sbatch platform/clusters/slurm.sh doctor --address auto
#
# Needed: this checkout and a virtual environment made from it on a file system that every node
# sees, and a token there (ray get-auth-token --generate, then chmod 600). Nothing listens beyond
# the allocation's own network, and every port needs the token.
#
# Edit the lines with EDIT_ME, then: cider-platform cluster check platform/clusters/slurm.sh

#SBATCH --job-name=cider
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --gpus-per-node=4
#SBATCH --time=24:00:00
#SBATCH --output=cider-%j.log
# A job that is preempted or runs out of time is queued again and continues from its checkpoints.
#SBATCH --requeue
#SBATCH --signal=B:TERM@120

set -euo pipefail

# The environment, and one folder for results and features, on a file system that every node mounts.
export PATH=/EDIT_ME_SHARED/cider-venv/bin:$PATH
export CIDER_RESULTS=/EDIT_ME_SHARED/cider/results CIDER_STORE=/EDIT_ME_SHARED/cider/store
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}
export RAY_USAGE_STATS_ENABLED=0 RAY_JOB_START_TIMEOUT_SECONDS=604800

if [ $# -eq 0 ]; then
  echo "give the command to run: sbatch $0 doctor --address auto" >&2
  exit 2
fi
if [ ! -s "$RAY_AUTH_TOKEN_PATH" ]; then
  echo "no token in $RAY_AUTH_TOKEN_PATH: make one with ray get-auth-token --generate" >&2
  exit 2
fi

# The batch script runs on the first node, which becomes the head.
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
read -r head_ip _ < <(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname -I)
export RAY_ADDRESS=$head_ip:6379

steps=()
finish() {
  # srun ends what it started on the nodes; nobody else's Ray is touched.
  if [ ${#steps[@]} -gt 0 ]; then kill "${steps[@]}" 2> /dev/null || true; fi
  wait
}
trap finish EXIT
# Slurm's warning, two minutes before the end: the command below is told first, and saves its state.
trap 'kill -TERM "${work:-$$}" 2> /dev/null || true' TERM

srun --nodes=1 --ntasks=1 --nodelist="$head" --overlap \
  ray start --head --node-ip-address="$head_ip" --port=6379 --dashboard-host=127.0.0.1 --block &
steps+=($!)
for attempt in $(seq 60); do
  if ray health-check --address "$RAY_ADDRESS" > /dev/null 2>&1; then break; fi
  if [ "$attempt" -eq 60 ]; then echo "Ray did not start on $head" >&2; exit 1; fi
  sleep 1
done
if [ ${#nodes[@]} -gt 1 ]; then
  srun --nodes=$((${#nodes[@]} - 1)) --ntasks=$((${#nodes[@]} - 1)) --exclude="$head" --overlap \
    ray start --address="$RAY_ADDRESS" --block &
  steps+=($!)
fi

# A node that lacks the corpus, the versions or its GPUs is found before the hours are spent.
cider-platform doctor --address auto --nodes "${#nodes[@]}"

cider-platform "$@" &
work=$!
status=0
wait "$work" || status=$?
exit "$status"
