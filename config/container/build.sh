#!/bin/sh
# The steps that make the image, for the Dockerfile and for an empty Debian root alike:
#
#   build.sh python SOURCE   the daemon with its libraries into /opt/tickserve
#   build.sh root            what the daemon needs beside /opt/tickserve: Python, a user, /data
#   build.sh slim            remove what only building needs
#
# Each runs as root inside the root it changes.
set -eu

PREFIX=/opt/tickserve
USER_ID=10001

packages() {
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

python() {
  packages python3 python3-venv
  python3 -m venv "$PREFIX"
  "$PREFIX/bin/pip" install --quiet --no-cache-dir --disable-pip-version-check \
    --constraint "$1/constraints.txt" "$1[server,postgresql]"
}

slim() {
  "$PREFIX/bin/pip" uninstall --quiet --yes --disable-pip-version-check setuptools pip
  # Test suites of the libraries, headers, and what Python can make again.
  find "$PREFIX" -depth -type d \( -name tests -o -name test -o -name include \) \
    -path '*/site-packages/*' -exec rm -rf {} +
  find "$PREFIX" -depth -type d -name __pycache__ -exec rm -rf {} +
  find "$PREFIX" -type f \( -name '*.pyx' -o -name '*.pxd' -o -name '*.a' \) -delete
  # Compiled once here: the running image cannot write, and starts faster.
  python3 -m compileall -q -j 0 "$PREFIX/lib" >/dev/null || true
}

root() {
  packages python3
  rm -rf /var/lib/apt/lists/* /var/cache/apt/* /usr/share/doc/* /usr/share/man/* /usr/share/locale/*
  groupadd --gid "$USER_ID" tickserve
  useradd --uid "$USER_ID" --gid "$USER_ID" --home-dir /data --no-create-home \
    --shell /usr/sbin/nologin tickserve
  install -d -o tickserve -g tickserve -m 0750 /data
}

case "${1:-}" in
  python) python "$2" ;;
  slim) slim ;;
  root) root ;;
  *) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
