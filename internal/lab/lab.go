package lab

import (
	"errors"
	"sync"

	"junction/internal/lab/impair"
)

// Lab is a small network. Its methods may be called from any goroutine.
type Lab struct {
	// Client is where the clients run.
	Client *Namespace
	// Server is where the instance runs, or a native server beside it.
	Server *Namespace
	// Middle lies between the two; nil unless asked for.
	Middle *Namespace
	// Forwarder forwards frames in the middle; nil without Options.Impair.
	Forwarder *impair.Forwarder

	lease     *lease
	closeOnce sync.Once
	closeErr  error
}

// New removes labs whose owners are dead, and makes one. The caller closes it.
func New(o Options) (*Lab, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	lease, err := newLease()
	if err != nil {
		return nil, err
	}
	l := &Lab{lease: lease}
	if err := l.build(o); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *Lab) build(o Options) error {
	if err := l.makeNamespaces(o); err != nil {
		return err
	}
	if err := l.makeLinks(o); err != nil {
		return err
	}
	if o.Bridge {
		if err := bridge(l.Server, o); err != nil {
			return err
		}
	}
	if o.Impair != nil {
		if err := l.impair(*o.Impair); err != nil {
			return err
		}
	}
	return address(l.Client, o)
}

func (l *Lab) makeNamespaces(o Options) (err error) {
	if l.Client, err = newNamespace(l.lease.name + "-client"); err != nil {
		return err
	}
	if l.Server, err = newNamespace(l.lease.name + "-server"); err != nil {
		return err
	}
	if o.Middle {
		l.Middle, err = newNamespace(l.lease.name + "-middle")
	}
	return err
}

func (l *Lab) makeLinks(o Options) error {
	client, server := end{l.Client, ClientNIC}, end{l.Server, ServerNIC}
	if !o.Middle {
		return connect(client, server, o)
	}
	return errors.Join(
		connect(client, end{l.Middle, MiddleClientNIC}, o),
		connect(end{l.Middle, MiddleServerNIC}, server, o),
	)
}

func (l *Lab) impair(p impair.Plan) error {
	return l.Middle.Do(func() (err error) {
		l.Forwarder, err = impair.Start(MiddleClientNIC, MiddleServerNIC, p)
		return err
	})
}

// Name is what the names of the lab's namespaces begin with.
func (l *Lab) Name() string { return l.lease.name }

// Namespaces returns the lab's namespaces.
func (l *Lab) Namespaces() []*Namespace {
	var all []*Namespace
	for _, n := range []*Namespace{l.Client, l.Middle, l.Server} {
		if n != nil {
			all = append(all, n)
		}
	}
	return all
}

// Close kills every process in the lab, waits for their end and removes all
// there is. It may be called more than once.
func (l *Lab) Close() error {
	l.closeOnce.Do(func() {
		var errs []error
		for _, n := range l.Namespaces() {
			errs = append(errs, n.kill())
		}
		if l.Forwarder != nil {
			errs = append(errs, l.Forwarder.Close())
		}
		for _, n := range l.Namespaces() {
			errs = append(errs, n.close())
		}
		errs = append(errs, l.lease.release())
		l.closeErr = errors.Join(errs...)
	})
	return l.closeErr
}
