package steer

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"net"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"junction/direct/afxdp"
	"junction/direct/internal/nic"
	"junction/portmap/table"
)

//go:embed bpf/steer.o
var object []byte

// objects are the programs and maps of steer.c.
type objects struct {
	Steer  *ebpf.Program `ebpf:"steer"`
	Egress *ebpf.Program `ebpf:"egress"`

	Sockets *ebpf.Map `ebpf:"junction_xsks"`
	Devices *ebpf.Map `ebpf:"junction_devs"`
	Owners  *ebpf.Map `ebpf:"junction_owners"`
	Outers  *ebpf.Map `ebpf:"junction_outers"`
	VFs     *ebpf.Map `ebpf:"junction_vfs"`
	Scopes  *ebpf.Map `ebpf:"junction_scopes"`
	Counts  *ebpf.Map `ebpf:"junction_counts"`
}

// setting says what steer.c is loaded for.
type setting struct {
	tables *table.Maps
	mac    net.HardwareAddr
	index  int // the uplink's
	queues int
	vfs    int
	mtu    int
	frags  bool
	maps   map[string]*ebpf.Map // to be used, by name; else new ones are made
}

// load loads steer.c.
func load(s setting) (*objects, error) {
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
	if err != nil {
		return nil, fmt.Errorf("read the steering program: %w", err)
	}
	for name, n := range map[string]uint32{
		"junction_addrs": s.tables.Geometry.Slots + 1, "junction_ports": s.tables.Geometry.Ports(),
		"junction_xsks": uint32(s.queues), "junction_devs": uint32(s.vfs), "junction_owners": uint32(s.vfs),
		"junction_outers": 2 * uint32(s.vfs), "junction_vfs": uint32(s.vfs), "junction_scopes": uint32(s.vfs), "junction_counts": uint32(s.vfs),
	} {
		spec.Maps[name].MaxEntries = n
	}
	var mac [8]byte
	copy(mac[:], s.mac)
	for name, v := range map[string]any{
		"hash_seed": s.tables.HashSeed, "slot_mask": s.tables.Geometry.Slots - 1,
		"uplink_index": uint32(s.index), "nic_mac": mac, "max_frame": uint32(s.mtu + nic.EthHdrLen),
	} {
		if err := spec.Variables[name].Set(v); err != nil {
			return nil, fmt.Errorf("set %s of the steering program: %w", name, err)
		}
	}
	if s.frags {
		spec.Programs["steer"].Flags |= unix.BPF_F_XDP_HAS_FRAGS
	}
	o := new(objects)
	maps := map[string]*ebpf.Map{"junction_addrs": s.tables.Slots, "junction_ports": s.tables.Ports}
	for name, m := range s.maps {
		maps[name] = m
	}
	err = spec.LoadAndAssign(o, &ebpf.CollectionOptions{MapReplacements: maps})
	return o, nic.Denied(err, "load the steering program", "CAP_BPF", "CAP_NET_ADMIN")
}

// loader is the afxdp.Loader of the steering program; what it loads it leaves in
// the uplink.
func (u *Uplink) loader(s setting) afxdp.Loader {
	return func(queues int, frags bool) (*afxdp.Program, error) {
		s.queues, s.frags = queues, frags
		o, err := load(s)
		if err != nil {
			return nil, err
		}
		u.objects.close()
		u.objects = o
		// The NIC closes what it is given, we the rest.
		prog, err := o.Steer.Clone()
		if err != nil {
			return nil, err
		}
		sockets, err := o.Sockets.Clone()
		if err != nil {
			return nil, errors.Join(err, prog.Close())
		}
		return &afxdp.Program{Sockets: sockets, Prog: prog, Stamps: true}, nil
	}
}

func (o *objects) close() {
	if o == nil {
		return
	}
	_, _ = o.Steer.Close(), o.Egress.Close()
	for _, m := range []*ebpf.Map{o.Sockets, o.Devices, o.Owners, o.Outers, o.VFs, o.Scopes, o.Counts} {
		_ = m.Close()
	}
}
