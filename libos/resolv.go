package libos

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/fspath"
	"gvisor.dev/gvisor/pkg/sentry/vfs"
	"gvisor.dev/gvisor/pkg/usermem"
)

const (
	resolvConf = "/etc/resolv.conf"
	// stubUpstreams is where systemd-resolved keeps the servers behind its
	// stub on 127.0.0.53 (systemd-resolved.service(8), /ETC/RESOLV.CONF).
	stubUpstreams = "/run/systemd/resolve/resolv.conf"
)

// fixResolvConf replaces the instance's copy of a resolv.conf whose name
// servers are all on the host's loopback, which the instance cannot reach, by
// the list of the servers behind them, where the host has one.
func (m *mounter) fixResolvConf() error {
	conf, err := m.readFile(resolvConf)
	if err != nil || !onlyLoopbackServers(conf) {
		return nil
	}
	upstreams, err := m.readFile(stubUpstreams)
	if err != nil || onlyLoopbackServers(upstreams) {
		return nil
	}
	if err := m.writeFile(resolvConf, upstreams); err != nil {
		return fmt.Errorf("writing the instance's %s: %w", resolvConf, err)
	}
	return nil
}

// onlyLoopbackServers tells whether conf names servers and all are loopback addresses.
func onlyLoopbackServers(conf []byte) bool {
	found := false
	for s := bufio.NewScanner(bytes.NewReader(conf)); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		addr, err := netip.ParseAddr(fields[1])
		if err != nil || !addr.IsLoopback() {
			return false
		}
		found = true
	}
	return found
}

// readFile returns the first 64 KiB of the instance's file at p.
func (m *mounter) readFile(p string) ([]byte, error) {
	op := &vfs.PathOperation{Root: m.root, Start: m.root, Path: fspath.Parse(p), FollowFinalSymlink: true}
	fd, err := m.vfs.OpenAt(m.ctx, m.creds, op, &vfs.OpenOptions{Flags: linux.O_RDONLY})
	if err != nil {
		return nil, err
	}
	defer fd.DecRef(m.ctx)
	buf := make([]byte, 64<<10)
	n, err := fd.Read(m.ctx, usermem.BytesIOSequence(buf), vfs.ReadOptions{})
	if n == 0 && err != nil && err != io.EOF {
		return nil, err
	}
	return buf[:n], nil
}

// writeFile replaces the file (not the target of a symlink) at p in the overlay.
func (m *mounter) writeFile(p string, data []byte) error {
	op := &vfs.PathOperation{Root: m.root, Start: m.root, Path: fspath.Parse(p)}
	if err := m.vfs.UnlinkAt(m.ctx, m.creds, op); err != nil {
		return err
	}
	fd, err := m.vfs.OpenAt(m.ctx, m.creds, op, &vfs.OpenOptions{Flags: linux.O_WRONLY | linux.O_CREAT, Mode: 0644})
	if err != nil {
		return err
	}
	defer fd.DecRef(m.ctx)
	_, err = fd.Write(m.ctx, usermem.BytesIOSequence(data), vfs.WriteOptions{})
	return err
}
