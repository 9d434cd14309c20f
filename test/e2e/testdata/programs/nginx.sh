# Two forked workers serve over a Unix socket, each also while the other is stopped; then a new configuration.
set -eu
head -c 1000000 /dev/zero | tr '\0' x >file
conf() {
	cat >nginx.conf <<EOF
user root;
worker_processes 2;
daemon off;
pid nginx.pid;
error_log stderr;
events { worker_connections 100; }
http {
  access_log off;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  server {
    listen unix:$PWD/socket;
    root $PWD;
    location = /pid { return 200 "\$pid\n"; }
    location = /version { return 200 "$1\n"; }
  }
}
EOF
}
fetch() { curl --fail --silent --show-error --unix-socket socket "$@"; }
workers() { # of this configuration
	until [ "$(fetch http://x/version 2>/dev/null)" = "$1" ] && [ "$(pgrep -c -P "$server")" = 2 ]; do sleep 0.02; done
	pgrep -P "$server"
}
each_alone() {
	for pid in $1; do
		for other in $1; do [ "$other" = "$pid" ] || kill -STOP "$other"; done
		[ "$(fetch http://x/pid)" = "$pid" ] && echo served alone
		for other in $1; do kill -CONT "$other"; done
	done
}

conf first
nginx -p "$PWD" -e stderr -c nginx.conf 2>log &
server=$!
first=$(workers first)
each_alone "$first"
fetch --parallel "http://x/file?[1-50]" 2>>log | md5sum
conf second
kill -HUP "$server"
second=$(workers second)
each_alone "$second"
[ "$first" != "$second" ] && echo replaced
kill -QUIT "$server"
wait "$server"
