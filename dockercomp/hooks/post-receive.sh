#!/bin/sh
# post-receive: tells a dockercomp source server what was pushed to this repository.
#
# Put it into the bare repository as hooks/post-receive (mode 755), and the receiver's secret beside HEAD as the file
# dockercomp-secret (mode 600). Each push is written to the folder dockercomp-spool first; what the server could not be
# told is sent again at the next push, or by running this file by hand with no input. It never refuses a push, and holds
# one up for about 20 seconds at most. Needs sh, openssl, curl, sed and od.

server='@SERVER@'
receiver='@RECEIVER@'
patience=15 # seconds for all of it; a request that has begun may take 5 more

main() {
    umask 077
    repository=$(git rev-parse --absolute-git-dir) || exit 0
    spool=$repository/dockercomp-spool
    secret_file=$repository/dockercomp-secret
    for tool in openssl curl sed od; do
        command -v "$tool" >/dev/null 2>&1 || leave "$tool is missing: nothing is sent."
    done
    mkdir -p "$spool" || leave "$spool cannot be made: this push is not reported."
    began=$(date +%s)
    n=0
    while read -r old new ref; do
        n=$((n + 1))
        remember "$old" "$new" "$ref"
    done
    [ -s "$secret_file" ] || leave "$secret_file is missing: the push is kept in $spool until it is there."
    send_all
    exit 0
}

say() {
    printf 'dockercomp: %s\n' "$*" >&2
}

leave() {
    say "$*"
    exit 0
}

# remember OLD NEW REF: one file a pushed name, whole or not there; its name orders and names the delivery.
remember() {
    deleted=false
    case $2 in *[!0]*) ;; *) deleted=true ;; esac
    name=$(printf '%s-%07d-%05d' "$began" "$$" "$n")
    escaped=$(printf '%s' "$3" | sed 's/\\/\\\\/g; s/"/\\"/g')
    if ! printf '{"ref":"%s","before":"%s","after":"%s","deleted":%s}' "$escaped" "$1" "$2" "$deleted" \
        >"$spool/.$name" || ! mv "$spool/.$name" "$spool/$name"; then
        say "$3 could not be kept in $spool: it is not reported."
    fi
}

# send_all: what is in the spool, oldest first, as long as the server answers and there is time.
send_all() {
    for file in "$spool"/*; do
        [ -f "$file" ] || continue
        if [ $(($(date +%s) - began)) -ge "$patience" ] || ! send "$file"; then
            left=0
            for one in "$spool"/*; do [ -f "$one" ] && left=$((left + 1)); done
            say "$left not delivered yet; kept in $spool and sent again at the next push."
            return
        fi
    done
}

# send FILE: post it until its event has an end; fails when it has to be sent again later.
send() {
    pushed=$(sed -n 's/.*"ref":"\(.*\)","before".*"after":"\([0-9a-f]*\)".*/\1 \2/p' "$1")
    while :; do
        post "$1" || return 1
        [ -f "$1" ] || return 0 # another push has delivered it meanwhile
        state=$(field state)
        case $state in new | handling) ;; *) break ;; esac
        [ $(($(date +%s) - began)) -lt "$patience" ] || break
        sleep 1
    done
    tell "${pushed% *}" "${pushed##* }"
    rm -f "$1"
}

# tell REF COMMIT: in words, what the server made of it.
tell() {
    why=$(field why)
    note=$(field note)
    case $status-$state in
        20?-done)
            if [ -n "$(field task)" ]; then
                say "$1: task $(field task) runs; watch it with: dockercomp watch $(field task)"
            else
                say "$1: ${note:-nothing to do.}"
            fi
            ;;
        20?-refused) say "$1: no task: $why" ;;
        20?-*) say "$1: received; the task $2 will be made. ${why:+It waits: $why}" ;;
        *) say "$1: refused: ${error:-the server answered $status.}" ;;
    esac
}

# post FILE: sets status, answer and error; fails when the server cannot take it now.
post() {
    sent=$(sign "$1")
    answer=$(curl --silent --show-error --connect-timeout 3 --max-time 5 \
        --header 'Content-Type: application/json' --header 'X-GitHub-Event: push' \
        --header "X-GitHub-Delivery: $(basename "$1")" --header "X-Hub-Signature-256: sha256=$sent" \
        --data-binary "@$1" --write-out '\n%{http_code}' "$server/in/$receiver" 2>&1)
    status=$(printf '%s\n' "$answer" | sed -n '$p')
    answer=$(printf '%s' "$answer" | sed '$d' | tr '\n' ' ' | sed "s/\\\\\"/'/g")
    error=$(field error)
    case $status in
        2?? | 400 | 409 | 413) return 0 ;; # it will be answered so next time, too
    esac
    say "$server does not take it now: ${error:-$(printf '%s' "$answer" | cut -c 1-200)}"
    return 1
}

# field NAME: the text of that name in the answer; nothing for null.
field() {
    printf '%s' "$answer" | sed -n "s/.*\"$1\": *\"\\([^\"]*\\)\".*/\\1/p"
}

# sign FILE: HMAC-SHA256 with the secret, in hex. By hand: a key on openssl's command line could be read by others.
sign() {
    key=$(tr -d '\r\n' <"$secret_file" | od -An -v -tx1 | tr -d ' \n')
    [ ${#key} -le 128 ] || key=$(tr -d '\r\n' <"$secret_file" | openssl dgst -sha256 -binary | od -An -v -tx1 | tr -d ' \n')
    inner=$( (pad 54 && cat "$1") | openssl dgst -sha256 -binary | od -An -v -tx1 | tr -d ' \n')
    (pad 92 && bytes "$inner") | openssl dgst -sha256 -binary | od -An -v -tx1 | tr -d ' \n'
}

# pad BYTE: the key, filled with zeros to 64 bytes, each of them xor BYTE.
pad() {
    rest=$key
    i=0
    while [ "$i" -lt 64 ]; do
        byte=$(printf '%.2s' "${rest:-00}")
        rest=${rest#??}
        # shellcheck disable=SC2059  # the format is the byte
        printf "\\$(printf '%03o' $((0x$byte ^ $1)))"
        i=$((i + 1))
    done
}

# bytes HEX: the bytes themselves.
bytes() {
    rest=$1
    while [ -n "$rest" ]; do
        byte=$(printf '%.2s' "$rest")
        rest=${rest#??}
        # shellcheck disable=SC2059  # the format is the byte
        printf "\\$(printf '%03o' $((0x$byte)))"
    done
}

main "$@"
