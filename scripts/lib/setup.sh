# shellcheck shell=sh
# Small verbs that scripts share: say what is done, install what is missing, make the project's venv.
# Sourced with the repository as working directory.

say() { printf '%s\n' "$*" >&2; }

die() {
	say "$*"
	exit 2
}

has() { command -v "$1" >/dev/null 2>&1; }

is_debian() { has apt-get && [ -f /etc/debian_version ]; }

# as_root COMMAND...: as root at once, with sudo after asking on the terminal; fails when neither is to be had.
as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif has sudo && confirm "Run with sudo: $*?"; then
		sudo "$@"
	else
		return 1
	fi
}

confirm() { # confirm QUESTION
	[ -r /dev/tty ] && [ -w /dev/tty ] || return 1
	printf '%s [y/N] ' "$1" >/dev/tty 2>/dev/null || return 1
	read -r answer </dev/tty || return 1
	[ "$answer" = y ] || [ "$answer" = Y ]
}

# install_packages PACKAGE...: those of them that are missing, on Debian and Ubuntu.
install_packages() {
	is_debian || return 1
	missing=
	for package in "$@"; do
		dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q '^install ok installed' || missing="$missing $package"
	done
	[ -n "$missing" ] || return 0
	say "Installing the system packages:$missing"
	mkdir -p var
	# shellcheck disable=SC2086  # several words on purpose
	as_root env DEBIAN_FRONTEND=noninteractive sh -c \
		'apt-get -qq update && apt-get -qq install -y --no-install-recommends "$@"' apt $missing >var/apt.log 2>&1 || {
		tail -n 5 var/apt.log >&2
		return 1
	}
}

# find_python: the first Python 3.10 or later that can make a venv.
find_python() {
	for python in "${PYTHON:-python3}" python3.14 python3.13 python3.12 python3.11 python3.10 python3; do
		if has "$python" && "$python" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
			echo "$python"
			return 0
		fi
	done
	return 1
}

ensure_python() {
	find_python >/dev/null || install_packages python3 python3-venv ca-certificates ||
		die "This needs Python 3.10 or later with venv; install it (Debian: python3 python3-venv) and run this again."
	find_python >/dev/null || die "This needs Python 3.10 or later; this system's own is older."
}

# ensure_venv LOCK: var/venv-LOCK with exactly what locks/LOCK.txt names, made once for each state of the lock.
ensure_venv() {
	venv=$PWD/var/venv-$1
	wanted=$(cat "locks/$1.txt" pyproject.toml | cksum)
	if [ -x "$venv/bin/python" ] && [ "$(cat "$venv/.made-from" 2>/dev/null)" = "$wanted $PWD" ]; then
		return 0
	fi
	ensure_python
	say "Making $venv (a minute, once) ..."
	rm -rf "$venv"
	"$(find_python)" -m venv "$venv"
	"$venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "locks/$1.txt" >&2
	"$venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r locks/build.txt >&2
	"$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . >&2
	echo "$wanted $PWD" >"$venv/.made-from"
}

# ensure_mongod: the one library that the packaged mongod takes from the system.
ensure_mongod() {
	[ -n "${DOCKERCOMP_MONGO_URI:-}${DOCKERCOMP_MONGOD:-}" ] && return 0
	has mongod && return 0
	if is_debian && ! ldconfig -p 2>/dev/null | grep -q 'libcurl\.so\.4'; then
		install_packages libcurl4 || say "The packaged mongod needs the system package libcurl4."
	fi
}

# ensure_faketime: what the fault run sets clocks wrong with; without it that is left out.
ensure_faketime() {
	for library in /usr/lib/*/faketime/libfaketimeMT.so.1 /usr/lib*/faketime/libfaketimeMT.so.1; do
		[ ! -e "$library" ] || return 0
	done
	install_packages libfaketime || say "Wrong clocks need libfaketime (Debian: libfaketime): the fault run leaves them out."
}

# ensure_openssl: volunteers' machines check a release's signature with it, so tests do, too.
ensure_openssl() {
	has openssl || install_packages openssl || say "Signatures are checked with openssl (Debian: openssl): without it their tests are left out."
}

# ensure_test_tools: a registry to pull from, a compiler, what makes machines and networks, a browser for pages. All at
# once, before any test: two that install packages at the same time would stand in each other's way.
ensure_test_tools() {
	ensure_openssl
	tools=
	has docker-registry || tools="$tools docker-registry"
	{ has gcc && [ -e /usr/include/stdio.h ]; } || tools="$tools gcc libc6-dev"
	has ip || tools="$tools iproute2"
	has mmdebstrap || tools="$tools mmdebstrap"
	PATH=$PATH:/usr/sbin has nginx || tools="$tools nginx-light"
	has gpg || tools="$tools gpg gpg-agent"
	has git || tools="$tools git"
	has curl || tools="$tools curl"
	has ssh || tools="$tools openssh-client"
	has chromium || tools="$tools chromium"
	# shellcheck disable=SC2086  # several words on purpose
	[ -z "$tools" ] || install_packages $tools || say "Tests that need one of$tools are left out."
}
