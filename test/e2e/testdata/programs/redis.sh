# A snapshot by a forked child while the server goes on writing, and what the snapshot holds.
set -eu
cli() { redis-cli -s ./socket "$@"; }
start() {
	redis-server --unixsocket ./socket --port 0 --save '' --maxmemory 200mb --logfile log &
	server=$!
	until cli ping >/dev/null 2>&1; do sleep 0.02; done
}
stop() {
	cli shutdown nosave
	wait "$server"
}
saved() { until cli info persistence | grep -q "$1:0"; do sleep 0.02; done; }

start
seq 1 40000 | awk '{ print "SET key:" $1 " value-" $1 }' | cli --pipe >/dev/null
cli rpush list $(seq 1 1000)
cli bgsave
seq 1 40000 | awk '{ print "SET key:" $1 " overwritten" }' | cli --pipe >/dev/null
saved rdb_bgsave_in_progress
cli info persistence | grep -o 'rdb_last_bgsave_status:ok'
mv dump.rdb snapshot
cli bgrewriteaof
saved aof_rewrite_in_progress
cli info persistence | grep -o 'aof_last_bgrewrite_status:ok'
stop

mv snapshot dump.rdb
redis-check-rdb dump.rdb >check && echo sound
start
cli eval 'local n = 0
	for i = 1, 40000 do if redis.call("get", "key:" .. i) == "value-" .. i then n = n + 1 end end
	return n' 0
cli lrange list 999 -1
stop
