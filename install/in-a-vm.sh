#!/bin/sh
# Lends a virtual machine as a whole: downloads the installer, compares the release key in it with the fingerprint that
# the server's operator told you, and runs it. Runs as root inside the machine, by Vagrantfile or cloud-init.yml (which
# holds a copy of it); it can be run again. Its settings are the installer's own variables, DOCKERCOMP_INSTALL_SERVER and
# so on, from the environment or from /etc/dockercomp-vm.env; empty ones are as good as none.
set -eu

settings=/etc/dockercomp-vm.env
work=/var/tmp/dockercomp-vm

main() {
	read_settings
	have_tools
	download
	verify
	run_installer
}

read_settings() {
	if [ -r $settings ]; then
		set -a
		# shellcheck disable=SC1090  # on the machine only
		. $settings
		set +a
	fi
	for name in SERVER KEY_FINGERPRINT EMAIL KEY_FILE PROJECTS CONTAINERS CPUS MEMORY DISK HOURS PROXY CA_FILE; do
		eval "value=\${DOCKERCOMP_INSTALL_$name:-}"
		[ -n "$value" ] || unset "DOCKERCOMP_INSTALL_$name"
	done
	[ -n "${DOCKERCOMP_INSTALL_SERVER:-}" ] || complain 'say which server: DOCKERCOMP_INSTALL_SERVER=https://...'
	[ -n "${DOCKERCOMP_INSTALL_KEY_FINGERPRINT:-}" ] ||
		complain "ask the server's operator for the release key's fingerprint: DOCKERCOMP_INSTALL_KEY_FINGERPRINT=..."
}

have_tools() {
	if command -v curl >/dev/null && command -v openssl >/dev/null; then return 0; fi
	if command -v apt-get >/dev/null; then
		DEBIAN_FRONTEND=noninteractive apt-get -qq update
		DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends ca-certificates curl openssl
	else
		dnf -q -y install curl openssl
	fi
}

download() {
	install -d -m 0700 $work
	set -- -fsSL --retry 5 --retry-connrefused -o $work/install.sh
	[ -z "${DOCKERCOMP_INSTALL_CA_FILE:-}" ] || set -- "$@" --cacert "$DOCKERCOMP_INSTALL_CA_FILE"
	[ -z "${DOCKERCOMP_INSTALL_PROXY:-}" ] || set -- "$@" --proxy "$DOCKERCOMP_INSTALL_PROXY"
	curl "$@" "${DOCKERCOMP_INSTALL_SERVER%/}/install.sh" || complain "$DOCKERCOMP_INSTALL_SERVER/install.sh cannot be downloaded."
}

verify() {
	sed -n '/^-----BEGIN PUBLIC KEY-----$/,/^-----END PUBLIC KEY-----$/p' $work/install.sh >$work/release.pub
	found=$(openssl pkey -pubin -in $work/release.pub -outform DER | openssl dgst -sha256 -r | cut -d ' ' -f 1)
	wanted=$(printf %s "$DOCKERCOMP_INSTALL_KEY_FINGERPRINT" | tr '[:upper:]' '[:lower:]' | sed -e 's/^sha256://' -e 's/://g')
	[ "$found" = "$wanted" ] || complain "the server offers the release key $found and not $wanted. Nothing of it was run."
}

run_installer() {
	sh $work/install.sh --yes
	rm -rf $work
}

complain() {
	echo "in-a-vm.sh: $1" >&2
	exit 1
}

main "$@"
