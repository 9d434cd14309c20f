package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// nginxConf serves the directory, and /pid with the worker's process id. All
// that nginx writes goes below the directory, into the instance's overlay.
const nginxConf = `
%s
user root;
daemon off;
pid nginx.pid;
error_log stderr;
events { worker_connections 2048; }
http {
  access_log off;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  keepalive_requests 100000;
  server {
    listen 80;
    listen [::]:80;
    root .;
    location = /pid { return 200 "$pid\n"; }
  }
}
`

func nginxArgv(t *testing.T, dir string) []string {
	return nginxWith(t, dir, "master_process off;")
}

func nginxWorkersArgv(t *testing.T, dir string) []string {
	return nginxWith(t, dir, "worker_processes 2;")
}

func nginxWith(t *testing.T, dir, processes string) []string {
	writeSite(t, dir)
	conf := strings.ReplaceAll(fmt.Sprintf(nginxConf, processes), "root .;", "root "+dir+";")
	writeFile(t, dir, "nginx.conf", []byte(conf))
	return []string{need(t, "nginx"), "-p", dir, "-e", "stderr", "-c", "nginx.conf"}
}

// checkNginx fetches files, and loads the server with wrk.
func checkNginx(t *testing.T, r *rig, addr netip.AddrPort) {
	checkFiles(t, r, addr)
	out := r.client("wrk", "-t", "1", "-c", "50", "-d", "2s", url(addr, "file-100"))
	require.Regexp(t, regexp.MustCompile(`[1-9]\d* requests in`), out)
	require.NotContains(t, out, "Socket errors")
	require.NotContains(t, out, "Non-2xx")
}

// checkNginxWorkers expects that both forked workers serve.
func checkNginxWorkers(t *testing.T, r *rig, addr netip.AddrPort) {
	checkNginx(t, r, addr)
	pids := make(map[string]bool)
	client := r.http()
	client.Transport.(*http.Transport).DisableKeepAlives = true
	for range 1000 {
		pids[get(t, client, url(addr, "pid"))] = true
		if len(pids) == 2 {
			return
		}
	}
	t.Fatalf("1000 connections reached these workers only: %v", pids)
}

// get fetches a short text.
func get(t *testing.T, client *http.Client, u string) string {
	t.Helper()
	resp, err := client.Get(u)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return strings.TrimSpace(string(body))
}
