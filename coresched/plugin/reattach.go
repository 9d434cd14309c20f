package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"
	"golang.org/x/sys/unix"

	"junction/ipc"
)

// Handle is what it takes to find a policy's process again. Whoever keeps one has
// to tell the process from a later one with its number.
type Handle struct {
	PID     int    `json:"pid"`
	Network string `json:"network"` // of its socket
	Address string `json:"address"`
}

// Handle returns what another program needs to Reattach when this one has died.
func (p *Process) Handle() Handle {
	c := p.client.ReattachConfig()
	return Handle{p.pid, c.Addr.Network(), c.Addr.String()}
}

// Reattach takes over the policy of a program that has died, which had called
// Survive. The policy begins anew when it is attached. One that does not answer is
// killed.
func Reattach(h Handle, page *Page, log io.Writer) (*Process, error) {
	return reattach(h, page, log, answerTime)
}

func reattach(h Handle, page *Page, log io.Writer, most time.Duration) (*Process, error) {
	addr, err := net.ResolveUnixAddr(h.Network, h.Address)
	if err != nil {
		return nil, err
	}
	pidfd, err := unix.PidfdOpen(h.PID, 0)
	if err != nil {
		return nil, fmt.Errorf("reattach policy %d: %w", h.PID, err)
	}
	if log == nil {
		log = io.Discard
	}
	other := &orphan{pid: h.PID, pidfd: pidfd}
	p := &Process{socket: h.Address, hard: func() { _ = other.Kill(context.Background()) }, client: goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig: handshake, Plugins: goplugin.PluginSet{pluginName: &controlPlugin{}},
		Logger: hclog.NewNullLogger(), Stderr: log, SyncStderr: log,
		Reattach: &goplugin.ReattachConfig{
			Protocol: goplugin.ProtocolNetRPC, Addr: addr, Pid: h.PID,
			ReattachFunc: func() (runner.AttachedRunner, error) { return other, nil },
		},
	})}
	if err := p.within(most, func() error { return p.renew(page) }); err != nil {
		p.Kill()
		return nil, fmt.Errorf("reattach policy %d: %w", h.PID, err)
	}
	return p, nil
}

// renew gives the process other rings and another page.
func (p *Process) renew(page *Page) error {
	if err := p.dial(); err != nil {
		return err
	}
	pair, err := ipc.NewPair(ipc.Options{})
	if err != nil {
		return err
	}
	defer pair.Close()
	end, err := pair.Attach(ipc.ServerSide)
	if err != nil {
		return err
	}
	p.end = end
	var pid int
	r := Renewal{PID: os.Getpid(), Ring: pair.Files(ipc.InstanceSide), Page: page.FD()}
	if err := p.control.call("Renew", r, &pid); err != nil {
		return err
	}
	if pid != p.pid {
		return fmt.Errorf("process %d answers", pid)
	}
	return nil
}

// orphan is a process that is none of our children, as go-plugin wants it.
type orphan struct {
	pid int
	mu  sync.Mutex
	// +checklocks:mu
	pidfd int // -1: it has ended
}

// Wait implements runner.AttachedRunner.
func (o *orphan) Wait(context.Context) error {
	o.mu.Lock()
	fd := o.pidfd // it is closed only here
	o.mu.Unlock()
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(poll, -1); errors.Is(err, unix.EINTR) {
			continue
		} else if err != nil {
			return err
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		o.pidfd = -1
		return unix.Close(fd)
	}
}

// Kill implements runner.AttachedRunner.
func (o *orphan) Kill(context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.pidfd < 0 {
		return os.ErrProcessDone
	}
	return unix.PidfdSendSignal(o.pidfd, unix.SIGKILL, nil, 0)
}

// ID implements runner.AttachedRunner.
func (o *orphan) ID() string { return strconv.Itoa(o.pid) }

// PluginToHost implements runner.AddrTranslator.
func (*orphan) PluginToHost(network, address string) (string, string, error) {
	return network, address, nil
}

// HostToPlugin implements runner.AddrTranslator.
func (*orphan) HostToPlugin(network, address string) (string, string, error) {
	return network, address, nil
}
