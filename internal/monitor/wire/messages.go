package wire

import (
	"encoding/json"
	"net"
	"net/netip"
	"time"

	"junction/direct"
	"junction/internal/config"
)

// Join asks for an instance's lease.
type Join struct {
	// Addrs are the dedicated addresses wanted; none: the shared ones.
	Addrs []netip.Addr `json:"addrs,omitempty"`
	// Priority decides the weight at the uplink that the instance begins with.
	Priority config.Priority `json:"priority,omitempty"`
}

// Joined is the lease.
type Joined struct {
	ID uint32 `json:"id"`
	// Shared: the addresses are shared, ports must be asked for with Bind.
	Shared   bool           `json:"shared"`
	Prefixes []netip.Prefix `json:"prefixes"`
	Gateways []netip.Addr   `json:"gateways,omitempty"`
	// Warnings are what was asked for and not given.
	Warnings []string `json:"warnings,omitempty"`
	Link
}

// Escrow brings four descriptors that the instance keeps for the monitor's
// successor: a listener, to be found again at, and the server's side of its rings.
type Escrow struct{}

// Rejoin tells a monitor's successor what an instance has.
type Rejoin struct {
	ID    uint32 `json:"id"`
	Holds []Bind `json:"holds"`
	// Epoch is the number of its last switch; Direct says that packets leave by a
	// queue of its own, Switching that a switch is under way.
	Epoch     uint64 `json:"epoch,omitempty"`
	Direct    bool   `json:"direct,omitempty"`
	Switching bool   `json:"switching,omitempty"`
}

// Link is what the uplink is like for those behind it.
type Link struct {
	MAC    string `json:"mac"`
	MTU    int    `json:"mtu_bytes"`
	GSOMax int    `json:"gso_max_bytes"` // what the network server cuts for the wire
}

// Bind asks for a port: portmap.Request.
type Bind struct {
	Socket  uint64     `json:"socket"`
	Proto   uint8      `json:"proto"`
	Addr    netip.Addr `json:"addr"`
	Port    uint16     `json:"port"`
	Purpose uint8      `json:"purpose"`
	V6Only  bool       `json:"v6only,omitempty"`
}

// Bound is the port that was given.
type Bound struct {
	Port uint16 `json:"port"`
}

// Close gives a socket's ports up.
type Close struct {
	Socket uint64 `json:"socket"`
}

// Closed says that it is done.
type Closed struct{}

// Setup tells a network server what to serve.
type Setup struct {
	NIC    string        `json:"nic"`
	Driver string        `json:"driver,omitempty"`
	Queues int           `json:"queues,omitempty"`
	MTU    int           `json:"mtu_bytes,omitempty"`
	MAC    string        `json:"mac,omitempty"`
	Spin   time.Duration `json:"spin_ns,omitempty"`
	// Uplink are the queues to use, which the monitor has made. Beside the message
	// come, after the view, steer.KeepFiles files to hold, then the queues'. Without,
	// the server opens the NIC itself.
	Uplink *direct.Export `json:"uplink,omitempty"`
}

// HardwareAddr is MAC, nil if there is none or it is not one.
func (s *Setup) HardwareAddr() net.HardwareAddr {
	mac, err := net.ParseMAC(s.MAC)
	if err != nil {
		return nil
	}
	return mac
}

// Back says what a network server has from an earlier monitor: these instances
// and, beside the message, that one's view of the portmap, then the files that came
// with Setup.Uplink. A new server has none.
type Back struct {
	Attached []uint32 `json:"attached,omitempty"`
	// Adopts: it knows what to do with Setup.Uplink.
	Adopts bool `json:"adopts,omitempty"`
	// Running: it has an uplink, this one if the monitor before had made it.
	Running bool           `json:"running,omitempty"`
	Uplink  *direct.Export `json:"uplink,omitempty"`
}

// Ready says that the uplink is open.
type Ready struct {
	Link
	Mode     direct.Mode     `json:"mode"`
	Offloads direct.Offloads `json:"offloads"`
}

// Begin has a new server take frames from the wire: what is attached before it,
// its predecessor had too.
type Begin struct{}

// Attach and Detach begin and end an instance's service.
type (
	Attach struct {
		ID     uint32 `json:"id"`
		Name   string `json:"name"`
		Shared uint64 `json:"shared"` // bit i: it may use shared address i
		Rate   uint64 `json:"rate_bytes_per_second,omitempty"`
		Weight uint32 `json:"weight,omitempty"`
	}
	Detach struct {
		ID uint32 `json:"id"`
	}
)

// Limit sets what an instance may send: how many bytes in a second, 0 for any
// number, and its weight, from 1 to netserver.MaxWeight. What is nil stays.
type Limit struct {
	ID     uint32  `json:"id"`
	Rate   *uint64 `json:"rate_bytes_per_second,omitempty"`
	Weight *uint32 `json:"weight,omitempty"`
}

// Capture asks for frames, of an instance or, with 0, of the uplink. Where to
// write them, as netserver.Server.Capture does, comes beside the message.
type Capture struct {
	ID uint32 `json:"id"`
}

// Trace asks what becomes of the next frames. Where to write it, as
// netserver.Server.Trace does, comes beside the message.
type Trace struct {
	Frames int `json:"frames"`
}

// Mark asks the network server to put a frame into an instance's ring, behind
// what has come from the wire until then: netserver.Server.Mark.
type Mark struct {
	ID    uint32 `json:"id"`
	Frame []byte `json:"frame"`
}

// Upgrade names another program for the network server.
type Upgrade struct {
	Path string `json:"path"`
}

// Verbs of core scheduling. All but SchedLook have Sched beside them.
const (
	SchedLook    = "sched-look"
	SchedCreate  = "sched-create"
	SchedDestroy = "sched-destroy"
	SchedPolicy  = "sched-policy"
	SchedPush    = "sched-push"
	SchedJoin    = "sched-join"
)

// Cores is the order to an instance to have as many threads execute as it is
// granted on the page that comes beside it, with the doorbell (package
// coresched/instance). Its answer is CoresWanted.
const Cores = "cores"

// CoresWanted is what an instance wants of the scheduler of cores, in the terms of
// Caladan's configuration.
type CoresWanted struct {
	Kthreads   int           `json:"kthreads"`
	Spinning   int           `json:"spinning,omitempty"`
	Guaranteed int           `json:"guaranteed,omitempty"`
	BestEffort bool          `json:"best_effort,omitempty"`
	Delay      time.Duration `json:"qdelay_ns,omitempty"`
}

// Sched is what is wanted of an enclave of core scheduling.
type Sched struct {
	Enclave           string   `json:"enclave"`
	CPUs              string   `json:"cpus,omitempty"`                // create: such as 0-3,8
	Exclusive         bool     `json:"exclusive,omitempty"`           // create: nobody else runs there
	RunnableTimeoutUS int64    `json:"runnable_timeout_us,omitempty"` // create; 0: none
	Policy            string   `json:"policy,omitempty"`              // policy: a name, or a program's path
	Args              []string `json:"args,omitempty"`                // policy: the program's
	StartTimeoutUS    int64    `json:"start_timeout_us,omitempty"`    // policy: until it serves; 0: plugin.StartTimeout
	TIDs              []int    `json:"tids,omitempty"`                // push
	ID                uint32   `json:"id,omitempty"`                  // join: the instance
}

// Target is the part that all orders to an instance have.
type Target struct {
	ID uint32 `json:"id"`
}

// Signal is the order to send a signal to an instance's program.
type Signal struct {
	Target
	Signal int `json:"signal"`
}

// Exec is the order to start a further program in an instance. Beside it come
// the caller's end of the Session and the files behind the program's standard
// streams.
type Exec struct {
	Target
	Argv []string `json:"argv"`
	// Env is added to what the instance's first program got, entries KEY=VALUE.
	Env []string `json:"env,omitempty"`
	// Cwd is the working directory; empty: the first program's.
	Cwd string `json:"cwd,omitempty"`
	// Streams says which of the files descriptors 0, 1 and 2 are, from 1; 0: closed.
	Streams [3]int `json:"streams"`
}

// Started says that the program runs.
type Started struct {
	PID int32 `json:"pid"` // in the instance
}

// Broken reports an instance whose rings cannot be used. Breach is the name of
// what is wrong with them, Reason says it at length.
type Broken struct {
	ID     uint32 `json:"id"`
	Breach string `json:"breach"`
	Reason string `json:"reason"`
}

// Ping asks for a sign of life, Pong is one. Stuck is for how long a worker has
// not come to the end of a batch.
type (
	Ping struct{}
	Pong struct {
		Stuck time.Duration `json:"stuck_ns"`
	}
)

// Ask is a question or an order, by name, and Answer its result.
type (
	Ask struct {
		Verb string          `json:"verb"`
		Args json.RawMessage `json:"args,omitempty"`
	}
	Answer = json.RawMessage
)
