package e2e

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"junction/internal/lab"
)

// TestDNS resolves a name inside an instance with a server outside.
func TestDNS(t *testing.T) {
	matrix(t, func(t *testing.T, v variant) {
		r := newRig(t, v, lab.Options{})
		site := r.serveSite(t, lab.ClientAddr4.Addr())
		r.serveDNS(t, site.Addr())
		dir := workDir(t)
		got := filepath.Join(dir, "got")
		script := fmt.Sprintf("echo nameserver %s > /etc/resolv.conf && exec curl -fsS -o %s http://files.example:%d/file-65536",
			lab.ClientAddr4.Addr(), got, site.Port())
		i := r.start([]string{"--rw", dir}, "sh", "-c", script)
		require.Zero(t, i.exit())
		requireSameFile(t, got, hashOf(0, 65536), "file")
	})
}

// TestResolvConf expects a copy of the host's, which a symbolic link may be.
func TestResolvConf(t *testing.T) {
	host, err := os.ReadFile("/etc/resolv.conf")
	require.NoError(t, err)
	eachEngine(t, func(t *testing.T, engine string) {
		require.Equal(t, string(host), mustRun(t, isolated(engine), "cat", "/etc/resolv.conf"))
	})
}

// serveDNS answers each question for an IPv4 address with a, others with nothing.
func (r *rig) serveDNS(t *testing.T, a netip.Addr) {
	c, err := r.Client.ListenPacket("udp4", netip.AddrPortFrom(lab.ClientAddr4.Addr(), 53).String())
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		answerDNS(c, a)
	}()
	t.Cleanup(func() {
		c.Close()
		<-done
	})
}

// answerDNS answers until c is closed.
func answerDNS(c net.PacketConn, a netip.Addr) {
	buf := make([]byte, 512)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		if reply := dnsReply(buf[:n], a); reply != nil {
			_, _ = c.WriteTo(reply, from) // resolvers ask again
		}
	}
}

// dnsReply answers a query with one question (RFC 1035, section 4).
func dnsReply(query []byte, a netip.Addr) []byte {
	const header, typeA = 12, 1
	end := header // of the question's name
	for end < len(query) && query[end] != 0 {
		end += int(query[end]) + 1
	}
	if end+5 > len(query) {
		return nil
	}
	reply := append([]byte(nil), query[:end+5]...)
	copy(reply[2:], []byte{0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}) // response, recursion available, one question
	if binary.BigEndian.Uint16(query[end+1:]) != typeA {
		return reply
	}
	reply[7] = 1 // answer
	reply = append(reply, 0xc0, header, 0, typeA, 0, 1, 0, 0, 0, 60, 0, 4)
	return append(reply, a.AsSlice()...)
}
