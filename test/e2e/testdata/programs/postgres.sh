# A cluster from initdb on: back ends that transfer in transactions, parallel
# queries, a crash in which nothing is lost, a dump. $1 is where the binaries are.
set -eu
export PATH="$1:$PATH" PGHOST="$PWD" PGUSER=postgres PGDATA="$PWD/data"
initdb -A trust -U postgres -N -E UTF8 --locale=C >initdb.log
cat >>data/postgresql.conf <<EOF
listen_addresses = ''
unix_socket_directories = '$PWD'
fsync = off
max_connections = 20
shared_buffers = 16MB
autovacuum_naptime = 1s
min_parallel_table_scan_size = 0
parallel_setup_cost = 0
parallel_tuple_cost = 0
EOF
start() { pg_ctl -w -t 50 -l log start >/dev/null; }
sql() { psql -X -q -A -t -v ON_ERROR_STOP=1 "$@"; }
balances() { sql -c "select sum(bal), count(*), md5(string_agg(id || ':' || bal, ',' order by id)) from acc"; }

start
sql -c 'create table acc (id int primary key, bal int not null); create index on acc (bal);
	insert into acc select g, 1000 from generate_series(1, 100) g'
pids=
for c in 1 2 3 4; do
	for i in $(seq 50); do
		a=$((i * c * 7 % 100 + 1)) b=$(((i * c * 13 + 1) % 100 + 1))
		echo "begin; select from acc where id in ($a, $b) order by id for update;
			update acc set bal = bal - $i where id = $a; update acc set bal = bal + $i where id = $b; commit;"
	done | sql >/dev/null &
	pids="$pids $!"
done
for p in $pids; do wait "$p"; done
balances
sql -c 'create table big as select g, md5(g::text) m from generate_series(1, 50000) g' -c 'analyze big' \
	-c 'select count(*), min(m), max(m), count(distinct substr(m, 1, 3)) from big' \
	-c 'explain select count(*) from big' | grep -o -E '^[0-9].*|Parallel Seq Scan'
sql -c 'vacuum full acc, big' -c checkpoint -c "update acc set bal = bal + 1"
pg_ctl -w -m immediate stop >/dev/null
start
balances
pg_dump --data-only --inserts --table=acc | grep '^INSERT' | sort | md5sum
pg_ctl -w -m fast stop
