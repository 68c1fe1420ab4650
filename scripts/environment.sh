# Sourced by the scripts beside it: moves to the repository root and puts the environment's programs first on PATH.
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." >/dev/null

if [[ -z "${VIRTUAL_ENV:-}" ]]; then
  if [[ ! -x .venv/bin/python ]]; then
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
      echo "hubmerge needs Python 3.11 or later; python3 is $(python3 --version 2>&1)" >&2
      exit 1
    }
    python3 -m venv .venv
  fi
  export VIRTUAL_ENV="$PWD/.venv"
fi
export PATH="$VIRTUAL_ENV/bin:$PATH"
