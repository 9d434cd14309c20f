package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"junction/internal/lab"
	"junction/internal/lab/afpacket"
)

// observer sees, at the client's end of the wire, what tells others that an
// address has moved: frames from another MAC address than the NIC's, and words
// on addresses that nobody asked for.
type observer struct {
	sock  *afpacket.Socket
	mac   net.HardwareAddr
	wg    sync.WaitGroup
	seen  []string // what must not be
	asked int      // questions of the instance, which are its own business
}

// observe begins to look. The client knows the MAC address of all ips for good from
// then on, so that no answer has a question.
func (r *rig) observe(ips ...string) *observer {
	r.t.Helper()
	o := &observer{}
	require.NoError(r.t, r.Server.Do(func() error {
		nic, err := net.InterfaceByName(lab.ServerNIC)
		if err == nil {
			o.mac = nic.HardwareAddr
		}
		return err
	}))
	for _, ip := range ips {
		r.client("ip", "neigh", "replace", ip, "lladdr", o.mac.String(), "dev", lab.ClientNIC, "nud", "permanent")
	}
	require.NoError(r.t, r.Client.Do(func() (err error) {
		o.sock, err = afpacket.Open(lab.ClientNIC, afpacket.Options{Filter: suspicious(o.mac)})
		return err
	}))
	o.wg.Go(o.run)
	r.t.Cleanup(o.stop)
	return o
}

func (o *observer) stop() {
	_ = o.sock.SetReceiveDeadline(time.Unix(1, 0))
	o.wg.Wait()
	_ = o.sock.Close()
}

// suspicious passes ARP, ICMPv6, and whatever is not from mac.
func suspicious(mac net.HardwareAddr) []unix.SockFilter {
	const (
		ldh, ldw, ldb = unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_LD | unix.BPF_B | unix.BPF_ABS
		jeq, ret      = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	)
	return []unix.SockFilter{
		{Code: ldh, K: 12},
		{Code: jeq, K: unix.ETH_P_ARP, Jt: 7},
		{Code: jeq, K: unix.ETH_P_IPV6, Jf: 2},
		{Code: ldb, K: 14 + 6},
		{Code: jeq, K: unix.IPPROTO_ICMPV6, Jt: 4},
		{Code: ldw, K: 6},
		{Code: jeq, K: binary.BigEndian.Uint32(mac), Jf: 2},
		{Code: ldh, K: 10},
		{Code: jeq, K: uint32(binary.BigEndian.Uint16(mac[4:])), Jt: 1},
		{Code: ret, K: 1 << 16},
		{Code: ret, K: 0},
	}
}

func (o *observer) run() {
	b := make([]byte, afpacket.MaxFrame)
	for {
		n, err := o.sock.Receive(b)
		switch {
		case err == nil:
			o.look(b[:n])
		case errors.Is(err, os.ErrDeadlineExceeded):
			return
		case errors.Is(err, os.ErrClosed):
			return
		}
	}
}

func (o *observer) look(f []byte) {
	const arpRequest, advertisement, echoReply = 1, 136, 129
	src := net.HardwareAddr(f[6:12])
	switch protocol := binary.BigEndian.Uint16(f[12:]); {
	case src.String() != o.mac.String():
		o.seen = append(o.seen, fmt.Sprintf("a frame from %v: %x", src, f[:min(len(f), 64)]))
	case protocol == unix.ETH_P_ARP && len(f) >= 42:
		if binary.BigEndian.Uint16(f[20:]) == arpRequest && string(f[28:32]) != string(f[38:42]) {
			o.asked++
			return
		}
		o.seen = append(o.seen, fmt.Sprintf("ARP that nobody asked for: %x", f[:42]))
	case protocol == unix.ETH_P_IPV6 && len(f) > 54 && f[54] == advertisement:
		o.seen = append(o.seen, fmt.Sprintf("neighbour advertisement that nobody asked for: %x", f))
	}
}

// check ends it: nothing of the kind was seen.
func (o *observer) check(t require.TestingT) {
	o.stop()
	require.Empty(t, o.seen, strings.Join(o.seen, "\n"))
}
