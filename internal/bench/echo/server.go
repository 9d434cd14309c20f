package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"junction/direct"
	"junction/internal/lab"
	"junction/libos/netstack"
	modeswitch "junction/switch"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
)

const (
	// serverEnv tells a copy of this program which variant to serve.
	serverEnv = "JUNCTION_ECHO_SERVER"
	port      = 7000
)

// serve runs a variant's server until stdin ends. It prints a line when ready.
func serve(variant string) error {
	tcp, udp, stop, err := listen(variant)
	if err != nil {
		return err
	}
	defer stop()
	go accept(tcp)
	go echoUDP(udp)
	fmt.Println("ready")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func listen(variant string) (net.Listener, net.PacketConn, func(), error) {
	name, opts, err := parse(variant)
	if err != nil {
		return nil, nil, nil, err
	}
	if name == "native" {
		addr := fmt.Sprintf(":%d", port)
		tcp, err := net.Listen("tcp4", addr)
		if err != nil {
			return nil, nil, nil, err
		}
		udp, err := net.ListenPacket("udp4", addr)
		return tcp, udp, func() {}, err
	}
	dev, err := direct.Open(context.Background(), direct.Options{NIC: lab.ServerNIC, Driver: name})
	if err != nil {
		return nil, nil, nil, err
	}
	off := dev.Offloads()
	opts.Backend = modeswitch.Backend{
		Queues: modeswitch.Queues(dev.Queues()), MAC: dev.MAC(), MTU: dev.MTU(),
		TXChecksum: off.TXChecksum, GSOMax: off.GSOMax, RXTrusted: off.RXTrusted,
	}
	link, err := modeswitch.New(opts)
	if err != nil {
		return nil, nil, nil, err
	}
	n, err := netstack.New(netstack.Options{Link: link, Addresses: []netip.Prefix{lab.ServerAddr4}})
	if err != nil {
		return nil, nil, nil, err
	}
	stop := func() {
		n.Close()
		fmt.Fprintf(os.Stderr, "%s %+v\n", variant, link.Stats())
		_ = dev.Close()
	}
	tcp, err := gonet.ListenTCP(n.Stack(), tcpip.FullAddress{Port: port}, ipv4.ProtocolNumber)
	if err != nil {
		return nil, nil, stop, err
	}
	udp, err := gonet.DialUDP(n.Stack(), &tcpip.FullAddress{Port: port}, nil, ipv4.ProtocolNumber)
	return tcp, udp, stop, err
}

// parse reads a variant: a driver or "native", then options of the endpoint.
func parse(variant string) (name string, o modeswitch.Options, err error) {
	fields := strings.Split(variant, ",")
	for _, f := range fields[1:] {
		key, value, _ := strings.Cut(f, "=")
		switch key {
		case "spin":
			o.Spin, err = time.ParseDuration(value)
		case "batch":
			o.Batch, err = strconv.Atoi(value)
		default:
			err = fmt.Errorf("unknown option %q: give spin=DURATION or batch=N", key)
		}
		if err != nil {
			return "", o, err
		}
	}
	return fields[0], o, nil
}

func accept(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go pong(c)
	}
}

// pong answers each inline command with +PONG, as many at once as have come.
func pong(c net.Conn) {
	defer c.Close()
	r := bufio.NewReaderSize(c, 16<<10)
	out := make([]byte, 0, 16<<10)
	for {
		if _, err := r.ReadSlice('\n'); err != nil {
			return
		}
		out = append(out, "+PONG\r\n"...)
		if r.Buffered() > 0 && len(out) < cap(out)-16 {
			continue
		}
		if _, err := c.Write(out); err != nil {
			return
		}
		out = out[:0]
	}
}

func echoUDP(c net.PacketConn) {
	buf := make([]byte, 2048)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		if _, err := c.WriteTo(buf[:n], from); err != nil {
			return
		}
	}
}
