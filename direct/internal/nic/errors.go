package nic

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"
)

// Errors that callers tell apart with errors.Is.
var (
	ErrNoNIC       = errors.New("no such NIC")
	ErrInUse       = errors.New("NIC is in use")
	ErrPermission  = errors.New("missing privilege")
	ErrUnsupported = errors.New("not supported")
	ErrMTU         = errors.New("MTU not possible")
	// ErrDefaultRoute: the host reaches its network through this NIC.
	ErrDefaultRoute = errors.New("NIC carries the host's default route")
	// ErrFull: no room now, later perhaps.
	ErrFull = errors.New("transmit queue is full")
	// ErrTooLong: the frame is longer than MTU and offloads permit, or has too
	// many parts.
	ErrTooLong = errors.New("frame is too long")
	// ErrBadFrame: the frame is shorter than an Ethernet header.
	ErrBadFrame = errors.New("frame is shorter than an Ethernet header")
	// ErrBadHeader: the virtio_net_hdr does not fit the frame, or asks for
	// something that Offloads does not offer.
	ErrBadHeader = errors.New("bad virtio_net_hdr")
)

// Denied turns a refusal by the kernel into an ErrPermission that names the
// capabilities op needs; other errors are wrapped as they are.
func Denied(err error, op string, caps ...string) error {
	if err == nil {
		return nil
	}
	if !errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%s: %w", op, err)
	}
	return fmt.Errorf("%s: %w: it needs %s; run as root, or grant it with: setcap %s+ep PROGRAM (%w)",
		op, ErrPermission, strings.Join(caps, " and "), strings.ToLower(strings.Join(caps, ",")), unix.EPERM)
}

// MTUError says that packets of mtu bytes cannot pass name and what to do.
func MTUError(name string, mtu, most int, advice string) error {
	return fmt.Errorf("%w: %d bytes on %s, which carries at most %d: %s", ErrMTU, mtu, name, most, advice)
}
