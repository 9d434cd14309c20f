package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
)

func echoTCP(args []string) error {
	l, err := net.Listen("tcp", args[0])
	if err != nil {
		return err
	}
	ready()
	return answerTCP(l)
}

func answerTCP(l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			_, _ = io.Copy(c, c) // the client sees what is missing
		}()
	}
}

func echoUDP(args []string) error {
	c, err := listenUDP(args[0])
	if err != nil {
		return err
	}
	ready()
	return answerUDP(c)
}

func listenUDP(addr string) (*net.UDPConn, error) {
	a, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return nil, err
	}
	c, err := net.ListenUDP("udp", a)
	if err == nil {
		_ = c.SetReadBuffer(4 << 20) // as much as there may be
	}
	return c, err
}

func answerUDP(c *net.UDPConn) error {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			return err
		}
		if _, err := c.WriteToUDPAddrPort(buf[:n], from); err != nil {
			return fmt.Errorf("%d bytes: %w", n, err)
		}
	}
}

// echo answers by both protocols at each of some addresses.
func echo(args []string) error {
	ended := make(chan error)
	for _, a := range args {
		l, err := net.Listen("tcp", a)
		if err != nil {
			return err
		}
		c, err := listenUDP(a)
		if err != nil {
			return err
		}
		go func() { ended <- answerTCP(l) }()
		go func() { ended <- answerUDP(c) }()
	}
	ready()
	return <-ended
}

// reopen listens on one port after the other, each for one connection only.
func reopen(args []string) error {
	first, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	for i := 0; ; i++ {
		l, err := net.Listen("tcp", fmt.Sprint(":", first+i%n))
		if err != nil {
			return err
		}
		if i == 0 {
			ready()
		}
		c, err := l.Accept()
		if err != nil {
			return err
		}
		_ = l.Close()
		_, _ = io.Copy(c, c) // the client sees what is missing
		_ = c.Close()
	}
}

// dial makes connections one after another and checks an echo on each.
func dial(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	for i := range n {
		if err := dialOnce(args[1], fmt.Appendf(nil, "connection %d", i)); err != nil {
			return fmt.Errorf("connection %d of %d: %w", i+1, n, err)
		}
	}
	fmt.Printf("%d connections\n", n)
	return nil
}

func dialOnce(addr string, msg []byte) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write(msg); err != nil {
		return err
	}
	got := make([]byte, len(msg))
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if !bytes.Equal(got, msg) {
		return fmt.Errorf("got %q", got)
	}
	return nil
}
