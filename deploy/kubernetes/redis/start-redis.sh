#!/bin/sh
# Starts this node's server as a replica of the primary that the Sentinels name, or as the primary if that is this
# node. When no Sentinel answers, the one on this node's volume remembers; a new cluster begins with FIRST.
#
# SELF, FIRST: host names of this node and of the first. SENTINELS: host that leads to any Sentinel.
# DATA: this node's volume.
set -eu

primary=$(timeout 5 redis-cli -h "$SENTINELS" -p 26379 --raw SENTINEL GET-MASTER-ADDR-BY-NAME mymaster 2>/dev/null |
    head -n 1) || true
case "$primary" in
    "" | ERR* | *" "*)
        primary=""
        if [ -s "$DATA/sentinel.conf" ]; then
            primary=$(awk '$1 == "sentinel" && $2 == "monitor" { print $4 }' "$DATA/sentinel.conf" | tr -d '"')
        fi
        ;;
esac
primary=${primary:-$FIRST}

set -- redis-server "${CONF:-/etc/redis/redis.conf}" --dir "$DATA" --replica-announce-ip "$SELF" "$@"
if [ "$primary" != "$SELF" ]; then
    set -- "$@" --replicaof "$primary" 6379
fi
exec "$@"
