#!/bin/sh
# Lend part of this machine to a project, inside limits that you choose, and take it back.
#
#   curl -fsSL https://SERVER/install.sh | sh                      asks before it changes anything
#   curl -fsSL https://SERVER/install.sh | sh -s -- --plan         only says what it would change
#   curl -fsSL https://SERVER/install.sh | sh -s -- --uninstall    takes everything away again
#
# Nothing runs before the last line of this file, so half a download does nothing. Exit status: 0 done; 1 a step failed
# (it can be run again, or undone with --uninstall); 2 refused before anything was changed.
set -eu
umask 077
PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C.UTF-8
export PATH LC_ALL

# Filled in by the server that this came from. The release key's fingerprint, to compare with what the operator says:
# @FINGERPRINT@
own_server='@SERVER@'
own_key() {
	cat <<'KEY'
@RELEASE_KEY@
KEY
}

home=/var/lib/dockercomp
etc=/etc/dockercomp
receipt=$home/receipt.json
bundle=/etc/ssl/certs/ca-certificates.crt
most_clock_error=300 # seconds
own_need=1500        # MB for the engine, the client image and our own programs, beside --disk

usage() {
	cat <<'USAGE'
Usage: install.sh [OPTION...]        (each option also as a variable: --ca-file as DOCKERCOMP_INSTALL_CA_FILE, --yes as ..._YES=1)

  --plan                say what would change, and stop
  --dry-run             also download and verify everything and let Ansible check; change nothing
  --yes                 do not ask
  --server URL          the source server (default: the one this script came from)
  --email ADDRESS       told to the server's operator; optional
  --key-file FILE       an account's key (dca_...) or an enrolment key (dce_...) from the operator
  --projects A,B        only these projects (default: all of the server)
  --policy FILE         your own policy.toml, instead of the defaults
  --containers N        client containers, each of which computes one thing at a time (default: processors - 1)
  --cpus N, --memory SIZE, --disk SIZE
                        totals for all of them, like 1.5, 2g, 20g
  --hours "TEXT"        like "18:00-08:00" or "mon-fri 18:00-24:00; sat,sun always"
  --idle-only           only while nobody uses the machine
  --no-docker-install   do not install a Docker engine; stop if there is none
  --prefix FOLDER       where our programs go (default: /opt/dockercomp)
  --version X           this release instead of the server's current one
  --proxy URL           for everything that goes to the network
  --ca-file FILE        an additional certificate authority, PEM
  --key-fingerprint HEX the release key must have this sha256 fingerprint
  --release-key FILE    the release key, PEM (needed only when this script did not come from a server)
  --allow-downgrade     accept a release that is older than the installed one
  --auto-update         look for new releases daily
  --self-test           try out every wall of the sandbox again, and stop
  --uninstall [--purge] take everything away; --purge: the Docker engine too, if we brought it
  --help
USAGE
}

# --- saying things

say() { printf '%s\n' "$*"; }
warn() { printf '%s\n' "$*" >&2; }

refuse() { # before anything is changed
	warn "$*"
	exit 2
}

fail() { # inside a step: the sentence that the person will read
	printf '%s\n' "$*" >"$work/sentence"
	exit 1
}

has() { command -v "$1" >/dev/null 2>&1; }

# --- options: every one has an environment twin, and options win

from_environment() {
	server=${DOCKERCOMP_INSTALL_SERVER:-} email=${DOCKERCOMP_INSTALL_EMAIL:-} key_file=${DOCKERCOMP_INSTALL_KEY_FILE:-}
	projects=${DOCKERCOMP_INSTALL_PROJECTS:-} policy=${DOCKERCOMP_INSTALL_POLICY:-}
	containers=${DOCKERCOMP_INSTALL_CONTAINERS:-} cpus=${DOCKERCOMP_INSTALL_CPUS:-}
	memory=${DOCKERCOMP_INSTALL_MEMORY:-} disk=${DOCKERCOMP_INSTALL_DISK:-} hours=${DOCKERCOMP_INSTALL_HOURS:-}
	prefix=${DOCKERCOMP_INSTALL_PREFIX:-} version=${DOCKERCOMP_INSTALL_VERSION:-}
	proxy=${DOCKERCOMP_INSTALL_PROXY:-$(cat "${DOCKERCOMP_INSTALL_PROXY_FILE:-/dev/null}")} ca_file=${DOCKERCOMP_INSTALL_CA_FILE:-}
	key_fingerprint=${DOCKERCOMP_INSTALL_KEY_FINGERPRINT:-} release_key=${DOCKERCOMP_INSTALL_RELEASE_KEY:-}
	plan=$(switch PLAN) dry_run=$(switch DRY_RUN) yes=$(switch YES) idle_only=$(switch IDLE_ONLY)
	no_docker_install=$(switch NO_DOCKER_INSTALL) allow_downgrade=$(switch ALLOW_DOWNGRADE)
	auto_update=$(switch AUTO_UPDATE) self_test=$(switch SELF_TEST) uninstall=$(switch UNINSTALL) purge=$(switch PURGE)
}

switch() { # 1 or nothing, from DOCKERCOMP_INSTALL_NAME
	eval "set -- \"$1\" \"\${DOCKERCOMP_INSTALL_$1:-}\""
	case $2 in
	1 | yes | true) echo 1 ;;
	'' | 0 | no | false) ;;
	*) warn "DOCKERCOMP_INSTALL_$1 must be 1 or 0, not $2." && echo bad ;;
	esac
}

parse() {
	from_environment
	case "$plan$dry_run$yes$idle_only$no_docker_install$allow_downgrade$auto_update$self_test$uninstall$purge" in
	*bad*) exit 2 ;;
	esac
	while [ $# -gt 0 ]; do
		case $1 in
		--plan | --dry-run | --yes | --idle-only | --no-docker-install | --allow-downgrade | --auto-update | --self-test | --uninstall | --purge)
			eval "$(variable "$1")=1"
			shift
			;;
		--server | --email | --key-file | --projects | --policy | --containers | --cpus | --memory | --disk | --hours | --prefix | --version | --proxy | --ca-file | --key-fingerprint | --release-key)
			[ $# -gt 1 ] || refuse "$1 needs a value. See --help."
			value=$2
			eval "$(variable "$1")=\$value"
			shift 2
			;;
		--*=*)
			name=${1%%=*} value=${1#*=}
			shift
			set -- "$name" "$value" "$@"
			;;
		-h | --help)
			usage
			exit 0
			;;
		*) refuse "There is no option $1. See --help." ;;
		esac
	done
}

variable() { echo "${1#--}" | tr - _; }

check_options() {
	case $server in '') case $own_server in http*) server=$own_server ;; esac ;; esac
	[ -n "$server" ] || [ -n "$uninstall$self_test" ] ||
		refuse "This copy of the script did not come from a server: give --server and --key-fingerprint or --release-key."
	server=${server%/} prefix=${prefix:-/opt/dockercomp}
	plain "$server$email$key_file$projects$policy$containers$cpus$memory$disk$hours$prefix$version$proxy$ca_file$key_fingerprint$release_key" ||
		refuse "An option's value holds a quote, a backslash or a control character."
	[ -n "$uninstall$self_test" ] || fits --server "$server" '^https?://[A-Za-z0-9.:[-]+(\]:[0-9]+|\])?(/[A-Za-z0-9._~/-]*)?$' 'a URL like https://science.example.org'
	fits --email "$email" '^[^@ ]+@[^@ ]+$' 'an address like ada@example.org'
	fits --containers "$containers" '^[1-9][0-9]{0,2}$' 'a whole number from 1 to 999'
	fits --cpus "$cpus" '^[0-9]{1,4}(\.[0-9]{1,3})?$' 'a number like 1.5'
	fits --memory "$memory" '^[1-9][0-9]*[kmgtKMGT]?$' 'a size like 512m or 2g'
	fits --disk "$disk" '^[1-9][0-9]*[kmgtKMGT]?$' 'a size like 10g'
	fits --prefix "$prefix" '^(/[A-Za-z0-9._-]+)+$' 'an absolute path of letters, digits, dots and dashes'
	fits --version "$version" '^[0-9]+(\.[0-9]+)*([a-z][a-z0-9.]*)?$' 'a version like 1.2.0'
	fits --proxy "$proxy" '^https?://[A-Za-z0-9.:@_[-]+(\]:[0-9]+)?/?$' 'a URL like http://proxy.example:3128'
	key_fingerprint=$(printf %s "$key_fingerprint" | tr '[:upper:]' '[:lower:]' | sed -e 's/^sha256://' -e 's/://g')
	fits --key-fingerprint "$key_fingerprint" '^[0-9a-f]{64}$' '64 hexadecimal digits'
	# One a line: of several assignments in one command only the last may fail.
	key_file=$(readable --key-file "$key_file")
	policy=$(readable --policy "$policy")
	ca_file=$(readable --ca-file "$ca_file")
	release_key=$(readable --release-key "$release_key")
	[ -z "$purge" ] || [ -n "$uninstall" ] || refuse "--purge goes with --uninstall."
}

plain() { case $1 in *[\"\'\\[:cntrl:]]*) return 1 ;; esac; }

fits() { # fits OPTION VALUE PATTERN WHAT
	[ -z "$2" ] || printf '%s\n' "$2" | grep -Eqx -e "$3" || refuse "$1 must be $4, not '$2'."
}

readable() { # the absolute path of a file that an option names
	[ -n "$2" ] || return 0
	if [ ! -f "$2" ] || [ ! -r "$2" ]; then refuse "$1: the file $2 cannot be read."; fi
	case $2 in /*) echo "$2" ;; *) echo "$PWD/$2" ;; esac
}

# --- what this machine is

look_at_machine() {
	machine=$(uname -m)
	case $machine in arm64) machine=aarch64 ;; esac
	distribution='' release='' family=''
	if [ -r "${os_release:=/etc/os-release}" ]; then
		# shellcheck disable=SC1090
		distribution=$(. "$os_release" && echo "${ID:-}") release=$(. "$os_release" && echo "${VERSION_ID:-}")
	fi
	case $distribution in
	debian | ubuntu) family=debian ;;
	fedora | rhel | rocky | almalinux | centos) family=fedora ;;
	esac
	processors=$(nproc 2>/dev/null || echo 1)
	memory_here=$(awk '/^MemTotal/ { print int($2 / 1024) }' /proc/meminfo 2>/dev/null || echo 0) # MB
	python=$(find_python || true)
}

find_python() { # the first Python 3.10 or later
	for one in /usr/bin/python3 /usr/bin/python3.14 /usr/bin/python3.13 /usr/bin/python3.12 /usr/bin/python3.11; do
		[ -x "$one" ] && "$one" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && echo "$one" && return 0
	done
	return 1
}

at_least() { [ "$(printf '%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; } # at_least VERSION LEAST

supported() {
	[ "$(uname -s)" = Linux ] || refuse "This needs Linux; for other systems see the virtual machine in install/README.md."
	case $machine in x86_64 | aarch64) ;; *) refuse "This machine is $machine; x86_64 and aarch64 are supported." ;; esac
	case $distribution in
	debian) least=12 ;;
	ubuntu) least=22.04 ;;
	fedora) least=40 ;;
	rhel | rocky | almalinux | centos) least=9 ;;
	*) refuse "This system (${distribution:-unknown}) is not supported: Debian 12, Ubuntu 22.04, Fedora 40, RHEL 9 or later are. $(elsewhere)" ;;
	esac
	at_least "${release:-0}" "$least" || refuse "$distribution $release is too old: it must be $least or later. $(elsewhere)"
	[ -d /run/systemd/system ] || refuse "systemd does not run this machine, and the launcher is a systemd service. $(elsewhere)"
}

elsewhere() { echo "Nothing was changed. A virtual machine does it too: see install/README.md."; }

look_at_engine() {
	engine=
	has docker || return 0
	said=$(docker --version 2>&1 || true)
	case $said in *[Pp]odman*) refuse "The docker command here is Podman's; a Docker engine of 20.10 or later is needed. Nothing was changed." ;; esac
	case $(command -v docker) in /snap/*) refuse "Docker from a snap cannot use $home; remove it or use the distribution's. Nothing was changed." ;; esac
	engine=$(docker version --format '{{.Server.Version}}' 2>/dev/null || true)
	[ -n "$engine" ] || engine=$(printf %s "$said" | sed -n 's/.*version \([0-9][0-9.]*\).*/\1/p')
	at_least "${engine:-0}" 20.10 ||
		refuse "The Docker engine here is ${engine:-of an unknown version}; 20.10 or later is needed, and yours is not touched. Nothing was changed."
	[ -n "$release" ]
}

enough_disk() {
	disk_mb=$(megabytes "${disk:-}")
	free=$(free_at "$home")
	[ -n "$disk" ] || disk_mb=$(least_of $((free / 4)) 10240)
	[ ! -e $home/slots.img ] || disk_mb=0
	need=$((disk_mb + own_need))
	[ -d "$prefix/payload" ] && need=$disk_mb
	[ "$free" -ge "$need" ] || refuse "There are $free MB free for $home and $need MB are needed. Free some, or give a smaller --disk. Nothing was changed."
	free=$(free_at "$prefix")
	[ "$free" -ge 500 ] || [ -d "$prefix/payload" ] || refuse "There are $free MB free for $prefix and 500 MB are needed. Nothing was changed."
}

megabytes() { # of a size like 10g
	number=${1%[kmgtKMGT]}
	case $1 in
	'') echo 0 ;;
	*[kK]) echo $((number / 1024)) ;;
	*[mM]) echo "$number" ;;
	*[gG]) echo $((number * 1024)) ;;
	*[tT]) echo $((number * 1048576)) ;;
	*) echo $((number / 1048576)) ;;
	esac
}

free_at() { # MB free where PATH is or would be
	at=$1
	while [ ! -e "$at" ]; do at=$(dirname "$at"); done
	df -Pm "$at" | awk 'NR == 2 { print $4 }'
}

least_of() { if [ "$1" -lt "$2" ]; then echo "$1"; else echo "$2"; fi; }

# --- the network: https, or http to an address that is not public

encrypted() {
	case $server in https://*) return 0 ;; esac
	host=$(server_host)
	private "$host" || refuse "$server is not encrypted, and $host is a public address: use https. Nothing was changed."
	warn "Note: $server is not encrypted. Whoever is on this network can read your key and what is computed."
}

server_host() { printf %s "${server#*://}" | sed -e 's,/.*,,' -e 's/^\[\(.*\)\].*/\1/' -e 's/:[0-9]*$//'; }

private() { # whether every address of a name is one of a private network
	addresses=$(getent ahosts "$1" 2>/dev/null | awk '{ print $1 }' | sort -u)
	[ -n "$addresses" ] || return 1
	for address in $addresses; do
		case $address in
		10.* | 127.* | 192.168.* | 172.1[6-9].* | 172.2[0-9].* | 172.3[01].* | 169.254.* | ::1 | f[cd]*:* | fe80:*) ;;
		*) return 1 ;;
		esac
	done
}

fetch() { # fetch PATH FILE BYTES [OPTION...]: from the server, at most so many bytes, at 50 kB a second or faster
	path=$1 file=$2 most=$3
	shift 3
	case $server in https://*) protocols='=https' ;; *) protocols='=http,https' ;; esac
	# By a file: its password is for nobody who looks at the list of processes.
	[ -z "$proxy" ] || { printf 'proxy = "%s"\n' "$proxy" >"$work/curl.conf" && set -- --config "$work/curl.conf" "$@"; }
	[ -z "$ca_file" ] || set -- --cacert "$ca_file" "$@"
	(
		# Older curls know --max-filesize only for answers that say their size ahead; the kernel knows it for all.
		ulimit -f $((most / 512 + 8))
		exec curl "${on_error:--f}" -sS --proto "$protocols" --connect-timeout 15 --speed-limit 500 --speed-time 30 --retry 2 --retry-delay 1 \
			--max-time $((120 + most / 50000)) --max-filesize "$most" -o "$file" "$@" -- "$server/$path"
	) && return 0
	# Half a file is of no use, and may be what filled the disk. What the server says of a refusal stays.
	[ -n "${on_error:-}" ] || rm -f "$file"
	return 1
}

reachable() {
	has curl || { say "(Whether $server answers is seen later: curl is missing and will be installed first.)" && return 0; }
	[ -n "$ca_file" ] || [ -s $bundle ] || [ -d /etc/pki/tls ] || [ "${server#https}" = "$server" ] || return 0
	fetch releases/current/SHA256SUMS "$work/SHA256SUMS.looked" 1000000 -D "$work/headers" 2>"$work/said" ||
		refuse "$server does not answer as it should ($(tail -n 1 "$work/said")). Nothing was changed."
	there=$(sed -n 's/^[Dd][Aa][Tt][Ee]: *//p' "$work/headers" | tr -d '\r' | tail -n 1)
	[ -n "$there" ] && there=$(date -d "$there" +%s 2>/dev/null) || return 0
	off=$(($(date +%s) - there))
	[ "${off#-}" -le $most_clock_error ] ||
		refuse "This machine's clock is ${off#-} seconds off the server's: set it first (timedatectl set-ntp true). Nothing was changed."
}

# --- what will change

missing_packages() {
	wanted=
	has curl || wanted="$wanted curl"
	has openssl || wanted="$wanted openssl"
	has mkfs.ext4 || wanted="$wanted e2fsprogs"
	if [ "$family" = debian ]; then
		[ -s $bundle ] || wanted="$wanted ca-certificates"
		[ -n "$python" ] && "$python" -c 'import ensurepip, venv' 2>/dev/null || wanted="$wanted python3-venv"
		[ -n "$python" ] && "$python" -c 'import apt' 2>/dev/null || wanted="$wanted python3-apt"
	else
		[ -n "$python" ] || wanted="$wanted python3.12"
		has rpm && rpm -q python3-libdnf5 python3-dnf >/dev/null 2>&1 || wanted="$wanted python3-dnf"
	fi
	has iptables || wanted="$wanted iptables"
	printf %s "${wanted# }"
}

show_plan() {
	packages=$(missing_packages)
	size="$containers_here client containers"
	[ "$containers_here" != 1 ] || size="1 client container"
	size="$size, $memory_told of memory"
	[ ! -e "$receipt" ] || say "This machine has an installation already; it is brought to what is asked for now."
	say "This lends part of this machine ($distribution $release, $machine) to $server:"
	say "$size, $disk_told of disk${hours:+, hours: $hours}${idle_only:+, only while idle}${projects:+, projects: $projects}."
	say ""
	say "What will change:"
	row packages "${packages:-none are missing}"
	row engine "$(engine_plan)"
	row user "dockercomp, a system user in the group docker; user ids from 730000 to 731999 are reserved for containers"
	row files "$prefix, $etc, $home, /usr/local/bin/dockercomp-volunteer"
	row units "dockercomp-launcher.service, var-lib-dockercomp-slots.mount, dockercomp-self-test.timer${auto_update:+, dockercomp-update.timer}"
	row disk "a disk image of $disk_told at $home/slots.img, to which jobs are confined"
	row network "a Docker network and firewall chains of its own: containers reach $(server_host) and nothing else"
	row downloads "about 100 MB from $server and PyPI, checked against a signature and pinned hashes"
	row log "$log_file"
	say ""
	say "To undo all of it: dockercomp-volunteer uninstall, or this script with --uninstall."
}

row() { printf '  %-10s %s\n' "$1" "$2"; }

engine_plan() {
	if [ -n "$engine" ]; then
		echo "Docker $engine is here and stays as it is${proxy:+ (its own proxy settings too)}"
	elif [ "$family" = debian ]; then
		echo "Docker from the distribution (docker.io)"
	else
		echo "Docker from the distribution, or from Docker's repository on RHEL and its like"
	fi
}

sizes() { # how much, in words; the policy's own rules decide in the end
	containers_here=${containers:-$((processors > 1 ? processors - 1 : 1))}
	[ -n "$containers" ] || containers_here=$(least_of "$containers_here" $((memory_here / 1024 > 1 ? memory_here / 1024 : 1)))
	memory_told=${memory:-half}
	disk_told=${disk:-$disk_mb MB}
	[ ! -e $home/slots.img ] || disk_told="the present size"
	[ -z "$policy" ] || { containers_here="the policy's" memory_told="the policy's"; }
}

consent() {
	[ -z "$yes" ] || return 0
	has_terminal ||
		refuse "There is no terminal to ask on. Run it with --yes to agree to the above, or --plan to look. Nothing was changed."
	printf '\nGo ahead? [y/N] ' >/dev/tty
	read -r answer </dev/tty || answer=
	case $answer in y | Y | yes) ;; *) refuse "Nothing was changed." ;; esac
}

has_terminal() { (: </dev/tty) 2>/dev/null; }

# --- root

become_root() { # after consent: the same again by sudo, from a copy that is complete
	[ "$(id -u)" != 0 ] || return 0
	has sudo || refuse "This needs root: run it again as root. Nothing was changed."
	copy=$(own_copy)
	set -- --yes
	# The plan has been agreed to by now. Nobody has been asked yet whether all is to be taken away.
	[ -z "$uninstall" ] || set -- ${yes:+--yes}
	for name in server email key_file projects policy containers cpus memory disk hours prefix version ca_file key_fingerprint release_key; do
		eval "value=\$$name"
		[ -z "$value" ] || set -- "$@" "--$(echo "$name" | tr _ -)" "$value"
	done
	for name in dry_run idle_only no_docker_install allow_downgrade auto_update self_test uninstall purge; do
		eval "value=\$$name"
		[ -z "$value" ] || set -- "$@" "--$(echo "$name" | tr _ -)"
	done
	say "This needs root: sudo runs it."
	status=0
	# A proxy's password is for nobody who looks at the list of processes.
	printf '%s\n' "$proxy" >"$work/proxy"
	sudo env DOCKERCOMP_INSTALL_SHOWN=1 DOCKERCOMP_INSTALL_PROXY_FILE="$work/proxy" sh "$copy" "$@" || status=$?
	exit $status
}

own_copy() { # this script as a file: itself, or as the server has it
	if is_this_script "$0"; then
		echo "$0"
	else
		if [ -z "$server" ] || ! fetch install.sh "$work/install.sh" 1000000 || ! tail -n 1 "$work/install.sh" | grep -q '^main '; then
			refuse "This needs root, and no copy of the script could be had for sudo: run it as root. Nothing was changed."
		fi
		echo "$work/install.sh"
	fi
}

is_this_script() { # in a pipe $0 is the shell's own name, and a file of that name in this folder is anybody's
	case ${1##*/} in
	sh | -sh | dash | -dash | ash | -ash | bash | -bash | rbash | -rbash | ksh* | -ksh* | mksh | -mksh | zsh | -zsh | yash | -yash | posh | busybox) return 1 ;;
	esac
	[ -f "$1" ] && [ -r "$1" ] && grep -q '^own_server=' "$1" && tail -n 1 "$1" | grep -q '^main '
}

lock() {
	exec 9>/run/dockercomp-install.lock
	flock -n 9 || refuse "Another installation is under way on this machine; wait for it. Nothing was changed by this one."
}

start_log() {
	: >>"$log_file" && chmod 600 "$log_file"
	printf '\n--- %s  install.sh for %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$server" >>"$log_file"
}

# --- steps: one line each; details go to the log; each can be run again

step() { # step TITLE COMMAND...
	step_number=$((step_number + 1))
	progress "$step_number" "$1"
	in_log "$@"
}

in_log() { # in_log TITLE COMMAND...: without a line of its own
	title=$1
	shift
	rm -f "$work/sentence"
	set +e
	(
		set -e
		"$@"
	) >>"$log_file" 2>&1 9>&-
	status=$?
	set -e
	[ $status = 0 ] || failed
}

progress() { printf '[%s/%s] %s\n' "$1" "$steps" "$2"; }

failed() {
	warn ""
	warn "This step failed: $title."
	if [ -s "$work/sentence" ]; then
		warn "$(cat "$work/sentence")"
	else
		tail -n 5 "$log_file" | sed 's/^/    /' >&2
	fi
	if [ -n "$dry_run" ]; then
		tail -n 15 "$log_file" | sed 's/^/    /' >&2
		warn "It was a dry run: nothing was changed."
	else
		warn "Details: $log_file. The same command can be run again; it goes on where it stopped."
		warn "To undo what was done: $(undo_command)"
	fi
	exit 1
}

undo_command() {
	if [ -x /usr/local/bin/dockercomp-volunteer ]; then
		echo "dockercomp-volunteer uninstall"
	else
		echo "curl -fsSL $server/install.sh | sh -s -- --uninstall"
	fi
}

install_packages() {
	packages=$(missing_packages)
	[ -n "$packages" ] || return 0
	before=$home/packages-before.txt
	install -d -m 0755 $home
	[ -s $before ] || list_packages >$before
	# shellcheck disable=SC2086  # several names on purpose
	if [ "$family" = debian ]; then
		export DEBIAN_FRONTEND=noninteractive
		apt-get -q update && apt-get -q install -y --no-install-recommends $packages
	else
		dnf -q -y install $packages
	fi || fail "The system's package manager could not install: $packages. Is the network up?"
}

list_packages() {
	if has dpkg-query; then
		dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' | awk '/^i/ { print $2 }'
	else
		rpm -qa --qf '%{NAME}\n'
	fi | sort -u
}

network_settings() { # proxy and certificate for whatever runs below
	: >"$work/apt.conf"
	trust=
	if [ -n "$ca_file" ]; then
		cat "$(system_bundle)" "$ca_file" >"$work/bundle.pem"
		trust=$work/bundle.pem
		printf 'Acquire::https::CAInfo "%s";\n' "$trust" >>"$work/apt.conf"
	elif [ -s "$(system_bundle)" ]; then
		trust=$(system_bundle)
	fi
	[ -z "$trust" ] || export PIP_CERT="${PIP_CERT:-$trust}" SSL_CERT_FILE="${SSL_CERT_FILE:-$trust}" REQUESTS_CA_BUNDLE="$trust"
	if [ -n "$proxy" ]; then
		printf 'Acquire::http::Proxy "%s";\nAcquire::https::Proxy "%s";\n' "$proxy" "$proxy" >>"$work/apt.conf"
		export PIP_PROXY="$proxy" http_proxy="$proxy" https_proxy="$proxy" HTTPS_PROXY="$proxy" no_proxy=localhost,127.0.0.1
	fi
	export APT_CONFIG="$work/apt.conf" PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1
}

system_bundle() { if [ -s $bundle ]; then echo $bundle; else echo /etc/pki/tls/certs/ca-bundle.crt; fi; }

# --- the release: nothing of it is used before its signature is good

verify_release() {
	trusted_key >"$work/release.pub"
	at=releases/${version:-current}
	for file in SHA256SUMS SHA256SUMS.sig; do
		fetch "$at/$file" "$work/$file" 1000000 || fail "The release could not be downloaded from $server/$at."
	done
	openssl pkeyutl -verify -pubin -inkey "$work/release.pub" -rawin -in "$work/SHA256SUMS" -sigfile "$work/SHA256SUMS.sig" ||
		fail "The release's signature is WRONG: it was not made with the key $(fingerprint "$work/release.pub"). Nothing of it was used. Tell the server's operator."
	[ "$(signed 'dockercomp release')" = 1 ] || fail "The signed file of the release is of a kind that this script does not know."
	new=$(signed version)
	expires=$(signed expires)
	printf '%s\n' "$new" | grep -Eqx '[0-9]+(\.[0-9]+)*([a-z][a-z0-9.]*)?' || fail "The signed file of the release names no version."
	printf '%s\n' "$expires" | grep -Eqx '[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z' || fail "The signed file of the release names no expiry."
	[ "$(date -u +%Y%m%d%H%M%S)" -lt "$(printf %s "$expires" | tr -d 'TZ:-')" ] ||
		fail "The release $new expired at $expires: the server's operator has to make a new one."
	[ -z "$version" ] || [ "$version" = "$new" ] || fail "The server sent release $new where $version was asked for."
	[ ! -s "$prefix/payload/VERSION" ] || [ -n "$allow_downgrade" ] || at_least "$new" "$(cat "$prefix/payload/VERSION")" ||
		fail "The release $new is older than what is installed ($(cat "$prefix/payload/VERSION")). If you mean it: --allow-downgrade."
	printf %s "$new" >"$work/version"
}

signed() { sed -n "s/^# $1 //p" "$work/SHA256SUMS" | head -n 1; }

trusted_key() { # the key pinned at the first installation, else the one that this script or its options bring
	offered=$work/offered.pub
	if [ -n "$release_key" ]; then
		cat "$release_key" >"$offered"
	else
		own_key | grep -v '^@' >"$offered" || true
		[ -s "$offered" ] || key_of_server >"$offered"
	fi
	openssl pkey -pubin -in "$offered" -noout 2>/dev/null || fail "There is no release key: give --key-fingerprint or --release-key."
	[ -z "$key_fingerprint" ] || [ "$(fingerprint "$offered")" = "$key_fingerprint" ] ||
		fail "The release key is $(fingerprint "$offered") and not $key_fingerprint. Nothing was used."
	if [ -s $etc/release.pub ]; then
		[ "$(fingerprint "$offered")" = "$(fingerprint $etc/release.pub)" ] ||
			fail "The release key is $(fingerprint "$offered"), but at the first installation it was $(fingerprint $etc/release.pub). If the operator confirms the change, remove $etc/release.pub and run this again."
		cat $etc/release.pub
	else
		cat "$offered"
	fi
}

key_of_server() { # only with --key-fingerprint, against which it is compared
	[ -n "$key_fingerprint" ] || return 0
	fetch releases/current/release.pub "$work/served.pub" 1000 && cat "$work/served.pub"
}

fingerprint() { openssl pkey -pubin -in "$1" -outform DER | openssl dgst -sha256 -r | cut -d ' ' -f 1; }

take_archive() {
	new=$(cat "$work/version")
	archive=dockercomp-$new.tar.gz
	grep -E "^[0-9a-f]{64} [ *]$archive\$" "$work/SHA256SUMS" >"$work/sum" || fail "The signed file does not name $archive."
	[ "$(cat "$prefix/payload/.sum" 2>/dev/null)" != "$(cat "$work/sum")" ] || [ -n "$dry_run" ] || return 0
	fetch "releases/$new/$archive" "$work/$archive" 200000000 || fail "The release's archive could not be downloaded: is the disk full?"
	(cd "$work" && sha256sum -c sum) || fail "The release's archive is not the signed one. Nothing of it was used."
}

unpack_release() {
	payload=$prefix/payload
	[ -z "$dry_run" ] || payload=$work/payload
	if [ "$(cat "$payload/.sum" 2>/dev/null)" = "$(cat "$work/sum")" ]; then return 0; fi
	rm -rf "$payload.new" && mkdir -p "$payload.new"
	tar -xzf "$work/dockercomp-$(cat "$work/version").tar.gz" -C "$payload.new" --no-same-owner ||
		fail "The release's archive could not be unpacked: is the disk full?"
	cp "$work/sum" "$payload.new/.sum"
	chmod -R u+rwX,go+rX,go-w "$payload.new"
	[ -n "$dry_run" ] || chmod 755 "$prefix"
	rm -rf "$payload.old"
	[ ! -e "$payload" ] || mv "$payload" "$payload.old"
	mv "$payload.new" "$payload"
	rm -rf "$payload.old"
}

open_receipt() { # ahead of the first change; packages of an earlier, broken run included
	[ -z "$dry_run" ] || return 0
	install -d -m 0755 $home
	[ -e $receipt ] || printf '{"version": 1, "installed": "%s", "prefix": "%s", "folders": ["%s", "%s"], "files": ["%s"]}\n' \
		"$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$prefix" "$home" "$prefix" "$log_file" >$receipt
}

receive_packages() { # what the first step installed, now that there is a program to write it down
	[ -z "$dry_run" ] && [ -s $home/packages-before.txt ] || return 0
	list_packages | comm -13 $home/packages-before.txt - >"$work/added"
	# shellcheck disable=SC2046  # several names on purpose
	[ ! -s "$work/added" ] || "$(find_python)" "$prefix/payload/install/receipt.py" add packages $(cat "$work/added")
	rm -f $home/packages-before.txt
}

make_ansible() {
	folder=$prefix/ansible lock=$prefix/payload/locks/install.txt
	[ -z "$dry_run" ] || { folder=$work/ansible lock=$work/payload/locks/install.txt; }
	sum=$(sha256sum <"$lock")
	[ "$(cat "$folder/.made-from" 2>/dev/null)" != "$sum" ] || return 0
	rm -rf "$folder"
	"$(find_python)" -m venv "$folder" || fail "Python could not make a virtual environment in $folder."
	"$folder/bin/pip" install --quiet --require-hashes --only-binary :all: -r "$lock" ||
		fail "Ansible could not be installed from PyPI: is the network up, or is a proxy needed (--proxy)?"
	printf '%s\n' "$sum" >"$folder/.made-from"
}

enrol() { # the account's key, by whatever the person has
	[ -z "$dry_run" ] || return 0
	first=
	[ -z "$key_file" ] || first=$(head -c 4 "$key_file")
	case $first in
	dca_) cp "$key_file" "$work/account.key" && return 0 ;;
	esac
	[ ! -s $etc/account.key ] || { cp $etc/account.key "$work/account.key" && return 0; }
	case $first in '' | dce_) ;; *) fail "$key_file holds neither an account's key (dca_...) nor an enrolment key (dce_...)." ;; esac
	keep_nonce
	"$(find_python)" - "$work/enrol.json" "$key_file" "$email" "$(cat $etc/enrolment.nonce)" <<-'PYTHON'
		import json, platform, sys
		target, key_file, email, nonce = sys.argv[1:]
		body = {"host_name": platform.node(), "nonce": nonce}
		if key_file:
		    body["key"] = open(key_file).read().strip()
		if email:
		    body["email"] = email
		json.dump(body, open(target, "w"))
	PYTHON
	on_error=--fail-with-body
	fetch enrol "$work/enrolled" 64000 --retry 0 -H 'Content-Type: application/json' --data-binary "@$work/enrol.json" ||
		fail "The server did not enrol this machine: $(sentence_of "$work/enrolled")"
	"$(find_python)" -c 'import json, sys; print(json.load(open(sys.argv[1]))["key"])' "$work/enrolled" >"$work/account.key"
	keep_key
	rm -f "$work/enrol.json" "$work/enrolled"
}

keep_nonce() { # with it a request whose answer was lost can be repeated: a key for one machine is not used up by it
	"$(find_python)" "$prefix/payload/install/receipt.py" add folders $etc \
		files $etc/account.key $etc/account.key.partial $etc/enrolment.nonce $etc/enrolment.nonce.partial
	install -d -m 0755 $etc
	[ -s $etc/enrolment.nonce ] || keep $etc/enrolment.nonce "$(openssl rand -hex 16)"
}

keep_key() { # at once: the steps that follow may fail, and an enrolment key is good for one account
	keep $etc/account.key "$(cat "$work/account.key")"
	rm -f $etc/enrolment.nonce
}

keep() { # keep FILE LINE: root's alone, whole or not at all, whatever happens to the machine
	printf '%s\n' "$2" >"$1.partial"
	sync "$1.partial"
	mv "$1.partial" "$1"
	sync "${1%/*}"
}

sentence_of() { # what an answer of the server says in words
	"$(find_python)" -c '
import json, sys
try:
    said = json.load(open(sys.argv[1]))
    print(said.get("detail") or said.get("message") or said.get("error"))
except Exception:
    print("it did not say why.")' "$1" 2>/dev/null
}

# --- Ansible does the rest

write_vars() {
	signed client-image >/dev/null
	image_line=$(sed -n "s/^# client-image $machine //p" "$work/SHA256SUMS")
	[ -n "$image_line" ] || fail "This release has no client image for $machine."
	image=${image_line%% *} image_file=${image_line#* }
	image_sum=$(sed -n "s/^\([0-9a-f]\{64\}\) [ *]$image_file\$/\1/p" "$work/SHA256SUMS")
	[ -n "$image_sum" ] || fail "The signed file does not name $image_file."
	account_key=
	[ ! -s "$work/account.key" ] || account_key=$work/account.key
	payload=$prefix/payload
	[ -z "$dry_run" ] || payload=$work/payload
	host=$(server_host)
	add_host=$(getent -s files ahostsv4 "$host" 2>/dev/null | awk '{ print $1; exit }')
	cat >"$work/vars.json" <<-VARS
		{"dockercomp_become": false, "dockercomp_server": "$server", "dockercomp_prefix": "$prefix", "dockercomp_payload": "$payload",
		 "dockercomp_version": "$(cat "$work/version")", "dockercomp_python": "$(find_python)",
		 "dockercomp_client_image": "$image", "dockercomp_client_image_sha256": "$image_sum",
		 "dockercomp_client_image_url": "$server/releases/$(cat "$work/version")/$image_file",
		 "dockercomp_key_file": "$account_key", "dockercomp_release_key_file": "$work/release.pub",
		 "dockercomp_ca_file": "$(ca_of_clients)", "dockercomp_docker_ca_file": "$ca_file", "dockercomp_proxy": "$proxy", "dockercomp_email": "$email",
		 "dockercomp_add_host": [${add_host:+"\"$host:$add_host\""}], "dockercomp_policy_file": "$policy",
		 "dockercomp_docker_install": $([ -n "$no_docker_install" ] && echo false || echo true),
		 "dockercomp_auto_update": $([ -n "$auto_update" ] && echo true || echo false),
		 "dockercomp_limits": {$(limits)}}
	VARS
	"$(find_python)" -m json.tool "$work/vars.json" >/dev/null
}

limits() { # only what was asked for: the rest of the policy stays as it is
	separator=
	for name in containers cpus memory disk hours projects; do
		eval "value=\$$name"
		[ -z "$value" ] || printf '%s"%s": "%s"' "$separator" $name "$value"
		[ -z "$value" ] || separator=', '
	done
	[ -z "$idle_only" ] || printf '%s"idle_only": "true"' "$separator"
}

ca_of_clients() { # what containers must trust beyond the public authorities to reach the server
	if [ -n "$ca_file" ] || [ "${server#https}" = "$server" ]; then
		echo "$ca_file"
	else
		public=$(find "$prefix/ansible" "$work/ansible" -path '*/certifi/cacert.pem' 2>/dev/null | head -n 1)
		# Without an empty --capath curl would look into the system's folder of certificates too.
		mkdir -p "$work/empty"
		# shellcheck disable=SC2030,SC2031  # for this one call
		[ -z "$public" ] || (ca_file=$public && fetch healthz "$work/healthz" 64000 --retry 0 --capath "$work/empty") || system_bundle
	fi
}

run_ansible() {
	folder=$prefix/ansible payload=$prefix/payload check=
	[ -z "$dry_run" ] || { folder=$work/ansible payload=$work/payload check=--check; }
	export ANSIBLE_CONFIG="$payload/playbooks/ansible.cfg" ANSIBLE_HOME="$work/ansible-home" ANSIBLE_LOCAL_TEMP="$work/ansible-tmp" \
		ANSIBLE_REMOTE_TMP="$work/ansible-tmp" ANSIBLE_NOCOLOR=1 ANSIBLE_FORCE_COLOR=0 PYTHONDONTWRITEBYTECODE=1
	# shellcheck disable=SC2086  # one word or none
	{ "$folder/bin/ansible-playbook" $check -c local -i localhost, -e "@$work/vars.json" "$payload/playbooks/volunteer.yml" 2>&1 </dev/null 9>&- ||
		echo failed >"$work/ansible-failed"; } | show_ansible
	[ ! -s "$work/title" ] || title=$(cat "$work/title")
	[ ! -e "$work/ansible-failed" ] || failed
}

show_ansible() { # a line for each role as it begins; everything to the log; the last complaint kept for the person
	current=
	while IFS= read -r line; do
		printf '%s\n' "$line" >>"$log_file"
		case $line in
		'TASK ['*' : '*)
			role=${line#TASK \[} && role=${role%% : *}
			[ "$role" = "$current" ] || { current=$role && step_number=$((step_number + 1)) && progress "$step_number" "$(title_of "$role")"; }
			printf '%s' "$(title_of "$role")" >"$work/title"
			;;
		'fatal: '*) printf '%s\n' "$line" >"$work/fatal" ;;
		esac
	done
	[ ! -s "$work/fatal" ] || complaint_of_ansible >"$work/sentence"
}

complaint_of_ansible() { # what failed, in the words of the program that failed
	"$(find_python)" - "$work/fatal" <<-'PYTHON'
		import json, sys
		line = open(sys.argv[1]).read()
		try:
		    said = json.loads(line[line.index("=> ") + 3:])
		    words = said.get("msg") or ""
		    if not words or "non-zero return code" in words:
		        words = said.get("stderr") or said.get("stdout") or words
		    print(words.strip())
		except ValueError:
		    print(line.strip())
	PYTHON
}

title_of() {
	case $1 in
	preflight) echo "Looking at the machine" ;;
	docker) echo "Docker engine" ;;
	account) echo "User, folders and the disk image" ;;
	launcher) echo "Launcher" ;;
	clients) echo "Client containers: image, self-test, start" ;;
	*) echo "$1" ;;
	esac
}

# --- taking it away, trying it out

do_uninstall() {
	set --
	[ -z "$purge" ] || set -- "$@" --purge
	[ -z "$yes" ] || set -- "$@" --yes
	[ ! -s $receipt ] || prefix=$(sed -n 's/.*"prefix": *"\([^"]*\)".*/\1/p' $receipt | head -n 1)
	terminal=/dev/null
	! has_terminal || terminal=/dev/tty
	if [ -x "$prefix/bin/dockercomp-volunteer" ] && [ -x "$prefix/launcher/bin/python" ]; then
		"$prefix/bin/dockercomp-volunteer" uninstall "$@" <$terminal 9>&- && return 0
		[ -s "$receipt" ] || return 1
		say "That did not work to the end; removing by the receipt alone."
	fi
	if [ -s "$receipt" ] && [ -f "$prefix/payload/install/remove.py" ]; then
		"$(find_python)" "$prefix/payload/install/remove.py" "$@" <$terminal 9>&-
	elif [ -e $home ] || [ -e $receipt ]; then
		remove_beginnings
	else
		say "Nothing is installed here."
	fi
}

remove_beginnings() { # an installation that stopped before its programs were unpacked
	[ -n "$yes" ] || consent
	if [ -s $home/packages-before.txt ]; then
		added=$(list_packages | comm -13 $home/packages-before.txt -)
		# shellcheck disable=SC2086  # several names on purpose
		[ -z "$added" ] || if [ "$family" = debian ]; then apt-get -q purge -y $added; else dnf -q -y remove $added; fi >>"$log_file" 2>&1
	fi
	rm -rf $home "$prefix/payload" "$prefix/payload.new" "$prefix/ansible"
	[ ! -d "$prefix" ] || rmdir "$prefix"
	rm -f "$log_file"
	say "The beginnings of an installation were removed."
}

do_self_test() {
	has dockercomp-volunteer || refuse "Nothing is installed here."
	exec dockercomp-volunteer self-test
}

# --- the order of things

install_it() {
	look_at_machine
	supported
	encrypted
	look_at_engine
	[ -n "$engine" ] || [ -z "$no_docker_install" ] || refuse "There is no Docker engine here, and --no-docker-install forbids to install one. Nothing was changed."
	enough_disk
	reachable
	sizes
	[ -n "${DOCKERCOMP_INSTALL_SHOWN:-}" ] || show_plan
	[ -z "$plan" ] || exit 0
	[ -n "$dry_run" ] || consent
	become_root
	lock
	steps=10 step_number=0
	[ -z "$dry_run" ] || dry_run_settings
	start_log
	say ""
	network_settings
	[ -n "$dry_run" ] || step "Packages of the system" install_packages
	network_settings
	step "Release: download and signature" take_verified
	step "Our programs" put_release
	step "Ansible, in a folder of its own" make_ansible
	[ -n "$dry_run" ] || step "Enrolment" enrol
	in_log "What Ansible is told" write_vars
	run_ansible
	step_number=$steps
	the_end
}

take_verified() {
	verify_release
	take_archive
}

put_release() {
	open_receipt
	unpack_release
	receive_packages
}

dry_run_settings() {
	[ -z "$(missing_packages)" ] || refuse "A dry run needs these packages first: $(missing_packages). Nothing was changed."
	steps=8 log_file=$work/log
}

the_end() {
	if [ -n "$dry_run" ]; then
		say "Everything was downloaded, verified and checked. It was a dry run: nothing was changed."
		return 0
	fi
	say ""
	say "Done: this machine now computes for $server, within the limits in $etc/policy.toml."
	say "To look: dockercomp-volunteer status    To pause: dockercomp-volunteer pause    To undo: dockercomp-volunteer uninstall"
}

clean_up() {
	status=$?
	[ -z "$work" ] || rm -rf "$work"
	exit $status
}

main() {
	log_file=/var/log/dockercomp-install.log
	work=
	parse "$@"
	check_options
	trap clean_up EXIT
	trap 'warn "Interrupted. The same command can be run again."; exit 1' INT TERM HUP
	work=$(mktemp -d "${TMPDIR:-/tmp}/dockercomp-install.XXXXXX")
	if [ -n "$uninstall" ]; then
		look_at_machine
		become_root
		lock
		do_uninstall
	elif [ -n "$self_test" ]; then
		become_root
		do_self_test
	else
		install_it
	fi
}

main "$@"
