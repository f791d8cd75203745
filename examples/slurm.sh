#!/bin/bash
# Labels an archive as a job array, one share of its tiles a task.
#
#   job=$(sbatch --parsable examples/slurm.sh TILES OUT --model vit_h)
#   sbatch --dependency="afterok:$job" --cpus-per-task=8 --mem=32G \
#       --wrap "alps label TILES OUT --model vit_h"
#
# The second job cuts, clusters and paints when all shares are segmented. OUT must lie where every
# node sees it. One share alone again: SHARES=16 sbatch --array=3 examples/slurm.sh TILES OUT ...

#SBATCH --job-name=alps
#SBATCH --array=1-16
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=12:00:00
#SBATCH --output=alps-%A_%a.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@180

set -euo pipefail

tiles=${1:?first the tiles, then OUT}
out=${2:?first the tiles, then OUT}
shift 2
share=$SLURM_ARRAY_TASK_ID/${SHARES:-$SLURM_ARRAY_TASK_COUNT}

# Bash acts on a signal when the command in the foreground is over: so alps runs in the background.
alps segment "$tiles" "$out" --shard "$share" "$@" &
alps=$!

# Let alps end in order; what it has done stays.
end() {
    kill -TERM "$alps" 2>/dev/null || true
    wait "$alps" || true
}

# Three minutes before the time is up: once more from the queue, where it goes on.
again() {
    end
    scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
    exit 0
}

# Cancelled, or the node is wanted back: then Slurm itself queues it again (--requeue).
stop() {
    end
    exit 143
}

trap again USR1
trap stop TERM INT
wait "$alps"
