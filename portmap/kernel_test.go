package portmap

import (
	"errors"
	"runtime"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"junction/portmap/table"
)

// TestSharingIsThatOfLinux binds, listens and closes at random, on a Map with
// one instance and on the kernel's sockets in an empty network namespace, and
// demands the same errno of both.
func TestSharingIsThatOfLinux(t *testing.T) {
	inNewNamespace(t, func() {
		rapid.Check(t, func(t *rapid.T) {
			all := addrs("198.18.0.1", "198.18.0.2", "fd00::1")
			m, err := New(Options{Shared: all})
			require.NoError(t, err)
			require.NoError(t, m.Join(1, Lease{Addrs: all}))
			k := kernel{m: m, t: t, fds: make(map[Socket]int)}
			defer k.closeAll()
			for steps := rapid.IntRange(1, 40).Draw(t, "steps"); steps > 0 && !k.ended; steps-- {
				k.step()
			}
		})
	})
}

// inNewNamespace runs f in a thread with a network namespace of its own, which
// ends with the thread.
func inNewNamespace(t *testing.T, f func()) {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for ever: the thread ends with this goroutine
		var err error
		defer func() { done <- err }()
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			f()
		}
	}()
	require.NoError(t, <-done, "make a network namespace: the tests run as root")
}

type kernel struct {
	m   *Map
	t   *rapid.T
	fds map[Socket]int
	// ended: Linux took a short cut (inet_csk_update_fastreuse, and the early end of
	// udp_lib_lport_inuse): it lets a socket with SO_REUSEPORT in beside one such
	// socket of the same user, without a look at others that have only
	// SO_REUSEADDR or another user. The Map looks at all.
	ended bool
	past  []Request // successful ones since their ports were free
}

func (k *kernel) step() {
	sock := Socket(rapid.IntRange(1, 6).Draw(k.t, "socket"))
	fd, open := k.fds[sock]
	if !open {
		k.bind(sock)
		return
	}
	if rapid.Bool().Draw(k.t, "listen") {
		k.same(unix.Listen(fd, 1), k.listen(sock, fd))
		return
	}
	require.NoError(k.t, k.m.Close(1, sock, 0))
	require.NoError(k.t, unix.Close(fd))
	delete(k.fds, sock)
}

func (k *kernel) listen(sock Socket, fd int) error {
	if kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || kind != unix.SOCK_STREAM {
		return unix.EOPNOTSUPP // netstack's answer before it asks
	}
	return k.m.Listen(1, sock, true)
}

func (k *kernel) bind(sock Socket) {
	r := Request{
		Socket: sock,
		Proto:  rapid.SampledFrom([]table.Proto{table.TCP, table.UDP}).Draw(k.t, "proto"),
		Addr: rapid.SampledFrom(addrs("0.0.0.0", "198.18.0.1", "198.18.0.2", "::", "fd00::1",
			"::ffff:0.0.0.0", "::ffff:198.18.0.1")).Draw(k.t, "addr"),
		Port: uint16(rapid.IntRange(2000, 2001).Draw(k.t, "port")),
		Options: SocketOptions{
			ReuseAddr: rapid.Bool().Draw(k.t, "reuseaddr"),
			ReusePort: rapid.Bool().Draw(k.t, "reuseport"),
			UID:       uint32(rapid.IntRange(0, 1).Draw(k.t, "uid")),
		},
	}
	if r.Addr.Is6() && !r.Addr.Is4In6() {
		r.Options.V6Only = rapid.Bool().Draw(k.t, "v6only")
	}
	if len(k.sockets(r)) == 0 {
		k.past = slices.DeleteFunc(k.past, func(p Request) bool { return p.Proto == r.Proto && p.Port == r.Port })
	}
	fd := k.socket(r)
	shortCut := k.shortCut(r)
	err := unix.Bind(fd, sockaddr(r))
	_, got := k.m.Bind(1, r)
	if err != nil {
		require.NoError(k.t, unix.Close(fd))
	} else {
		k.fds[sock] = fd
		k.past = append(k.past, r)
	}
	if k.ended = err == nil && got != nil && shortCut; !k.ended {
		k.same(err, got)
	}
}

// shortCut tells whether there is one of the sockets that the short cut looks
// at, or was since the port was free, and one that it overlooks.
func (k *kernel) shortCut(r Request) bool {
	seen := slices.ContainsFunc(k.past, func(p Request) bool {
		return p.Proto == r.Proto && p.Port == r.Port && p.Options.ReusePort && p.Options.UID == r.Options.UID
	})
	overlooked := slices.ContainsFunc(k.sockets(r), func(s *socket) bool {
		return !s.class.reusePort || s.class.uid != r.Options.UID
	})
	return r.Options.ReusePort && seen && overlooked
}

// sockets are those at the request's port.
func (k *kernel) sockets(r Request) []*socket {
	var all []*socket
	for _, s := range k.m.instances[1].sockets {
		if s.proto == r.Proto && s.number == r.Port {
			all = append(all, s)
		}
	}
	return all
}

func (k *kernel) same(want, got error) {
	var errno unix.Errno
	if got != nil {
		require.ErrorAs(k.t, got, &errno)
	}
	if want == nil {
		require.NoError(k.t, got, "the kernel has no objection")
		return
	}
	require.True(k.t, errors.Is(want, errno), "the kernel says %v, not %v", want, got)
}

// socket makes the kernel's socket with the options, which may bind to
// addresses that the namespace does not have.
func (k *kernel) socket(r Request) int {
	family, kind := unix.AF_INET6, unix.SOCK_STREAM
	if r.Addr.Is4() {
		family = unix.AF_INET
	}
	if r.Proto == table.UDP {
		kind = unix.SOCK_DGRAM
	}
	_, err := unix.SetfsuidRetUid(int(r.Options.UID))
	require.NoError(k.t, err)
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	require.NoError(k.t, err)
	_, err = unix.SetfsuidRetUid(0)
	require.NoError(k.t, err)
	set := func(level, name int, on bool) {
		if on {
			require.NoError(k.t, unix.SetsockoptInt(fd, level, name, 1))
		}
	}
	set(unix.SOL_IP, unix.IP_FREEBIND, true)
	set(unix.SOL_SOCKET, unix.SO_REUSEADDR, r.Options.ReuseAddr)
	set(unix.SOL_SOCKET, unix.SO_REUSEPORT, r.Options.ReusePort)
	set(unix.SOL_IPV6, unix.IPV6_V6ONLY, r.Options.V6Only)
	return fd
}

func sockaddr(r Request) unix.Sockaddr {
	if r.Addr.Is4() {
		return &unix.SockaddrInet4{Port: int(r.Port), Addr: r.Addr.As4()}
	}
	return &unix.SockaddrInet6{Port: int(r.Port), Addr: r.Addr.As16()}
}

func (k *kernel) closeAll() {
	for _, fd := range k.fds {
		require.NoError(k.t, unix.Close(fd))
	}
}
