#!/bin/sh
# Install what the browser tests need, as far as this machine allows; the tests that lack something say so and skip.
cd "$(dirname "$0")/.." || exit 0
.venv/bin/pip install --quiet --constraint .ci/constraints.txt --editable '.[browser]' || echo "playwright: not installed"
if ! command -v chromium chromium-browser google-chrome >/dev/null && [ "$(id -u)" = 0 ]; then
  { apt-get update --quiet=2 && apt-get install --yes --quiet=2 --no-install-recommends chromium; } ||
    echo "chromium: not installed"
fi
if [ ! -e .venv/axe-core/axe.min.js ] && command -v npm >/dev/null; then
  mkdir -p .venv/axe-core
  npm pack --silent --pack-destination .venv/axe-core axe-core@4 >/dev/null &&
    tar --extract --gzip --file .venv/axe-core/axe-core-4*.tgz --directory .venv/axe-core --strip-components 1 \
      package/axe.min.js || echo "axe-core: not installed"
fi
exit 0
