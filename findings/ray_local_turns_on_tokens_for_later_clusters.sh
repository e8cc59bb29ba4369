#!/usr/bin/env bash
# Package: ray 2.60.0, Linux on x86_64.
# Guess: `ray.init(address="local")` starts a Ray of its own, and leaves nothing behind that a later `ray start` would heed.
# What happens: it writes a token to ~/.ray/auth_token, which stays. From then on `ray start --head` of this user asks for
#   the token by itself, although nobody chose that: its status comes only to those who send it. A program that joins the
#   same cluster by `ray.init(address=…)`, or a node that joins by `ray start --address`, does not send the token that lies
#   in the same home, unless RAY_AUTH_MODE=token is set; after a minute it says that it failed to connect, not why.
# Why it matters: a notebook that once scored with a local Ray makes the cluster of the next job refuse its own workers.
# Seen:
#   token before: False, after ray.init(address="local"): True
#   a cluster started before: joined
#   a cluster started after, without RAY_AUTH_MODE: no connection
#   a cluster started after, with RAY_AUTH_MODE=token: joined
set -euo pipefail
work=$(mktemp -d /tmp/ray-XXXX)  # short: names of sockets may have 107 characters
export HOME="$work/home" RAY_USAGE_STATS_ENABLED=0 RAY_TMPDIR="$work/tmp"
mkdir -p "$HOME" "$RAY_TMPDIR"
unset RAY_ADDRESS RAY_AUTH_MODE RAY_AUTH_TOKEN
ray() { "$work/env/bin/ray" "$@"; }
trap 'ray stop --force > /dev/null 2>&1 || true; rm -rf "$work"' EXIT
python3 -m venv "$work/env" || exit 2
"$work/env/bin/pip" install --quiet ray==2.60.0 || exit 2
cd "$work"
cat > local.py <<'EOF2'
from pathlib import Path

import ray

token = Path.home() / ".ray" / "auth_token"
before = token.exists()
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="CRITICAL")
ray.shutdown()
print(f"token before: {before}, after ray.init(address=\"local\"): {token.exists()}")
EOF2
cat > join.py <<'EOF2'
import sys

import ray

try:
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level="CRITICAL")
    print("joined" if ray.nodes() else "joined, no nodes")
except Exception as error:
    print("no connection" if "Failed to connect" in str(error) else f"another error: {error}")
EOF2
head() {
    ray start --head --port "$1" --num-cpus 1 --include-dashboard false --disable-usage-stats > "head-$1.log" 2>&1
}
joins() {  # prints what a program says that joins the cluster at a port
    timeout 120 "$work/env/bin/python" join.py "127.0.0.1:$1" 2> join.log | tail -1 || echo "no answer"
}
head 6391
first=$(joins 6391)
ray stop --force > /dev/null 2>&1
"$work/env/bin/python" local.py 2> local.log | tail -1 | tee token.txt
head 6392
second=$(joins 6392)
third=$(RAY_AUTH_MODE=token joins 6392)
echo "a cluster started before: $first"
echo "a cluster started after, without RAY_AUTH_MODE: $second"
echo "a cluster started after, with RAY_AUTH_MODE=token: $third"
[ "$(cat token.txt)" = 'token before: False, after ray.init(address="local"): True' ]
[ "$first" = joined ] && [ "$second" = "no connection" ] && [ "$third" = joined ]
