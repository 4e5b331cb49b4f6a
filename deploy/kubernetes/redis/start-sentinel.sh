#!/bin/sh
# Starts this node's Sentinel. What it learns is kept on the volume, so that a restart of all nodes at once finds the
# last primary again.
#
# SELF, FIRST, SENTINELS, DATA: as in start-redis.sh.
set -eu

conf="$DATA/sentinel.conf"
if [ ! -s "$conf" ]; then
    primary=$(timeout 5 redis-cli -h "$SENTINELS" -p 26379 --raw SENTINEL GET-MASTER-ADDR-BY-NAME mymaster 2>/dev/null |
        head -n 1) || true
    case "$primary" in
        "" | ERR* | *" "*) primary="$FIRST" ;;
    esac
    cat >"$conf.new" <<CONF
port 26379
dir $DATA
protected-mode no
sentinel resolve-hostnames yes
sentinel announce-hostnames yes
sentinel announce-ip $SELF
sentinel monitor mymaster $primary 6379 2
sentinel down-after-milliseconds mymaster 5000
sentinel failover-timeout mymaster 30000
sentinel parallel-syncs mymaster 1
CONF
    mv "$conf.new" "$conf"
fi
exec redis-server "$conf" --sentinel "$@"
