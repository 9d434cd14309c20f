package live

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	cs "junction/coresched"
	"junction/coresched/plugin"
)

// record is what an actuator leaves behind for its successor, should it die. Its
// guard writes it once more then, when all threads have what they had.
type record struct {
	Schema    int              `json:"schema"`
	Boot      string           `json:"boot"`  // of the machine, in which alone the numbers here mean anything
	At        cs.Time          `json:"at_ns"` // CLOCK_MONOTONIC; of the end, if the guard wrote it
	Released  bool             `json:"released"`
	Guard     identity         `json:"guard"`
	Cpusets   string           `json:"cpusets,omitempty"` // where exclusive cores are kept
	Enclaves  []enclaveRecord  `json:"enclaves"`
	Threads   []memberRecord   `json:"threads"`
	Instances []instanceRecord `json:"instances"`
}

const recordSchema = 1

// errOtherBoot is for a record of before the machine was started anew: its threads,
// times and cpusets are no more, whoever has their numbers now.
var errOtherBoot = errors.New("of before this machine was started")

// BootID tells one run of the machine from the next: random(4). Numbers of processes,
// and when they were started, mean something in one alone. Callers may be concurrent.
func BootID() string { return bootID() }

var bootID = sync.OnceValue(func() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // without /proc nothing here works
	return strings.TrimSpace(string(b))
})

// identity is a thread or a process, told from a later one with its number by when
// it was started.
type identity struct {
	ID      int    `json:"id"`
	Started uint64 `json:"started"` // clock ticks since boot, proc(5)
}

// lives tells whether it has not ended.
func (i *identity) lives() bool {
	s, err := readStatAlone(i.ID)
	return err == nil && s.started == i.Started && !s.gone()
}

func identityOf(pid int) identity {
	s, err := readStatAlone(pid)
	if err != nil {
		return identity{}
	}
	return identity{pid, s.started}
}

type enclaveRecord struct {
	Name      string        `json:"name"`
	CPUs      string        `json:"cpus"`
	Timeout   time.Duration `json:"runnable_timeout_ns,omitempty"`
	Exclusive bool          `json:"exclusive,omitempty"`
	Policy    *policyRecord `json:"policy,omitempty"`
}

// policyRecord is how a policy was ordered, and its process.
type policyRecord struct {
	Program string        `json:"program"`
	Args    []string      `json:"args,omitempty"`
	Started uint64        `json:"started"`
	Handle  plugin.Handle `json:"process"`
}

// originalRecord is how something was scheduled before it was pushed.
type originalRecord struct {
	Policy uint32 `json:"class,omitempty"`
	Nice   int32  `json:"nice,omitempty"`
	CPUs   string `json:"cpus,omitempty"`
	Whole  bool   `json:"whole_cpuset,omitempty"`
	Reset  bool   `json:"reset_on_fork,omitempty"`
	Slice  uint64 `json:"slice_ns,omitempty"`
}

func (o *original) record() originalRecord {
	return originalRecord{o.policy, o.nice, o.cpus.String(), o.whole, o.reset, o.slice}
}

func (r *originalRecord) original() (original, error) {
	cpus, err := cs.ParseCPUSet(r.CPUs)
	return original{r.Policy, r.Nice, cpus, r.Whole, r.Reset, r.Slice}, err
}

type memberRecord struct {
	identity
	originalRecord
	Enclave string `json:"enclave"`
}

type instanceRecord memberRecord

// loadRecord reads a record; os.ErrNotExist if there is none, errOtherBoot if it is
// of no use any more.
func loadRecord(path string) (r record, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return r, err
	}
	err = json.Unmarshal(b, &r)
	if err == nil && r.Schema != recordSchema {
		err = fmt.Errorf("schema %d", r.Schema)
	}
	if err != nil {
		return r, fmt.Errorf("%s: not of this version: %w", path, err)
	}
	if r.Boot != BootID() {
		return r, fmt.Errorf("%s: %w", path, errOtherBoot)
	}
	return r, nil
}

// Who writes a record: actuator and guard may do so at the same time.
const (
	byActuator = ".new"
	byGuard    = ".end"
)

// write replaces the record at path as a whole.
func (r *record) write(path, by string) error {
	b, err := json.Marshal(r)
	if err == nil {
		err = os.WriteFile(path+by, b, 0o600)
	}
	if err == nil {
		err = os.Rename(path+by, path)
	}
	return err
}

// seal writes the record that the guard leaves: who was in, by the guard's account.
func (l *listener) seal(at cs.Time) error {
	if l.state == "" {
		return nil
	}
	r, err := loadRecord(l.state)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, errOtherBoot) {
			return nil // the actuator has ended in order, or has yet to begin
		}
		return err
	}
	r.At, r.Released, r.Threads = at, true, nil
	for tid, t := range l.threads {
		if !t.process {
			r.Threads = append(r.Threads, memberRecord{identity{tid, t.started}, t.record(), t.enclave})
		}
	}
	return r.write(l.state, byGuard)
}

// snapshot is the record as of now.
// +checklocks:a.mu
func (a *Actuator) snapshot() *record {
	r := &record{Schema: recordSchema, Boot: BootID(), At: clock(), Guard: a.guard.identity}
	if a.keeper != nil {
		r.Cpusets = a.keeper.dir
	}
	for _, n := range a.enclaves {
		r.Enclaves = append(r.Enclaves, n.record())
	}
	for tid, m := range a.threads {
		r.Threads = append(r.Threads, memberRecord{identity{tid, m.started}, m.original.record(), m.enclave.name})
	}
	for i := range a.instances.all {
		r.Instances = append(r.Instances, instanceRecord{identity{i.PID, i.started}, i.original.record(), i.enclave.name})
	}
	r.Instances = slices.AppendSeq(r.Instances, maps.Values(a.awaited))
	slices.SortFunc(r.Enclaves, func(x, y enclaveRecord) int { return strings.Compare(x.Name, y.Name) })
	return r
}

func (n *enclave) record() enclaveRecord {
	cpus := n.e.CPUs()
	e := enclaveRecord{Name: n.name, CPUs: cpus.String(), Timeout: n.timeout, Exclusive: n.exclusive}
	if n.driver != nil {
		e.Policy = &policyRecord{n.program, n.args, n.began, n.process.Handle()}
	}
	return e
}

// Of how often the record is written, while threads come and go.
const (
	saveEvery = 100 * time.Millisecond
	saveShare = 50 // writing it takes this part of the time at most
)

// save writes the record. A failure to is logged: only a successor of an actuator
// that dies misses it.
func (a *Actuator) save() {
	a.saving.Lock()
	defer a.saving.Unlock()
	a.mu.Lock()
	if a.opts.State == "" || a.closed || a.resuming {
		a.mu.Unlock()
		return
	}
	from := time.Now()
	r := a.snapshot()
	a.changes = false
	a.mu.Unlock()
	if err := r.write(a.opts.State, byActuator); err != nil {
		a.opts.Logger.Warn("enclaves not noted down for a successor", "error", err)
	}
	now := time.Now()
	a.saveAt = now.Add(max(saveEvery, saveShare*now.Sub(from)))
}

// saveIfDue is save if something has changed, from time to time.
func (a *Actuator) saveIfDue() {
	a.mu.Lock()
	due := a.changes
	a.mu.Unlock()
	a.saving.Lock()
	due = due && time.Now().After(a.saveAt)
	a.saving.Unlock()
	if due {
		a.save()
	}
}

// unsave removes the record: what ends in order leaves nothing.
func (a *Actuator) unsave() error {
	if a.opts.State == "" {
		return nil
	}
	a.saving.Lock()
	defer a.saving.Unlock()
	err := os.Remove(a.opts.State)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
