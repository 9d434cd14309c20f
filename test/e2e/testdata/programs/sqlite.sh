# Four writers of one database in WAL mode, then queries, VACUUM and integrity checks.
set -eu
sqlite3 a.db 'pragma journal_mode = wal; create table t (id integer primary key, v text, n int); create index i on t (n, v);'
pids=
for j in 1 2 3 4; do
	sqlite3 -bail -cmd '.timeout 30000' a.db "begin immediate;
		with recursive c (x) as (select 1 union all select x + 1 from c where x < 5000)
			insert into t (v, n) select hex(x * $j * 7919), x % 97 from c;
		commit; begin immediate; update t set v = v || n where id % 4 = $j - 1; commit;
		begin; delete from t; rollback;" &
	pids="$pids $!"
done
for p in $pids; do wait "$p"; done
sqlite3 -bail a.db 'select count(*), sum(n) from t; pragma integrity_check; vacuum; pragma integrity_check;
	select n, count(*) from t group by n order by n limit 3; pragma wal_checkpoint(truncate);'
sqlite3 -bail b.db "pragma journal_mode = delete; attach 'a.db' as a; create table u as select substr(v, 1, 8) v, n from a.t order by 1, 2;
	create virtual table f using fts5(v); insert into f select v from u; select count(*) from f where f match '3*'; pragma integrity_check;"
sqlite3 b.db 'select n, count(*), min(v), max(v) from u group by n' | md5sum
