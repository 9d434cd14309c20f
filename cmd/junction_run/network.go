package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"junction/cmd/junction_run/internal/cli"
	"junction/libos/netstack"
)

// network is an instance's TCP/IP stack and, in direct mode, what is below it.
type network struct {
	tcpip *netstack.Network
}

func openNetwork(ctx context.Context, s *cli.Settings, logger *slog.Logger) (*network, error) {
	if s.Mode != cli.ModeNone {
		return nil, fmt.Errorf("mode %s: %w", s.Mode, errors.ErrUnsupported)
	}
	tcpip, err := netstack.New(netstack.Options{})
	if err != nil {
		return nil, err
	}
	return &network{tcpip: tcpip}, nil
}

func (n *network) close() error {
	n.tcpip.Close()
	return nil
}
