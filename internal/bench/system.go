package bench

import (
	"errors"
	"net/netip"

	"junction/internal/lab"
)

// Program is an unmodified Linux program.
type Program struct {
	// Argv is the program, by its absolute path, and its arguments.
	Argv []string
	// Report has the system say at the end what was in use. In an instance that
	// costs two indirect calls for each system call, which are then counted.
	Report bool
}

// System is a way of running a program in the server namespace of a lab.
type System interface {
	// Name is what tables call it: native, runsc, junction-afxdp.
	Name() string
	// prepare readies everything but the start itself.
	prepare(l *lab.Lab, p Program) (*plan, error)
}

// plan is how a system runs one program once.
type plan struct {
	argv []string // started in the server namespace
	// terminate asks the program to end, if a SIGTERM to the process started
	// is not the way.
	terminate func() error
	// mode says what is really in use, from all that the process printed,
	// after its end.
	mode func(log []byte) (string, error)
	// undo removes what prepare made and what the process has left.
	undo func() error
	// daemon serves the instance's network, besides its process; or nil.
	daemon *daemon
	// address to reach the server at; the zero value is serverAddr's.
	address netip.Addr
	// peer says where a client runs that is under the same system, and how; nil:
	// in the client namespace, as it is.
	peer func(argv []string) (*lab.Namespace, []string)
}

// serverAddr is the address of the server under every system.
var serverAddr = lab.ServerAddr4

// giveAddr puts the server's address on the veth, for the kernel or for runsc.
func giveAddr(l *lab.Lab) (undo func() error, err error) {
	if err := l.Server.AddAddr(lab.ServerNIC, serverAddr); err != nil {
		return nil, err
	}
	return func() error { return l.Server.DelAddr(lab.ServerNIC, serverAddr) }, nil
}

// Native runs programs on the host's kernel, with the address on the NIC.
type Native struct{}

// Name implements System.
func (Native) Name() string { return "native" }

func (Native) prepare(l *lab.Lab, p Program) (*plan, error) {
	undo, err := giveAddr(l)
	if err != nil {
		return nil, err
	}
	return &plan{
		argv: p.Argv,
		mode: func([]byte) (string, error) { return "the host's kernel", nil },
		undo: undo,
	}, nil
}

// address is the server's address alone.
func address() netip.Addr { return serverAddr.Addr() }

// joinUndo runs both, the second also if the first fails.
func joinUndo(first, second func() error) func() error {
	return func() error { return errors.Join(first(), second()) }
}
