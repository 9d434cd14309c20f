package e2e

import (
	"net/http"
	"net/netip"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"junction/internal/lab"
)

// TestClients fetches files with curl and wget inside an instance from a
// server outside, over IPv4 and IPv6.
func TestClients(t *testing.T) {
	commands := map[string]func(u, to string) []string{
		"curl": func(u, to string) []string {
			return []string{"--fail", "--silent", "--show-error", "--globoff", "-o", to, u}
		},
		"wget": func(u, to string) []string { return []string{"-nv", "-O", to, u} },
	}
	matrix(t, func(t *testing.T, v variant) {
		for name, arguments := range commands {
			t.Run(name, func(t *testing.T) {
				r := newRig(t, v, lab.Options{})
				for _, a := range []netip.Addr{lab.ClientAddr4.Addr(), lab.ClientAddr6.Addr()} {
					dir := workDir(t)
					got := filepath.Join(dir, "got")
					u := url(r.serveSite(t, a), "file-"+strconv.Itoa(10<<20))
					i := r.start([]string{"--rw", dir}, append([]string{need(t, name)}, arguments(u, got)...)...)
					require.Zero(t, i.exit())
					requireSameFile(t, got, hashOf(0, 10<<20), u)
				}
			})
		}
	})
}

// serveSite serves the files of writeSite from the client's namespace.
func (r *rig) serveSite(t *testing.T, a netip.Addr) netip.AddrPort {
	dir := workDir(t)
	writeSite(t, dir)
	l, err := r.Client.Listen("tcp", netip.AddrPortFrom(a, 0).String())
	require.NoError(t, err)
	s := &http.Server{Handler: http.FileServer(http.Dir(dir))}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l) // ends with Close
	}()
	t.Cleanup(func() {
		s.Close()
		<-done
	})
	return netip.MustParseAddrPort(l.Addr().String())
}
