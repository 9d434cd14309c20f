package e2e

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

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
  keepalive_requests 1000000000;
  keepalive_timeout 6h;
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

// checkNginxWorkers expects that both forked workers serve. Of connections that
// come one after the other the quicker worker may well get all: so many come at once.
func checkNginxWorkers(t *testing.T, r *rig, addr netip.AddrPort) {
	checkNginx(t, r, addr)
	pids := make(map[string]bool)
	client := r.http()
	client.Transport.(*http.Transport).DisableKeepAlives = true
	for deadline := time.Now().Add(time.Minute); len(pids) < 2; {
		require.True(t, time.Now().Before(deadline), "connections reached these workers only: %v", pids)
		for _, pid := range getAtOnce(t, client, url(addr, "pid"), 32) {
			pids[pid] = true
		}
	}
}

// getAtOnce fetches a short text n times, over n connections.
func getAtOnce(t *testing.T, client *http.Client, u string, n int) []string {
	t.Helper()
	texts, errs := make([]string, n), make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { texts[i], errs[i] = get(client, u) })
	}
	all.Wait()
	require.NoError(t, errors.Join(errs...))
	return texts
}

// get fetches a short text.
func get(client *http.Client, u string) (string, error) {
	resp, err := client.Get(u)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s", u, resp.Status)
	}
	body, err := io.ReadAll(resp.Body)
	return strings.TrimSpace(string(body)), err
}
