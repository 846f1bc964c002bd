# shellcheck shell=sh
# Verbs for scripts that need a Docker engine. Source this file; it runs nothing by itself.
#
#   engine_answers                 true when an engine answers
#   install_engine                 as root on Debian or Ubuntu: install an engine from the distribution
#   start_engine FOLDER            start one with all its state below FOLDER, unless one answers already; its socket
#                                  belongs to the group ENGINE_GROUP (a number; root's unless set)
#   stop_engine FOLDER             stop what start_engine started there, and nothing else
#   engine_gateway                 print the address under which containers reach this machine
#
# Every verb that fails has printed one sentence to stderr.

# A distribution's own client comes with its engine; one earlier on PATH may lack the builder.
if [ -x /usr/bin/docker ]; then DOCKER=/usr/bin/docker; else DOCKER=docker; fi

engine_answers() {
	command -v "$DOCKER" >/dev/null 2>&1 && "$DOCKER" version --format '{{.Server.Version}}' >/dev/null 2>&1
}

install_engine() {
	[ "$(id -u)" = 0 ] || { engine_says 'installing a Docker engine needs root.'; return 1; }
	command -v apt-get >/dev/null 2>&1 || { engine_says 'installing a Docker engine needs Debian or Ubuntu (apt-get).'; return 1; }
	DEBIAN_FRONTEND=noninteractive apt-get update -qq >/dev/null || { engine_says 'apt-get update failed.'; return 1; }
	packages='docker.io iptables'
	# Newer suites ship the command-line client as a package of its own.
	if apt-cache show docker-cli >/dev/null 2>&1; then packages="$packages docker-cli"; fi
	# shellcheck disable=SC2086  # several words on purpose
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >/dev/null ||
		{ engine_says "apt-get could not install $packages."; return 1; }
	if [ -x /usr/bin/docker ]; then DOCKER=/usr/bin/docker; fi
}

start_engine() { # start_engine FOLDER
	if engine_answers; then return 0; fi
	# With systemd as process 1 the package has started, or is starting, a service of its own.
	if [ -d /run/systemd/system ] && engine_ready 20; then return 0; fi
	case "${DOCKER_HOST:-unix:///var/run/docker.sock}" in
	unix:///var/run/docker.sock | unix:///run/docker.sock) ;;
	*) engine_says "DOCKER_HOST names $DOCKER_HOST, where no engine answers."; return 1 ;;
	esac
	[ "$(id -u)" = 0 ] || { engine_says 'starting a Docker engine needs root.'; return 1; }
	command -v dockerd >/dev/null 2>&1 || { engine_says 'there is no dockerd to start.'; return 1; }
	mkdir -p "$1" && chmod 700 "$1" || return 1
	# A pid file left by a killed engine would make the next one refuse to start.
	engine_pid "$1" >/dev/null || rm -f "$1/dockerd.pid"
	setsid nohup dockerd -H unix:///var/run/docker.sock --data-root "$1/data" --exec-root "$1/exec" \
		-G "${ENGINE_GROUP:-0}" -p "$1/dockerd.pid" >>"$1/dockerd.log" 2>&1 </dev/null &
	engine_ready 60 || { engine_says "the Docker engine did not start; its log is $1/dockerd.log."; return 1; }
}

stop_engine() { # stop_engine FOLDER
	pid=$(engine_pid "$1") || return 0
	# Running containers would delay its end by ten seconds. All of them are its own: nothing else shares its data.
	containers=$("$DOCKER" ps -aq 2>/dev/null || true)
	# shellcheck disable=SC2086  # several words on purpose
	if [ -n "$containers" ]; then "$DOCKER" rm -f $containers >/dev/null 2>&1 || true; fi
	kill "$pid" 2>/dev/null || return 0
	tries=0
	# It removes its pid file last; kill -0 would also see a zombie of this very shell.
	while engine_pid "$1" >/dev/null; do
		tries=$((tries + 1))
		[ "$tries" -lt 150 ] || { engine_says "the Docker engine (pid $pid) does not stop."; return 1; }
		sleep 0.2
	done
	# It makes its data folder a mount point of its own and leaves it so.
	umount "$1/data" 2>/dev/null || true
}

engine_gateway() {
	"$DOCKER" network inspect bridge --format '{{(index .IPAM.Config 0).Gateway}}'
}

# --- below: for this file only

engine_says() { echo "engine: $1" >&2; }

engine_pid() { # the pid of the engine that runs below FOLDER, if it still is one
	[ -s "$1/dockerd.pid" ] && [ "$(cat "/proc/$(cat "$1/dockerd.pid")/comm" 2>/dev/null)" = dockerd ] && cat "$1/dockerd.pid"
}

engine_ready() { # wait up to SECONDS until it answers
	tries=0
	until engine_answers; do
		tries=$((tries + 1))
		[ "$tries" -lt "$(($1 * 4))" ] || return 1
		sleep 0.25
	done
}
