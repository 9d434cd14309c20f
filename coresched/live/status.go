package live

import (
	"fmt"
	"slices"
	"strings"
	"time"

	cs "junction/coresched"
)

// ABIVersion is that of messages, status words and transactions.
const ABIVersion = 1

// EnclaveStatus is how an enclave stands; the fields are ghostfs's, and more.
type EnclaveStatus struct {
	Name              string `json:"name"`
	CPUs              string `json:"cpus"`
	CPUsOffline       string `json:"cpus_offline,omitempty"` // of them
	Tasks             int    `json:"tasks"`
	Status            string `json:"status"` // active, or idle without a policy
	AgentOnline       bool   `json:"agent_online"`
	Policy            string `json:"policy,omitempty"`
	PID               int    `json:"pid,omitempty"`       // of the policy's process
	RunnableTimeoutUS int64  `json:"runnable_timeout_us"` // 0: never
	ABIVersion        int    `json:"abi_version"`
	Entered           uint64 `json:"entered"` // threads, ever
	Left              uint64 `json:"left"`    // or ended
	Policies          uint64 `json:"policies"`
	Crashes           uint64 `json:"crashes"`
	Handoffs          uint64 `json:"handoffs"`
	Standstills       uint64 `json:"standstills"`
	LastEnd           string `json:"last_end,omitempty"` // of a policy
	// RestoredUS is how long it took, when a policy was last taken away, until all
	// threads were the host's scheduler's.
	RestoredUS float64 `json:"restored_us,omitempty"`
	// TakeoverUS is for how long it was without a policy when the actuator before
	// died.
	TakeoverUS float64 `json:"takeover_blackout_us,omitempty"`
	KeptStatus
	cs.Counts
}

// ThreadStatus is how a thread stands.
type ThreadStatus struct {
	TID       int    `json:"tid"`
	Name      string `json:"name"`
	Enclave   string `json:"enclave"`
	State     string `json:"state"` // running, waiting or blocked
	CPU       int    `json:"cpu"`   // -1: none
	GrantedUS int64  `json:"granted_us"`
	WaitedUS  int64  `json:"waited_us"` // for a core, while there was a policy
}

// Enclaves returns how all enclaves stand, by name.
func (a *Actuator) Enclaves() []EnclaveStatus {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := []EnclaveStatus{}
	for _, n := range a.enclaves {
		all = append(all, n.status())
	}
	slices.SortFunc(all, func(x, y EnclaveStatus) int { return strings.Compare(x.Name, y.Name) })
	return all
}

// Enclave returns how one stands.
func (a *Actuator) Enclave(name string) (EnclaveStatus, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := a.enclaves[name]
	if n == nil {
		return EnclaveStatus{}, fmt.Errorf("%w: %q", ErrEnclave, name)
	}
	return n.status(), nil
}

func (n *enclave) status() EnclaveStatus {
	s := EnclaveStatus{
		Name: n.name, CPUs: n.e.CPUs().String(), CPUsOffline: n.online.offline(n.e.CPUs()).String(), Tasks: n.e.Tasks(), Status: "idle", AgentOnline: n.driver != nil,
		RunnableTimeoutUS: n.timeout.Microseconds(), ABIVersion: ABIVersion,
		Standstills: n.standstills, RestoredUS: float64(n.restored) / float64(time.Microsecond), TakeoverUS: float64(n.takeover) / float64(time.Microsecond), Entered: n.entered, Left: n.left, Policies: n.policies, Crashes: n.crashes, Handoffs: n.handoffs, LastEnd: n.last, KeptStatus: n.keptStatus(), Counts: n.e.Counts(),
	}
	if n.driver != nil {
		s.Status, s.Policy, s.PID = "active", n.process.Traits.Name, n.process.PID()
	}
	return s
}

// Threads returns how all threads in enclaves stand, by number.
func (a *Actuator) Threads() []ThreadStatus {
	a.mu.Lock()
	defer a.mu.Unlock()
	all, now := []ThreadStatus{}, clock()
	for _, t := range a.threads {
		s := t.enclave.e.Status(now, t.task)
		x := ThreadStatus{TID: t.tid, Name: t.comm, Enclave: t.enclave.name, State: "blocked", CPU: -1, GrantedUS: s.Runtime.Microseconds()}
		x.WaitedUS = t.enclave.e.Waited(now, t.task).Microseconds()
		switch {
		case s.OnCPU:
			x.State, x.CPU = "running", int(s.CPU)
		case s.Runnable:
			x.State = "waiting"
		}
		all = append(all, x)
	}
	slices.SortFunc(all, func(x, y ThreadStatus) int { return x.TID - y.TID })
	return all
}
