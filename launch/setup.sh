# Sourced by the scripts beside it: `set_up EXTRA...` makes the virtual environment,
# installs img2graph with those extras, and sets VENV. What stands already is skipped.
#
# PYTHON names the interpreter (default: the first fit one that is found), and
# IMG2GRAPH_VENV the environment's folder (default: .venv).
#
# The file $VENV/img2graph.setup holds one line, "OWNER STATE WHAT EXTRA...", so that a
# killed set-up is mended. STATE is `making` or `installing`, and WHAT the process at it;
# or STATE is `ready`, and WHAT a hash of what was installed. OWNER is `made` when the
# environment is ours, which we may make anew, or `adopted` when it was here before us.

fail() {  # fail STATUS SENTENCE
  echo "$2" >&2
  exit "$1"
}

fits() {  # fits PYTHON: is it a supported version that can make environments?
  "$1" -c 'import sys; assert (3, 11) <= sys.version_info[:2] <= (3, 12)
import ensurepip, venv' >/dev/null 2>&1
}

find_python() {  # Prints the interpreter to use.
  local candidate pyenv="${PYENV_ROOT:-${HOME:-}/.pyenv}/versions"
  if [ -n "${PYTHON:-}" ]; then
    fits "$PYTHON" || fail 2 "PYTHON=$PYTHON is not a Python 3.11 or 3.12 with venv."
    echo "$PYTHON"
    return
  fi
  for candidate in python3.12 python3.11 python3 python \
    "$pyenv"/3.12.*/bin/python "$pyenv"/3.11.*/bin/python; do
    if fits "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  fail 2 "img2graph needs Python 3.11 or 3.12 with venv (on Debian and Ubuntu the \
packages python3.12 and python3.12-venv), and none was found. Install one, or name it: \
PYTHON=/path/to/python3.12 bash $0"
}

noted() {  # noted OWNER STATE COMMAND...: runs the command, its process in the note.
  bash -c 'echo "$1 $2 $$" > "$0"; shift 2; exec "$@"' "$VENV/img2graph.setup" "$@"
}

make_environment() {
  local python
  python=$(find_python) || exit $?
  rm -rf "$VENV"
  mkdir -p "$VENV" || fail 2 "cannot make the folder $VENV."
  echo "Making the virtual environment $VENV with $("$python" --version) ..."
  noted made making "$python" -m venv "$VENV" ||
    fail 1 "cannot make the virtual environment $VENV."
}

set_up() {  # set_up EXTRA...
  VENV=${IMG2GRAPH_VENV:-.venv}
  local note="$VENV/img2graph.setup" owner=made state=none what='' extras='' extra hash
  if [ -f "$note" ]; then
    read -r owner state what extras < "$note" || true
  elif [ -x "$VENV/bin/python" ]; then
    owner=adopted
  elif [ -e "$VENV" ] && [ -n "$(ls -A "$VENV")" ]; then
    fail 2 "$VENV stands, but is no virtual environment: move it away, or name another \
folder with IMG2GRAPH_VENV."
  fi
  if [ "$state" = making ] || [ "$state" = installing ]; then
    if [ -n "$what" ] && kill -0 "$what" 2>/dev/null; then
      fail 1 "Process $what is setting up $VENV; wait for it, then try again."
    fi
    state=none
  fi

  if ! fits "$VENV/bin/python" && [ "$owner" = adopted ]; then
    fail 2 "$VENV/bin/python is not a Python 3.11 or 3.12: move $VENV away, or name \
another folder with IMG2GRAPH_VENV."
  fi
  # An environment of ours whose set-up was cut short may lack parts that pip believes
  # to be there, so it is made anew.
  if [ "$owner" = made ] && { [ "$state" != ready ] || ! fits "$VENV/bin/python"; }; then
    make_environment
    state=none extras=
  fi

  # This folder is part of what is installed: an editable install points to it.
  hash=$("$VENV/bin/python" - "$PWD" pyproject.toml constraints.txt <<'END'
import hashlib, pathlib, sys
parts = [sys.argv[1].encode()] + [pathlib.Path(p).read_bytes() for p in sys.argv[2:]]
print(hashlib.sha256(b'\n'.join(parts)).hexdigest()[:16])
END
  ) || fail 1 "cannot read pyproject.toml and constraints.txt in $PWD."
  for extra in "$@"; do
    case " $extras " in
      *" $extra "*) ;;
      *) extras="${extras:+$extras }$extra" state=none ;;
    esac
  done
  if [ "$state" = ready ] && [ "$what" = "$hash" ]; then
    return
  fi
  echo "Installing img2graph[${extras// /,}] into $VENV (about a minute) ..."
  noted "$owner" installing "$VENV/bin/python" -m pip install --quiet \
    --disable-pip-version-check -c constraints.txt -e ".[${extras// /,}]" ||
    fail 1 "pip could not install img2graph; its reason is above."
  echo "$owner ready $hash $extras" > "$note"
}
