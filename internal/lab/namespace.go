package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// ErrClosed says that a lab was used after Close.
var ErrClosed = errors.New("lab: closed")

// Namespace is a named network namespace. Its methods may be called from any
// goroutine until the lab is closed.
type Namespace struct {
	name    string
	id      string   // as /proc/PID/ns/net shows it, "net:[4026532000]"
	builtin []string // links that every namespace has
	thread  *thread
	home    *os.File // the mount namespace that the lab was made in

	mu      sync.Mutex
	closed  bool           // guarded by mu
	handle  netns.NsHandle // guarded by mu; changes only in close
	started []*Cmd         // guarded by mu
}

// newNamespace makes a named namespace with its loopback up.
func newNamespace(name string) (*Namespace, error) {
	n := &Namespace{name: name, handle: netns.None()}
	var err error
	if n.thread, err = newThread(n.enterNew); err != nil {
		return nil, fmt.Errorf("lab: namespace %s: %w", name, err)
	}
	if n.builtin, err = n.Links(); err == nil {
		err = n.up("lo")
	}
	if err != nil {
		return nil, errors.Join(err, n.close())
	}
	return n, nil
}

// enterNew makes the namespace; it runs on the thread that will live in it.
func (n *Namespace) enterNew() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("unshare the network namespace (needs root, CAP_SYS_ADMIN): %w", err)
	}
	var err error
	if n.id, err = os.Readlink("/proc/thread-self/ns/net"); err != nil {
		return err
	}
	if n.home, err = os.Open("/proc/thread-self/ns/mnt"); err != nil {
		return err
	}
	if n.handle, err = netns.Get(); err != nil {
		return errors.Join(fmt.Errorf("open the namespace: %w", err), n.home.Close())
	}
	if err := nameNamespace(n.Path()); err != nil {
		return errors.Join(err, n.handle.Close(), n.home.Close())
	}
	return nil
}

// Name is what `ip netns exec NAME` takes.
func (n *Namespace) Name() string { return n.name }

// Path is the file that stands for the namespace.
func (n *Namespace) Path() string { return filepath.Join(netnsDir, n.name) }

// Do runs f in the namespace, on the calling goroutine, whose OS thread is there
// until f returns. Sockets that f makes stay in the namespace; goroutines that
// f starts are not in it. /sys is still the caller's: only programs started
// with Command see the namespace's. Do may be nested and run in parallel.
func (n *Namespace) Do(f func() error) (err error) {
	runtime.LockOSThread()
	before, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("lab: open the current namespace: %w", err)
	}
	if err := n.enter(); err != nil {
		runtime.UnlockOSThread()
		return errors.Join(fmt.Errorf("lab: enter %s: %w", n.name, err), before.Close())
	}
	defer func() {
		back := netns.Set(before)
		if back == nil {
			runtime.UnlockOSThread()
		} else { // stays locked: the thread ends with its goroutine
			back = fmt.Errorf("lab: leave %s: %w", n.name, back)
		}
		err = errors.Join(err, back, before.Close())
	}()
	return f()
}

// enter moves the calling thread into the namespace.
func (n *Namespace) enter() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return ErrClosed
	}
	return netns.Set(n.handle)
}

// DialContext connects to a literal address from inside the namespace. It fits
// http.Transport. Host names are refused: they would be resolved outside.
func (n *Namespace) DialContext(ctx context.Context, network, address string) (c net.Conn, err error) {
	if _, err := netip.ParseAddrPort(address); err != nil {
		return nil, fmt.Errorf("lab: dial needs IP:PORT: %w", err)
	}
	err = n.Do(func() error {
		var d net.Dialer
		c, err = d.DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// Listen listens on a literal address inside the namespace.
func (n *Namespace) Listen(network, address string) (l net.Listener, err error) {
	err = n.Do(func() error {
		l, err = net.Listen(network, address)
		return err
	})
	return l, err
}

// ListenPacket opens a packet socket, such as UDP's, inside the namespace.
func (n *Namespace) ListenPacket(network, address string) (c net.PacketConn, err error) {
	err = n.Do(func() error {
		c, err = net.ListenPacket(network, address)
		return err
	})
	return c, err
}

// Sysctl sets a kernel parameter of the namespace, for example
// "net/ipv4/ip_local_port_range".
func (n *Namespace) Sysctl(key, value string) error {
	return n.Do(func() error {
		if err := os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0); err != nil {
			return fmt.Errorf("lab: sysctl in %s: %w", n.name, err)
		}
		return nil
	})
}

// netlink runs f with a netlink handle of the namespace.
func (n *Namespace) netlink(f func(*netlink.Handle) error) error {
	h, err := n.openNetlink()
	if err != nil {
		return fmt.Errorf("lab: netlink in %s: %w", n.name, err)
	}
	defer h.Close()
	return f(h)
}

func (n *Namespace) openNetlink() (*netlink.Handle, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, ErrClosed
	}
	return netlink.NewHandleAt(n.handle, unix.NETLINK_ROUTE)
}

// close kills what runs in the namespace, deletes its links and removes it.
func (n *Namespace) close() error {
	if n.isClosed() {
		return nil
	}
	return errors.Join(n.kill(), n.deleteLinks(), n.remove())
}

func (n *Namespace) isClosed() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.closed
}

// kill kills every process in the namespace, and reaps those started by this
// one. Programs can be started no more.
func (n *Namespace) kill() error {
	n.mu.Lock()
	thread, started := n.thread, n.started
	n.thread, n.started = nil, nil
	n.mu.Unlock()
	if thread != nil {
		thread.stop() // its programs get SIGKILL now
	}
	err := killProcesses(n.id)
	for _, c := range started {
		_ = c.Wait() // killed: its status says nothing
	}
	return err
}

// remove takes the name away. The kernel dismantles the namespace when nothing
// refers to it.
func (n *Namespace) remove() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	errs := []error{unnameNamespace(n.Path()), n.handle.Close()}
	if n.home != nil {
		errs = append(errs, n.home.Close())
	}
	return errors.Join(errs...)
}
