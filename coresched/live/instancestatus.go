package live

import (
	"slices"
	"strings"
)

// InstanceStatus is how an instance stands.
type InstanceStatus struct {
	Name       string `json:"name"`
	PID        int    `json:"pid"`
	Enclave    string `json:"enclave"`
	Class      string `json:"class"` // lc or be
	Kthreads   int    `json:"kthreads"`
	Guaranteed int    `json:"guaranteed"`
	Want       int    `json:"want"`    // kthreads
	Granted    int    `json:"granted"` // how many threads it may have execute
	Cores      string `json:"cores"`   // that it has
	Held       bool   `json:"held"`    // by the kernel: SCHED_IDLE without a core, or bound to those it has
	HeldWhy    string `json:"held_why,omitempty"`
	Group      string `json:"group,omitempty"` // its CPU cgroup, if it is best effort
	GrantedUS  int64  `json:"granted_us"`
	WaitedUS   int64  `json:"waited_us"` // its kthreads, for a core
	Grants     uint64 `json:"grants"`    // changes
	Forces     uint64 `json:"forces"`    // not complied with in time
	Denials    uint64 `json:"denials"`
	Excesses   uint64 `json:"excesses"` // used far more than it was granted
}

// Instances returns how all instances in enclaves stand, by name.
func (a *Actuator) Instances() []InstanceStatus {
	a.mu.Lock()
	defer a.mu.Unlock()
	all, now := []InstanceStatus{}, clock()
	for i := range a.instances.all {
		cores, _ := i.cores()
		s := InstanceStatus{
			Name: i.Name, PID: i.PID, Enclave: i.enclave.name, Class: i.Class.String(), Kthreads: i.Kthreads, Guaranteed: i.Guaranteed,
			Want: i.want, Granted: i.granted, Cores: cores.String(), Held: i.heldWhy() != "", HeldWhy: i.heldWhy(), Group: i.group,
			Grants: i.grants, Forces: i.forces, Denials: i.denials, Excesses: i.excesses,
		}
		for _, k := range i.kthreads {
			s.GrantedUS += i.enclave.e.Status(now, k.task).Runtime.Microseconds()
			s.WaitedUS += i.enclave.e.Waited(now, k.task).Microseconds()
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(x, y InstanceStatus) int { return strings.Compare(x.Name, y.Name) })
	return all
}
