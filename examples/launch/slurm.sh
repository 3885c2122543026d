#!/bin/bash
# One run on two nodes of four GPUs each, a task for each GPU:
#
#     sbatch examples/launch/slurm.sh --config=configs/cifar10_resnet18.py --workdir=DIR
#
# Slurm says to each task who the others are. DIR is on a disk that all nodes see.
#SBATCH --job-name=jaxvision
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log

srun --kill-on-bad-exit=1 jaxvision train "$@"
code=$?
# 4: stopped by the signal before the time is over, and saved. The same job goes on.
if [ "$code" = 4 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$code"
