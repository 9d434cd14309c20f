package monitor

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"junction/direct/steer"
	"junction/internal/monitor/wire"
	"junction/netserver"
	"junction/portmap"
	"junction/switch/auto"
	"junction/switch/protocol"
)

// autoInterval is how often the policy looks at what instances do.
const autoInterval = 500 * time.Millisecond

// autopilot runs the policy that gives queues to the busiest instances: it gathers
// the counters that package auto decides by, and carries out what that orders.
type autopilot struct {
	m     *Monitor
	set   chan struct{} // of capacity 1: policy is another
	tasks sync.WaitGroup

	mu sync.Mutex
	// +checklocks:mu
	policy *auto.Policy // nil: off
	// +checklocks:mu
	settings wire.AutoSettings
	// +checklocks:mu
	ordered bool // settings are an operator's
	// +checklocks:mu
	switches uint64
	// +checklocks:mu
	decisions []*decision // the last ones
}

// decision is an order of the policy's.
type decision struct {
	auto.Order
	name    string
	at      time.Time
	outcome string // empty: under way
}

// maxDecisions is how many are remembered.
const maxDecisions = 10

func (a *autopilot) init(m *Monitor) {
	a.m, a.set = m, make(chan struct{}, 1)
	a.apply(m.opts.Auto, false)
}

// apply begins anew with other settings, an operator's if ordered.
func (a *autopilot) apply(s wire.AutoSettings, ordered bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.settings, a.ordered, a.policy = s, ordered, nil
	if s.On {
		a.policy = auto.New(auto.Options{Queues: s.Queues, Rate: s.Rate, Hold: a.m.opts.autoHold})
	}
	select {
	case a.set <- struct{}{}:
	default:
	}
}

// run decides again and again while the policy is on, until ctx is done.
func (a *autopilot) run(ctx context.Context) {
	defer a.tasks.Wait()
	select {
	case <-a.m.open:
	case <-ctx.Done():
	}
	ticker := time.NewTicker(autoInterval)
	defer ticker.Stop()
	for {
		var tick <-chan time.Time
		if a.current() != nil {
			tick = ticker.C
		}
		select {
		case <-tick:
			a.step(ctx)
		case <-a.set:
		case <-ctx.Done():
			return
		}
	}
}

func (a *autopilot) current() *auto.Policy {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.policy
}

// step decides once. Between two network servers nothing is decided: a switch would
// not succeed.
func (a *autopilot) step(ctx context.Context) {
	answer, err := a.m.askServer(ctx, wire.Ask{Verb: "stats"})
	var stats netserver.Stats
	if err == nil {
		err = json.Unmarshal(answer, &stats)
	}
	if err != nil {
		a.m.opts.Logger.Debug("automatic mode switch: no counters", "error", err)
		return
	}
	var samples []auto.Sample
	all := make(map[uint32]*instance)
	for _, i := range a.m.present() {
		s := a.m.sample(i)
		port := stats.Ports[s.ID]
		s.Server = port.In + port.ToInstance
		samples, all[s.ID] = append(samples, s), i
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.policy == nil {
		return
	}
	for _, o := range a.policy.Step(time.Since(a.m.start), samples) {
		d := &decision{Order: o, name: all[o.ID].name, at: time.Now()}
		a.decisions = append(a.decisions[max(0, len(a.decisions)+1-maxDecisions):], d)
		a.switches++
		a.tasks.Go(func() { a.carryOut(ctx, all[o.ID], d) })
	}
}

// sample is what the policy is told of an instance, but for the network server's counter.
func (m *Monitor) sample(i *instance) auto.Sample {
	s := i.sw.sample()
	m.mu.Lock()
	defer m.mu.Unlock()
	s.ID, s.Name, s.Limited = uint32(i.id), i.name, i.rate > 0
	return s
}

// sample tells of the mode.
func (s *switcher) sample() auto.Sample {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := auto.Sample{
		Mode: s.c.Mode(), Switching: s.returning || s.c.Step() != protocol.Idle, To: s.c.To(),
		Pinned: s.decided(), Claims: s.waiters > 0 && s.c.Mode() == protocol.Server,
	}
	if s.queue != nil {
		if stats, err := s.queue.Stats(); err == nil {
			out.Queue = stats.In + stats.Out
		}
	}
	return out
}

// carryOut carries out an order, unless an operator has been faster.
func (a *autopilot) carryOut(ctx context.Context, i *instance, d *decision) {
	log := a.m.opts.Logger.With("id", d.ID, "name", d.name, "to", d.To, "packets_per_second", d.Rate, "reason", d.Reason)
	log.Info("automatic mode switch")
	r, err := a.m.switchOnce(ctx, i, d.To, nil, true)
	outcome := cmp.Or(r.Reason, "done")
	if err != nil {
		outcome = err.Error()
		log.Warn("automatic mode switch not made", "error", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	d.outcome = outcome
}

// AutoStatus is the policy's state.
type AutoStatus struct {
	wire.AutoSettings
	// Switches counts the policy's orders, Pinned the instances that it leaves alone
	// because an operator has decided on their mode.
	Switches  uint64         `json:"switches"`
	Pinned    int            `json:"pinned"`
	Decisions []AutoDecision `json:"decisions"` // the last ones
}

// AutoDecision is an order of the policy's, why it was given and what became of it.
type AutoDecision struct {
	AgeSeconds float64       `json:"age_seconds"`
	ID         uint32        `json:"id"`
	Name       string        `json:"name"`
	To         protocol.Mode `json:"to"`
	RatePPS    float64       `json:"rate_pps"`
	Reason     string        `json:"reason"`
	Outcome    string        `json:"outcome"` // done, under way, or why it was not done
}

func (a *autopilot) status() AutoStatus {
	s := AutoStatus{Decisions: []AutoDecision{}}
	for _, i := range a.m.present() {
		if i.sw.pinned.Load() {
			s.Pinned++
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	s.AutoSettings, s.Switches = a.settings, a.switches
	for _, d := range a.decisions {
		s.Decisions = append(s.Decisions, AutoDecision{
			AgeSeconds: time.Since(d.at).Seconds(), ID: d.ID, Name: d.name, To: d.To, RatePPS: d.Rate,
			Reason: d.Reason, Outcome: cmp.Or(d.outcome, "under way"),
		})
	}
	return s
}

// verdict tells an instance's packets per second and why it is in its mode; nothing
// without the policy.
func (a *autopilot) verdict(id portmap.Instance) (rate float64, reason string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.policy == nil {
		return 0, ""
	}
	return a.policy.Verdict(uint32(id))
}

// setAuto carries out an operator's order about the policy.
func (m *Monitor) setAuto(a wire.Ask) (AutoStatus, error) {
	var o wire.Auto
	if err := json.Unmarshal(a.Args, &o); err != nil {
		return AutoStatus{}, fmt.Errorf("%w: %w", err, unix.EINVAL)
	}
	m.auto.mu.Lock()
	s := m.auto.settings
	m.auto.mu.Unlock()
	s.On = o.On
	if o.Queues != nil {
		s.Queues = cmp.Or(*o.Queues, -1) // what is 0 is not left out here
	}
	if o.Rate != nil {
		s.Rate = cmp.Or(*o.Rate, -1)
	}
	if err := m.opts.checkAuto(&s); err != nil {
		return AutoStatus{}, fmt.Errorf("%w: %w", err, unix.EINVAL)
	}
	m.auto.apply(s, true)
	m.mu.Lock()
	m.save()
	m.mu.Unlock()
	return m.auto.status(), nil
}

// orders returns what an operator has set, nil if nothing.
func (a *autopilot) orders() *wire.AutoSettings {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.ordered {
		return nil
	}
	s := a.settings
	return &s
}

// resume goes on with what an operator has ordered from the monitor before, if the
// present one has as many queues.
func (a *autopilot) resume(s *wire.AutoSettings) {
	if s != nil && a.m.opts.checkAuto(s) == nil {
		a.apply(*s, true)
	}
}

// maxRate is more packets per second than there can be.
const maxRate = 1e12

// checkAuto checks settings of the policy and sets what is left out.
func (o *Options) checkAuto(s *wire.AutoSettings) error {
	most := cmp.Or(o.DirectQueues, steer.DefaultVFs)
	s.Queues, s.Rate = cmp.Or(s.Queues, most), cmp.Or(s.Rate, auto.DefaultRate)
	if s.Queues < 1 || s.Queues > most {
		return fmt.Errorf("%w: queues of the policy: accepted: 1 to %d, as many as there are (--direct-queues)", ErrOptions, most)
	}
	if !(s.Rate > 0 && s.Rate <= maxRate) { // nor NaN
		return fmt.Errorf("%w: rate of the policy: accepted: packets per second, above 0", ErrOptions)
	}
	return nil
}

// unpin leaves an instance to the policy again.
func (m *Monitor) unpin(a wire.Ask) (InstanceStatus, error) {
	var to wire.Target
	if err := json.Unmarshal(a.Args, &to); err != nil {
		return InstanceStatus{}, fmt.Errorf("%w: %w", err, unix.EINVAL)
	}
	i, err := m.find(to.ID)
	if err != nil {
		return InstanceStatus{}, err
	}
	m.mu.Lock()
	i.sw.pinned.Store(false)
	m.save()
	m.mu.Unlock()
	return m.instanceStatus(i), nil
}
