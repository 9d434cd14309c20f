package lab

import (
	"context"
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEcho(t *testing.T) {
	l, err := New(Options{})
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	require.NoError(t, l.Server.AddAddr(ServerNIC, ServerAddr4))
	ln, err := l.Server.Listen("tcp", "198.18.0.2:7")
	require.NoError(t, err)
	go func() {
		c, err := ln.Accept()
		if err == nil {
			_, _ = io.Copy(c, c)
			_ = c.Close()
		}
		_ = ln.Close()
	}()
	c, err := l.Client.DialContext(context.Background(), "tcp", "198.18.0.2:7")
	require.NoError(t, err)
	_, err = c.Write([]byte("hello"))
	require.NoError(t, err)
	require.NoError(t, c.(*net.TCPConn).CloseWrite())
	got, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Equal(t, "hello", string(got))
	_ = c.Close()
	out, err := l.Server.Command(context.Background(), "ls", "/sys/class/net").CombinedOutput()
	require.NoError(t, err)
	require.Contains(t, string(out), ServerNIC)
}
