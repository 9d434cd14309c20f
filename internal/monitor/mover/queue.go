package mover

import (
	"errors"

	"golang.org/x/sys/unix"

	"junction/direct"
	"junction/direct/steer/egress"
	modeswitch "junction/switch"
)

// errNoFiles: the monitor has sent no queue.
var errNoFiles = errors.New("no queue came with the order to use one")

// adopt begins to use the queue that the monitor has sent.
//
// +checklocks:m.mu
func (m *Mover) adopt() error {
	if m.queue == nil || m.device != nil {
		return errNoFiles
	}
	files := m.files
	m.files = nil // Adopt's, also when it fails
	dev, err := direct.Adopt(*m.queue, files, direct.AdoptOptions{})
	if err != nil {
		return err
	}
	for _, w := range dev.Mode().Warnings {
		m.o.Logger.Warn("direct mode: " + w)
	}
	path, err := m.o.Link.Add(m.backend(dev))
	if err != nil {
		return errors.Join(err, dev.Close())
	}
	m.device, m.path = dev, path
	return nil
}

// backend describes a queue of the instance's own to the endpoint.
//
// +checklocks:m.mu
func (m *Mover) backend(d direct.Device) modeswitch.Backend {
	o, rules := d.Offloads(), egress.Rules{MAC: [6]byte(d.MAC()), Shared: m.o.Shared, Ports: m.ports}
	return modeswitch.Backend{
		Queues: modeswitch.Queues(d.Queues()), MAC: d.MAC(), MTU: d.MTU(),
		TXChecksum: o.TXChecksum, GSOMax: o.GSOMax, RXTrusted: o.RXTrusted, RXJoined: o.RXJoined,
		Takes: rules.ByVF, Partly: m.ports != nil,
	}
}

// dropFiles closes the files of a queue that is not used.
//
// +checklocks:m.mu
func (m *Mover) dropFiles() {
	for _, f := range m.files {
		_ = unix.Close(f)
	}
	m.queue, m.files = nil, nil
}
