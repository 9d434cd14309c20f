package afpacket

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// Layout of struct tpacket_auxdata (linux/if_packet.h), native byte order.
const (
	auxLen      = 20
	auxStatus   = 0
	auxVLANTCI  = 16
	auxVLANTPID = 18
)

// Ethernet header: two addresses, then the type or a VLAN tag before it.
const (
	addressesLen = 12
	vlanTagLen   = 4
)

// receiver holds the arguments and results of one receive, so that the poller's
// callback needs no allocation.
type receiver struct {
	try   func(fd uintptr) bool
	buf   []byte
	oob   [64]byte
	n     int
	oobn  int
	flags int
	err   error
}

func (r *receiver) init() {
	r.try = func(fd uintptr) bool {
		// A tag put in again takes room that recvmsg must leave.
		room := r.buf[:max(0, len(r.buf)-vlanTagLen)]
		r.n, r.oobn, r.flags, _, r.err = unix.Recvmsg(int(fd), room, r.oob[:], unix.MSG_TRUNC)
		return !again(r.err)
	}
}

// sender is the same for sending.
type sender struct {
	try   func(fd uintptr) bool
	frame []byte
	err   error
}

func (w *sender) init() {
	w.try = func(fd uintptr) bool {
		_, w.err = unix.Write(int(fd), w.frame)
		return !again(w.err)
	}
}

func again(err error) bool {
	return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR)
}

// frame finishes what has been received.
func (r *receiver) frame(vnet bool) (int, error) {
	if r.flags&unix.MSG_TRUNC != 0 || r.n > len(r.buf)-vlanTagLen {
		return 0, ErrTooLong
	}
	aux, ok := auxdata(r.oob[:r.oobn])
	if !ok {
		return r.n, nil
	}
	status := binary.NativeEndian.Uint32(aux[auxStatus:])
	if status&unix.TP_STATUS_CSUMNOTREADY != 0 && !vnet {
		return 0, ErrPartialChecksum
	}
	if status&unix.TP_STATUS_VLAN_VALID == 0 {
		return r.n, nil
	}
	tag := vlanTag(aux, status)
	return insertTag(r.buf, r.n, vnet, tag), nil
}

// auxdata finds the packet's struct tpacket_auxdata among control messages.
func auxdata(oob []byte) ([]byte, bool) {
	for len(oob) > 0 {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return nil, false
		}
		if h.Level == unix.SOL_PACKET && h.Type == unix.PACKET_AUXDATA && len(data) >= auxLen {
			return data, true
		}
		oob = rest
	}
	return nil, false
}

// vlanTag returns the tag's four bytes as on the wire.
func vlanTag(aux []byte, status uint32) (tag [vlanTagLen]byte) {
	tpid := uint16(unix.ETH_P_8021Q)
	if status&unix.TP_STATUS_VLAN_TPID_VALID != 0 {
		tpid = binary.NativeEndian.Uint16(aux[auxVLANTPID:])
	}
	binary.BigEndian.PutUint16(tag[:], tpid)
	binary.BigEndian.PutUint16(tag[2:], binary.NativeEndian.Uint16(aux[auxVLANTCI:]))
	return tag
}

// insertTag puts a tag after the addresses of the n bytes in buf, which has room
// for it, and returns the new length.
func insertTag(buf []byte, n int, vnet bool, tag [vlanTagLen]byte) int {
	at := addressesLen
	if vnet {
		at += vnetHdrLen
	}
	if n < at {
		return n
	}
	copy(buf[at+vlanTagLen:], buf[at:n])
	copy(buf[at:], tag[:])
	return n + vlanTagLen
}

// vnetHdrLen is the length of struct virtio_net_hdr.
const vnetHdrLen = 10
