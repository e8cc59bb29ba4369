#!/usr/bin/env bash
# Package: ray 2.60.0, Linux on x86_64. Needs root, for a network namespace without a way out.
# Guess: `ray start --head` on a machine with one network serves at the address that the machine has in that network.
# What happens: Ray takes the address by which the machine would reach 8.8.8.8. A machine in a private network without a
#   default route has none, and the head serves at 127.0.0.1 alone, and says so in one line of its greeting. Another node
#   that is told the right address waits for it without end (with a warning every few seconds), not for a minute.
# Why it matters: clusters of machines without a way to the internet are common; the head looks started, and jobs of other
#   nodes never begin. `--node-ip-address` mends it.
# Seen:
#   without --node-ip-address: Local node IP: 127.0.0.1; its port at 10.213.78.1: closed; a node after 75 s: still waiting
#   with --node-ip-address: Local node IP: 10.213.78.1; its port at 10.213.78.1: open; a node after 75 s: joined
set -euo pipefail
if [ "${1:-}" != inside ]; then
    work=$(mktemp -d /tmp/ray-XXXX)  # short: names of sockets may have 107 characters
    trap 'rm -rf "$work"' EXIT
    python3 -m venv "$work/env" || exit 2
    "$work/env/bin/pip" install --quiet ray==2.60.0 || exit 2
    # The namespaces end with their first process, and with them all processes of Ray.
    unshare --net --mount --pid --fork --kill-child --mount-proc bash "$0" inside "$work"
    exit
fi
work=$2
export HOME="$work/home" RAY_USAGE_STATS_ENABLED=0 RAY_TMPDIR="$work/tmp"
mkdir -p "$HOME" "$RAY_TMPDIR"
unset RAY_ADDRESS RAY_AUTH_MODE RAY_AUTH_TOKEN
cd "$work"
ray() { "$work/env/bin/ray" "$@"; }
address=10.213.78.1
ip link set lo up
ip link add one type veth peer name two
ip address add "$address/24" dev one
ip link set one up
ip link set two up
tried() {  # prints what is seen of a head that is started with some options
    ray start --head --port "$1" --num-cpus 1 --include-dashboard false "${@:2}" > "head-$1.log" 2>&1
    local at port node
    at=$(grep -o 'Local node IP: .*' "head-$1.log")
    port=$("$work/env/bin/python" -c "
import socket
try:
    socket.create_connection(('$address', $1), 5).close()
    print('open')
except OSError:
    print('closed')")
    if timeout 75 "$work/env/bin/ray" start --address "$address:$1" --num-cpus 1 > "node-$1.log" 2>&1; then
        node=joined
    elif [ $? = 124 ]; then
        node="still waiting"
    else
        node=refused
    fi
    echo "$at; its port at $address: $port; a node after 75 s: $node"
    ray stop --force > /dev/null 2>&1 || true
}
without=$(tried 6391)
with=$(tried 6392 --node-ip-address "$address")
echo "without --node-ip-address: $without"
echo "with --node-ip-address: $with"
[ "$without" = "Local node IP: 127.0.0.1; its port at $address: closed; a node after 75 s: still waiting" ]
[ "$with" = "Local node IP: $address; its port at $address: open; a node after 75 s: joined" ]
