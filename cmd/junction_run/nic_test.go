package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"junction/direct"
	"junction/internal/lab"
)

// directFlags give an instance the NIC of a lab.
var directFlags = []string{"--nic", lab.ServerNIC, "--driver", "afxdp", "--ip", lab.ServerAddr4.String()}

// with is append to a copy.
func with(flags []string, more ...string) []string { return slices.Concat(flags, more) }

func TestNICErrors(t *testing.T) {
	l := lab.ForTest(t, lab.Options{})
	for _, tc := range []struct{ args, want string }{
		{"--nic none --driver afxdp --ip 198.18.0.2/24", "--nic none: no such NIC: "},
		{"--nic none --driver afxdp --ip 198.18.0.2/24", "NICs here that may be used: " + lab.ServerNIC},
		{"--nic lo --driver afxdp --ip 198.18.0.2/24", "--nic lo: "},
	} {
		_, stderr, code := inLab(t, l, append(strings.Fields(tc.args), "--", "true")...)
		require.Equal(t, 1, code)
		requireError(t, stderr, tc.want)
	}
	_, stderr, code := inLab(t, l, "--mode", "direct", "--", "true")
	require.Equal(t, 2, code)
	requireError(t, stderr, "add --nic IF, or start junctiond; there are: "+lab.ServerNIC)
}

// The NIC by which the host lives is neither offered nor taken.
func TestNICOfTheDefaultRoute(t *testing.T) {
	l := lab.ForTest(t, lab.Options{})
	require.NoError(t, l.Server.AddAddr(lab.ServerNIC, netip.MustParsePrefix("198.18.0.9/24")))
	require.NoError(t, l.Server.Do(func() error {
		return netlink.RouteAdd(&netlink.Route{Gw: lab.ClientAddr4.Addr().AsSlice()})
	}))
	_, stderr, code := inLab(t, l, with(directFlags, "--", "true")...)
	require.Equal(t, 1, code)
	requireError(t, stderr, lab.ServerNIC+" would be cut off")
	_, stderr, code = inLab(t, l, "--mode", "direct", "--", "true")
	require.Equal(t, 2, code)
	requireError(t, stderr, "there is none here but loopback and the one with the default route")
}

func TestNICInUse(t *testing.T) {
	l := lab.ForTest(t, lab.Options{})
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	first := l.Server.Command(ctx, binary, with(directFlags, "--", "sh", "-c", "echo ready; read line")...)
	in, err := first.StdinPipe()
	require.NoError(t, err)
	out, err := first.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, first.Start())
	line := make([]byte, len("ready\n"))
	_, err = io.ReadFull(out, line)
	require.NoError(t, err)

	_, stderr, code := inLab(t, l, with(directFlags, "--", "true")...)
	require.Equal(t, 1, code)
	requireError(t, stderr, "--nic "+lab.ServerNIC+": NIC is in use")

	require.NoError(t, in.Close())
	require.Error(t, first.Wait(), "read fails at the end of the input")
	_, stderr, code = inLab(t, l, with(directFlags, "--", "true")...)
	require.Equal(t, 0, code, stderr)
}

func TestNoPrivileges(t *testing.T) {
	l := lab.ForTest(t, lab.Options{})
	c := l.Server.Command(t.Context(), binary, with(directFlags, "--", "true")...)
	c.SysProcAttr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
	c.Dir = "/"
	_, stderr, code := finish(t, c.Cmd, c.Run)
	require.Equal(t, 1, code)
	requireError(t, stderr, "CAP_")
	require.Contains(t, stderr, "run as root")
}

func TestCheck(t *testing.T) {
	l := lab.ForTest(t, lab.Options{})
	var nic netlink.Link
	require.NoError(t, l.Server.Do(func() (err error) {
		if nic, err = netlink.LinkByName(lab.ServerNIC); err != nil {
			return err
		}
		return netlink.LinkSetDown(nic)
	}))
	var r struct {
		Schema     int
		Kernel     string
		Processors int
		Engines    map[string]direct.Offer
		Boundary   direct.Offer
		Privileges map[string]bool
		AFXDP      direct.Offer
		NICs       []string
		NIC        direct.NICReport
	}
	stdout, stderr, code := inLab(t, l, "--check", "--json", "--nic", lab.ServerNIC, "--driver", "afxdp")
	require.Equal(t, 0, code, stderr)
	require.NoError(t, json.Unmarshal([]byte(stdout), &r), stdout)
	require.Equal(t, 2, r.Schema)
	require.NotEmpty(t, r.Kernel)
	require.Positive(t, r.Processors)
	require.Len(t, r.Engines, 2)
	require.True(t, r.Engines["systrap"].Available, r.Engines["systrap"].Reason)
	require.True(t, r.Boundary.Available, r.Boundary.Reason)
	require.True(t, r.Privileges["CAP_NET_ADMIN"])
	require.True(t, r.AFXDP.Available, r.AFXDP.Reason)
	require.Equal(t, []string{lab.ServerNIC}, r.NICs)
	require.True(t, r.NIC.Usable.Available, r.NIC.Usable.Reason)
	require.True(t, r.NIC.NativeXDP)
	require.NoError(t, l.Server.Do(func() (err error) { nic, err = netlink.LinkByName(lab.ServerNIC); return err }))
	require.Zero(t, nic.Attrs().Flags&net.FlagUp, "the NIC is left as it was")

	stdout, stderr, code = inLab(t, l, "--check", "--json", "--nic", "none", "--driver", "afxdp")
	require.Equal(t, 1, code)
	require.NoError(t, json.Unmarshal([]byte(stdout), &r), stdout)
	require.Contains(t, r.NIC.Usable.Reason, "no such NIC")
	require.Contains(t, stderr, `{"error":"--nic none: no such NIC`)

	stdout, _, code = process(t, asNobody, "--check")
	require.Equal(t, 0, code)
	require.Regexp(t, `privileges.CAP_NET_RAW +false`, stdout)
}

func TestStatisticsAddUp(t *testing.T) {
	for _, driver := range []string{"afxdp", "tap"} {
		t.Run(driver, func(t *testing.T) { statisticsAddUp(t, driver) })
	}
}

func statisticsAddUp(t *testing.T, driver string) {
	l := lab.ForTest(t, lab.Options{})
	pcap := filepath.Join(t.TempDir(), "p")
	const client = `import socket
c = socket.create_connection(("198.18.0.1", 7))
c.sendall(b"x" * 100000)
c.shutdown(socket.SHUT_WR)
c.recv(1)`
	ln, err := l.Client.Listen("tcp", "198.18.0.1:7")
	require.NoError(t, err)
	defer ln.Close()
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return // the listener is closed when the test fails
		}
		defer c.Close()
		_, _ = new(bytes.Buffer).ReadFrom(c)
	}()
	_, stderr, code := inLab(t, l, with(directFlags, "--driver", driver, "--stats=json", "--pcap", pcap, "--", "python3", "-c", client)...)
	require.Equal(t, 0, code, stderr)
	var r struct {
		Schema   int
		Syscalls uint64
		Mode     string
		Device   struct {
			Driver    string
			RxPackets uint64            `json:"rx_packets"`
			TxPackets uint64            `json:"tx_packets"`
			Drops     map[string]uint64 `json:"drops"`
		}
		Link struct {
			RxPackets   uint64            `json:"rx_packets"`
			RxDelivered uint64            `json:"rx_delivered"`
			TxPackets   uint64            `json:"tx_packets"`
			TxSent      uint64            `json:"tx_sent"`
			TxBytes     uint64            `json:"tx_bytes"`
			Drops       map[string]uint64 `json:"drops"`
		}
	}
	require.NoError(t, json.Unmarshal([]byte(stderr), &r), stderr)
	require.Equal(t, 1, r.Schema)
	require.Equal(t, "direct", r.Mode)
	require.Equal(t, driver, r.Device.Driver)
	require.NotZero(t, r.Syscalls)
	require.Greater(t, r.Link.TxBytes, uint64(100000))
	rx, tx := r.Link.RxDelivered, r.Link.TxSent
	for reason, n := range r.Link.Drops {
		if strings.HasPrefix(reason, "rx_") {
			rx += n
		} else {
			tx += n
		}
	}
	require.Equal(t, r.Link.RxPackets, rx)
	require.Equal(t, r.Link.TxPackets, tx)
	require.Equal(t, r.Device.RxPackets, r.Link.RxPackets)
	info, err := os.Stat(pcap)
	require.NoError(t, err)
	require.Greater(t, info.Size(), int64(100000))
}

// A file's address, MAC and MTU are those that a neighbour sees.
func TestConfigOnTheWire(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.config")
	require.NoError(t, os.WriteFile(file, []byte(`host_addr 198.18.0.2
host_netmask 255.255.255.0
host_gateway 198.18.0.1
host_mac 02:00:00:00:00:42
host_mtu 1400
runtime_spinning_kthreads 1
`), 0o600))
	const server = `import socket
s = socket.create_server(("0.0.0.0", 7))
print("ready", flush=True)
c, _ = s.accept()
c.sendall(str(c.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)).encode())`
	for _, driver := range []string{"afxdp", "tap"} {
		t.Run(driver, func(t *testing.T) {
			l := lab.ForTest(t, lab.Options{})
			ctx, cancel := context.WithTimeout(context.Background(), timeout)
			defer cancel()
			c := l.Server.Command(ctx, binary, file, "--nic", lab.ServerNIC, "--driver", driver, "--", "python3", "-c", server)
			out, err := c.StdoutPipe()
			require.NoError(t, err)
			var stderr bytes.Buffer
			c.Stderr = &stderr
			require.NoError(t, c.Start())
			_, err = io.ReadFull(out, make([]byte, len("ready\n")))
			require.NoError(t, err, &stderr)
			conn, err := l.Client.DialContext(ctx, "tcp", "198.18.0.2:7")
			require.NoError(t, err, &stderr)
			defer conn.Close()
			mss, err := io.ReadAll(conn)
			require.NoError(t, err)
			n, err := strconv.Atoi(string(mss))
			require.NoError(t, err)
			require.LessOrEqual(t, n, 1400-40, "segment and headers fit the MTU")
			require.Equal(t, "02:00:00:00:00:42", neighbour(t, l, "198.18.0.2"))
			require.NoError(t, c.Wait(), &stderr)
		})
	}
}

// neighbour returns the MAC address that the client has learnt of addr.
func neighbour(t *testing.T, l *lab.Lab, addr string) (mac string) {
	require.NoError(t, l.Client.Do(func() error {
		all, err := netlink.NeighList(0, netlink.FAMILY_V4)
		for _, n := range all {
			if n.IP.String() == addr {
				mac = n.HardwareAddr.String()
			}
		}
		return err
	}))
	return mac
}
