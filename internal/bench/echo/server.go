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
	// bulkPort is that of bulkServer, which sends bulkBytes at once.
	bulkPort  = 7001
	bulkBytes = 256 << 20
)

// serve runs a variant's server until stdin ends. It prints a line when ready.
func serve(variant string) error {
	tcp, bulk, udp, stop, err := listen(variant)
	if err != nil {
		return err
	}
	defer stop()
	go accept(tcp, pong)
	go echoUDP(udp)
	go accept(bulk, bulkServer)
	fmt.Println("ready")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// bulkServer answers "r" by reading all there is, then one byte, and "w" by
// writing bulkBytes.
func bulkServer(c net.Conn) {
	defer c.Close()
	var what [1]byte
	if _, err := io.ReadFull(c, what[:]); err != nil {
		return
	}
	buf := make([]byte, 256<<10)
	if what[0] == 'w' {
		for left := bulkBytes; left > 0; left -= len(buf) {
			if _, err := c.Write(buf); err != nil {
				return
			}
		}
		return
	}
	for {
		if _, err := c.Read(buf); err != nil {
			break
		}
	}
	_, _ = c.Write(what[:]) // the client notices if it does not come
}

func listen(variant string) (tcp, bulk net.Listener, udp net.PacketConn, stop func(), err error) {
	name, opts, err := parse(variant)
	if err != nil {
		return nil, nil, nil, nil, err
	}
	if name == "native" {
		return listenNative()
	}
	link, dev, err := openLink(name, opts)
	if err != nil {
		return nil, nil, nil, nil, err
	}
	n, err := netstack.New(netstack.Options{Link: link, Addresses: []netip.Prefix{lab.ServerAddr4}})
	if err != nil {
		return nil, nil, nil, nil, err
	}
	stop = func() {
		n.Close()
		fmt.Fprintf(os.Stderr, "%s %+v\n", variant, link.Stats())
		_ = dev.Close()
	}
	if tcp, err = gonet.ListenTCP(n.Stack(), tcpip.FullAddress{Port: port}, ipv4.ProtocolNumber); err != nil {
		return nil, nil, nil, nil, err
	}
	if bulk, err = gonet.ListenTCP(n.Stack(), tcpip.FullAddress{Port: bulkPort}, ipv4.ProtocolNumber); err != nil {
		return nil, nil, nil, nil, err
	}
	udp, err = gonet.DialUDP(n.Stack(), &tcpip.FullAddress{Port: port}, nil, ipv4.ProtocolNumber)
	return tcp, bulk, udp, stop, err
}

func listenNative() (tcp, bulk net.Listener, udp net.PacketConn, stop func(), err error) {
	if tcp, err = net.Listen("tcp4", fmt.Sprintf(":%d", port)); err != nil {
		return nil, nil, nil, nil, err
	}
	if bulk, err = net.Listen("tcp4", fmt.Sprintf(":%d", bulkPort)); err != nil {
		return nil, nil, nil, nil, err
	}
	udp, err = net.ListenPacket("udp4", fmt.Sprintf(":%d", port))
	return tcp, bulk, udp, func() {}, err
}

func openLink(driver string, opts modeswitch.Options) (*modeswitch.Endpoint, direct.Device, error) {
	dev, err := direct.Open(context.Background(), direct.Options{NIC: lab.ServerNIC, Driver: driver})
	if err != nil {
		return nil, nil, err
	}
	off := dev.Offloads()
	opts.Backend = modeswitch.Backend{
		Queues: modeswitch.Queues(dev.Queues()), MAC: dev.MAC(), MTU: dev.MTU(),
		TXChecksum: off.TXChecksum, GSOMax: off.GSOMax, RXTrusted: off.RXTrusted, RXJoined: off.RXJoined,
	}
	link, err := modeswitch.New(opts)
	return link, dev, err
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

func accept(ln net.Listener, serve func(net.Conn)) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go serve(c)
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
