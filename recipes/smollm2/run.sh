#!/usr/bin/env bash
# Heal a layer-pruned SmolLM2 for 100 steps, then measure and export it.
set -euo pipefail
run=${1:-runs/smollm2-100}

if [ -d "$run/checkpoints" ]; then
  opd train --resume run="$run"
else
  opd train conf=smollm2 run="$run" steps=100 sampling.max_tokens=96 eval.every=25
fi
opd eval run="$run"
opd export run="$run"
