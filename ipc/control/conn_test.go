package control

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"junction/ipc"
)

// pathVariable tells a child process to connect there and then do nothing.
const pathVariable = "JUNCTION_CONTROL_TEST_PATH"

func TestMain(m *testing.M) {
	if path := os.Getenv(pathVariable); path != "" {
		os.Exit(holdLease(path))
	}
	goleak.VerifyTestMain(m)
}

func holdLease(path string) int {
	ctx := context.Background()
	c, err := Dial(ctx, path)
	if err == nil {
		_, err = c.Handshake(ctx, Hello{Version: 1, PID: int32(os.Getpid()), Name: "child"})
	}
	if err == nil {
		_, err = c.Receive(ctx)
	}
	fmt.Println(err)
	return 0
}

// serve starts a listener whose connections come out of the channel; they are
// closed at the end of the test.
func serve(t *testing.T, o ListenOptions) (path string, conns chan *Conn) {
	path = filepath.Join(t.TempDir(), "control")
	l, err := Listen(t.Context(), path, o)
	require.NoError(t, err)
	conns = make(chan *Conn, 100)
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		err := l.Serve(ctx, func(ctx context.Context, c *Conn) {
			conns <- c
			<-ctx.Done()
		})
		require.NoError(t, err)
	})
	t.Cleanup(func() { cancel(); done.Wait() })
	return path, conns
}

// connect returns both ends of a connection.
func connect(t *testing.T, o ListenOptions) (client, server *Conn) {
	path, conns := serve(t, o)
	client, err := Dial(t.Context(), path)
	require.NoError(t, err)
	t.Cleanup(func() { client.Close() })
	return client, <-conns
}

func openFDs(t testing.TB) int {
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(entries)
}

func TestHandshakeAndRings(t *testing.T) {
	client, server := connect(t, ListenOptions{})
	require.Equal(t, Peer{int32(os.Getpid()), uint32(os.Getuid()), uint32(os.Getgid())}, server.Peer())
	require.Equal(t, server.Peer(), client.Peer())
	ctx := t.Context()
	hello := make(chan error, 1)
	go func() {
		_, err := client.Handshake(ctx, Hello{Version: 3, Name: "redis"})
		hello <- err
	}()
	h, err := server.Handshake(ctx, Hello{Version: 3, Name: "monitor"})
	require.NoError(t, err)
	require.Equal(t, Hello{Version: 3, Name: "redis"}, h)
	require.NoError(t, <-hello)

	before := openFDs(t)
	p, err := ipc.NewPair(ipc.Options{})
	require.NoError(t, err)
	near, err := p.Attach(ipc.ServerSide)
	require.NoError(t, err)
	fds := p.Files(ipc.InstanceSide)
	require.NoError(t, server.Send(ctx, 5, Rings{ipc.InstanceSide, 1}, fds[:]...))
	require.NoError(t, p.Close())
	env, err := client.Receive(ctx)
	require.NoError(t, err)
	require.Equal(t, uint32(5), env.ID)
	far, err := ipc.Attach(env.Message.(Rings).Side, [ipc.FilesPerEnd]int(env.Files))
	require.NoError(t, err)
	require.NoError(t, errors.Join(near.Transmit(nil, [][]byte{make([]byte, 60)}), near.Flush(), far.Wait()))
	n, err := far.Receive(make([][]byte, 1))
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.NoError(t, errors.Join(near.Close(), far.Close()))
	require.Equal(t, before, openFDs(t))
}

func TestHandshakeRefused(t *testing.T) {
	for name, answer := range map[string]Message{
		"version": Hello{Version: 4},
		"error":   &Error{Code: 1, Text: "no more instances; stop one"},
		"other":   Raw{Kind: FirstRaw},
	} {
		client, server := connect(t, ListenOptions{})
		require.NoError(t, server.Send(t.Context(), 0, answer), name)
		_, err := client.Handshake(t.Context(), Hello{Version: 3})
		switch want := answer.(type) {
		case Hello:
			require.ErrorIs(t, err, ErrVersion)
		case *Error:
			var got *Error
			require.ErrorAs(t, err, &got)
			require.Equal(t, want, got)
		default:
			require.ErrorIs(t, err, ErrProtocol)
		}
	}
}

// TestLastWord: what a side sent last comes, also when it went with messages unread.
func TestLastWord(t *testing.T) {
	client, server := connect(t, ListenOptions{})
	require.NoError(t, client.Send(t.Context(), 1, Raw{Kind: FirstRaw}))
	require.NoError(t, server.Send(t.Context(), 2, &Error{Code: 1, Text: "closing"}))
	require.NoError(t, server.Close())
	env, err := client.Receive(t.Context())
	require.NoError(t, err)
	require.Equal(t, uint32(2), env.ID)
	_, err = client.Receive(t.Context())
	require.ErrorIs(t, err, io.EOF)
}

// TestContext: a Send to somebody who does not read and a Receive from somebody
// who does not write end with their context, and the connection can be used
// afterwards.
func TestContext(t *testing.T) {
	client, server := connect(t, ListenOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error, 2)
	sent := 0
	go func() {
		for {
			if err := client.Send(ctx, 0, Raw{FirstRaw, make([]byte, 1000)}); err != nil {
				errs <- err
				return
			}
			sent++
		}
	}()
	go func() { _, err := client.Receive(ctx); errs <- err }()
	first, err := server.Receive(t.Context())
	require.NoError(t, err)
	require.Len(t, first.Message.(Raw).Payload, 1000)
	cancel()
	require.ErrorIs(t, <-errs, context.Canceled)
	require.ErrorIs(t, <-errs, context.Canceled)
	for range sent - 1 {
		_, err := server.Receive(t.Context())
		require.NoError(t, err)
	}
	require.NoError(t, client.Send(t.Context(), 9, Hello{}))
	env, err := server.Receive(t.Context())
	require.NoError(t, err)
	require.Equal(t, uint32(9), env.ID)
}

// TestLease: the death of a process, by SIGKILL, is seen at once, and so is the
// end of the listener's side.
func TestLease(t *testing.T) {
	path, conns := serve(t, ListenOptions{})
	start := func() (*exec.Cmd, *bufio.Reader, *Conn) {
		self, err := os.Executable()
		require.NoError(t, err)
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), pathVariable+"="+path)
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		c := <-conns
		h, err := c.Handshake(t.Context(), Hello{Version: 1})
		require.NoError(t, err)
		require.Equal(t, int32(cmd.Process.Pid), h.PID)
		require.Equal(t, h.PID, c.Peer().PID)
		return cmd, bufio.NewReader(out), c
	}
	cmd, _, c := start()
	require.NoError(t, cmd.Process.Kill())
	_, err := c.Receive(t.Context())
	require.ErrorIs(t, err, io.EOF)
	require.Error(t, cmd.Wait())

	cmd, out, c := start()
	require.NoError(t, c.Close())
	line, err := out.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "EOF\n", line)
	require.NoError(t, cmd.Wait())
	_, err = c.Receive(t.Context())
	require.ErrorIs(t, err, net.ErrClosed)
}

// raw returns the descriptor of a plain socket connected to path.
func raw(t *testing.T, path string) int {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	require.NoError(t, unix.Connect(fd, &unix.SockaddrUnix{Name: path}))
	return fd
}

func manyFDs(fd, n int) []byte {
	fds := make([]int, n)
	for i := range fds {
		fds[i] = fd
	}
	return unix.UnixRights(fds...)
}

// TestHostileClient: whatever a client sends, with descriptors or without, ends
// in a named error, closes the connection and leaves no descriptor behind.
func TestHostileClient(t *testing.T) {
	valid, err := encode(1, Hello{}, 0)
	require.NoError(t, err)
	for name, c := range map[string]struct {
		message []byte
		files   int
		want    error
	}{
		"empty":                  {nil, 0, io.EOF},
		"empty with descriptors": {nil, 3, io.EOF},
		"short":                  {valid[:5], 0, ErrProtocol},
		"short with descriptors": {valid[:5], 253, ErrProtocol},
		"long":                   {make([]byte, MaxMessage+1), 0, ErrProtocol},
		"longer":                 {make([]byte, MaxMessage+1000), 253, ErrProtocol},
		"another version":        {[]byte{9, 0, 1, 0, 0, 0, 0, 0}, 2, ErrVersion},
		"hello with descriptors": {valid, 1, ErrProtocol},
		"rings without":          {[]byte{1, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1, 0}, 0, ErrProtocol},
		"most descriptors":       {[]byte{1, 0, 0, 1, 0, 0, 0, 0}, 253, ErrProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			path, conns := serve(t, ListenOptions{Files: true})
			fd := raw(t, path)
			defer unix.Close(fd)
			server := <-conns
			before := openFDs(t)
			var oob []byte
			if c.files > 0 {
				oob = manyFDs(fd, c.files)
			}
			if len(c.message) == 0 && len(oob) > 0 {
				sendEmpty(t, fd, oob)
			} else {
				require.NoError(t, unix.Sendmsg(fd, c.message, oob, nil, 0))
			}
			if c.want == io.EOF {
				require.NoError(t, unix.Shutdown(fd, unix.SHUT_WR))
			}
			_, err := server.Receive(t.Context())
			require.ErrorIs(t, err, c.want)
			require.NoError(t, ignoreClosed(server.Close()))
			require.Equal(t, before-1, openFDs(t), "only the connection has been closed")
		})
	}
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// TestUnwantedFiles: where no descriptors are welcome, the kernel refuses them;
// an older one lets them pass, and Receive does.
func TestUnwantedFiles(t *testing.T) {
	path, conns := serve(t, ListenOptions{})
	fd := raw(t, path)
	defer unix.Close(fd)
	server := <-conns
	before := openFDs(t)
	message, err := encode(0, Raw{FirstRaw, []byte("x")}, 1)
	require.NoError(t, err)
	err = unix.Sendmsg(fd, message, manyFDs(fd, 1), nil, 0)
	if err != nil {
		require.ErrorIs(t, err, unix.EPERM)
	} else {
		_, err = server.Receive(t.Context())
		require.ErrorIs(t, err, ErrProtocol)
	}
	require.LessOrEqual(t, openFDs(t), before)
}

// TestNoDescriptorLeft: when the process may have no more descriptors, those
// that come are refused, and none is lost.
func TestNoDescriptorLeft(t *testing.T) {
	client, server := connect(t, ListenOptions{Files: true})
	require.NoError(t, client.Send(t.Context(), 0, Raw{FirstRaw, nil}, 0, 0, 0))
	before := openFDs(t)
	var old unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &old))
	probe, err := unix.Dup(0) // the lowest number that is free
	require.NoError(t, err)
	require.NoError(t, unix.Close(probe))
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(probe) + 1, Max: old.Max}))
	_, err = server.Receive(t.Context())
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &old))
	require.ErrorIs(t, err, ErrProtocol)
	require.Equal(t, before-1, openFDs(t), "only the connection has been closed")
}

func TestListen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control")
	l, err := Listen(t.Context(), path, ListenOptions{Mode: 0o660})
	require.NoError(t, err)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o660), info.Mode().Perm())
	_, err = Listen(t.Context(), path, ListenOptions{})
	require.ErrorIs(t, err, ErrInUse)

	// A listener that died leaves its socket.
	require.NoError(t, l.sock.Close())
	again, err := Listen(t.Context(), path, ListenOptions{})
	require.NoError(t, err)
	require.ErrorIs(t, l.Close(), net.ErrClosed)
	require.FileExists(t, path, "the socket is another's by now")
	require.NoError(t, again.Close())
	require.NoFileExists(t, path)

	require.NoError(t, os.WriteFile(path, nil, 0o600))
	_, err = Listen(t.Context(), path, ListenOptions{})
	require.Error(t, err)
	require.FileExists(t, path)
	_, err = Dial(t.Context(), path)
	require.Error(t, err)
}

// TestMaxConns: connections beyond the number wait for one to end.
func TestMaxConns(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control")
	l, err := Listen(t.Context(), path, ListenOptions{MaxConns: 2})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	var mu sync.Mutex
	now, most, total := 0, 0, 0
	go func() {
		served <- l.Serve(ctx, func(ctx context.Context, c *Conn) {
			mu.Lock()
			now++
			total++
			most = max(most, now)
			mu.Unlock()
			_, err := c.Receive(ctx)
			mu.Lock()
			now--
			mu.Unlock()
			if err == nil {
				err = c.Send(ctx, 0, Hello{})
			}
			_, _ = c.Receive(ctx)
			_ = err
		})
	}()
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			c, err := Dial(t.Context(), path)
			require.NoError(t, err)
			defer c.Close()
			_, err = c.Handshake(t.Context(), Hello{})
			require.NoError(t, err)
		})
	}
	all.Wait()
	cancel()
	require.NoError(t, <-served)
	require.Equal(t, 10, total)
	require.LessOrEqual(t, most, 2)
	require.Zero(t, l.Refused())
}
