package live

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
)

// maxThreads is how many threads are in enclaves at most.
const maxThreads = 16384

// happening is what a thread did.
type happening uint32

const (
	slept happening = iota + 1
	woke
	ended
	forked  // other: the new thread
	renamed // other: the number that it has from now on
)

// event is what the BPF programs report: kind, thread, time by CLOCK_MONOTONIC,
// core and another thread.
type event struct {
	kind  happening
	tid   int
	at    uint64
	other int
}

const eventSize = 24

// ringSize is the room for events, in bytes; tests make it less.
var ringSize uint32 = 1 << 20

// watched is the map's value for a thread; package ebpf wants its fields exported.
type watched struct {
	Told  uint32 // last: toldAwake or toldAsleep
	Maker uint32 // of a thread that was made while its maker was watched
}

const (
	toldAwake  = 0
	toldAsleep = 1
	// watchedSize is that of watched.
	watchedSize = 8
)

// watcher is the BPF programs and their maps.
type watcher struct {
	threads *ebpf.Map // tid to watched
	ring    *ebpf.Map
	lost    *ebpf.Map
	links   []link.Link
	reader  *ringbuf.Reader
}

var errNamespace = errors.New("not in the initial PID namespace, whose numbers BPF programs see; run on the host itself")

// initialPIDNamespace is PROC_PID_INIT_INO of Linux.
const initialPIDNamespace = "pid:[4026531836]"

func inInitialNamespace() error {
	if ns, err := os.Readlink("/proc/self/ns/pid"); err != nil || ns != initialPIDNamespace {
		return errors.Join(errNamespace, err)
	}
	return nil
}

func newWatcher() (w *watcher, err error) {
	if err := inInitialNamespace(); err != nil {
		return nil, err
	}
	w = &watcher{}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("watch threads: %w", err), w.close())
			w = nil
		}
	}()
	if err := w.makeMaps(); err != nil {
		return w, err
	}
	offset, err := pidOffset()
	if err != nil {
		return w, err
	}
	for at, code := range w.programs(offset) {
		if err := w.attach(at, code); err != nil {
			return w, fmt.Errorf("tracepoint %s: %w", at, err)
		}
	}
	w.reader, err = ringbuf.NewReader(w.ring)
	return w, err
}

func (w *watcher) makeMaps() (err error) {
	for _, m := range []struct {
		into *(*ebpf.Map)
		spec ebpf.MapSpec
	}{
		{&w.threads, ebpf.MapSpec{Name: "threads", Type: ebpf.Hash, KeySize: 4, ValueSize: watchedSize, MaxEntries: maxThreads}},
		{&w.ring, ebpf.MapSpec{Name: "events", Type: ebpf.RingBuf, MaxEntries: ringSize}},
		{&w.lost, ebpf.MapSpec{Name: "lost", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1}},
	} {
		if *m.into, err = ebpf.NewMap(&m.spec); err != nil {
			return fmt.Errorf("map %s: %w", m.spec.Name, err)
		}
	}
	return nil
}

// pidOffset returns where this kernel's task_struct has the thread's number.
func pidOffset() (int16, error) {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return 0, fmt.Errorf("types of the kernel: %w; it needs CONFIG_DEBUG_INFO_BTF", err)
	}
	var s *btf.Struct
	if err := spec.TypeByName("task_struct", &s); err != nil {
		return 0, err
	}
	for _, m := range s.Members {
		if m.Name == "pid" {
			return int16(m.Offset.Bytes()), nil
		}
	}
	return 0, errors.New("the kernel's task_struct has no pid")
}

// attach loads a program at a tracepoint. Its licence is that of the program
// alone: the kernel shows its structures to those compatible with the GPL only.
func (w *watcher) attach(at string, code asm.Instructions) error {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: at, Type: ebpf.Tracing, AttachType: ebpf.AttachTraceRawTp, AttachTo: at, License: "Dual MIT/GPL", Instructions: code,
	})
	if err != nil {
		return err
	}
	defer p.Close()
	l, err := link.AttachTracing(link.TracingOptions{Program: p})
	if err != nil {
		return err
	}
	w.links = append(w.links, l)
	return nil
}

// Registers: R6 the context, R7 the thread, R8 another thread.
const (
	thread = asm.R7
	other  = asm.R8
	offKey = -4 // on the stack: a map's key
	offVal = -16
	offEv  = -40
)

// programs returns the code for each tracepoint. pid is where a task has its
// number.
func (w *watcher) programs(pid int16) map[string]asm.Instructions {
	argument := func(n int16) asm.Instructions {
		return asm.Instructions{asm.LoadMem(asm.R1, asm.R6, 8*n, asm.DWord), asm.LoadMem(thread, asm.R1, pid, asm.Word)}
	}
	begin := asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1), asm.Mov.Imm(other, 0)}
	end := asm.Instructions{asm.Mov.Imm(asm.R0, 0).WithSymbol("end"), asm.Return()}
	join := func(parts ...asm.Instructions) (all asm.Instructions) {
		all = append(all, begin...)
		for _, p := range parts {
			all = append(all, p...)
		}
		return append(all, end...)
	}
	return map[string]asm.Instructions{
		// (bool preempt, prev, next, prev_state): prev sleeps unless it was
		// pushed off; next, if it was told to sleep, does not.
		"sched_switch": join(
			asm.Instructions{
				asm.LoadMem(asm.R1, asm.R6, 0, asm.DWord), asm.And.Imm(asm.R1, 0xff), asm.JNE.Imm(asm.R1, 0, "next"),
				asm.LoadMem(asm.R1, asm.R6, 24, asm.DWord), asm.LSh.Imm(asm.R1, 32), asm.JEq.Imm(asm.R1, 0, "next"),
			},
			argument(1), w.report(slept, toldAwake, toldAsleep, "next"),
			asm.Instructions{asm.LoadMem(asm.R1, asm.R6, 16, asm.DWord).WithSymbol("next"), asm.LoadMem(thread, asm.R1, pid, asm.Word)},
			w.report(woke, toldAsleep, toldAwake, "end"),
		),
		"sched_wakeup":       join(argument(0), w.report(woke, toldAsleep, toldAwake, "end")),
		"sched_process_exit": join(argument(0), w.report(ended, -1, toldAwake, "end"), w.unwatch()),
		// (parent, child): the child is watched from its first instruction on.
		"sched_process_fork": join(
			argument(1), asm.Instructions{asm.Mov.Reg(other, thread)}, argument(0),
			w.report(forked, -1, toldAwake, "end"),
			w.watchOther(),
		),
		// (task, old number, …): a thread that executes a program gets the number of
		// its process's first thread, whose end was told before.
		"sched_process_exec": join(
			argument(0), asm.Instructions{
				asm.Mov.Reg(other, thread), asm.LoadMem(thread, asm.R6, 8, asm.DWord),
				asm.JEq.Reg(thread, other, "end"),
			},
			w.report(renamed, -1, toldAwake, "end"), w.watchOther(), w.unwatch(),
		),
	}
}

// watchOther has the thread in R8 watched, which the one in R7 has made.
func (w *watcher) watchOther() asm.Instructions {
	return asm.Instructions{
		asm.StoreMem(asm.RFP, offKey, other, asm.Word),
		asm.StoreImm(asm.RFP, offVal, toldAwake, asm.Word), asm.StoreMem(asm.RFP, offVal+4, thread, asm.Word),
		asm.LoadMapPtr(asm.R1, w.threads.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, offKey), asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, offVal),
		asm.Mov.Imm(asm.R4, 0), asm.FnMapUpdateElem.Call(),
	}
}

// unwatch has the thread in R7 watched no more.
func (w *watcher) unwatch() asm.Instructions {
	return asm.Instructions{
		asm.StoreMem(asm.RFP, offKey, thread, asm.Word),
		asm.LoadMapPtr(asm.R1, w.threads.FD()), asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, offKey),
		asm.FnMapDeleteElem.Call(),
	}
}

// report sends an event of the thread in R7 if it is watched and was told to be
// in state expect (-1: any), and notes that it is told to be in state becomes.
// Else it goes to label unless.
func (w *watcher) report(kind happening, expect, becomes int64, unless string) asm.Instructions {
	sent := fmt.Sprintf("sent%d", kind)
	code := asm.Instructions{
		asm.StoreMem(asm.RFP, offKey, thread, asm.Word),
		asm.LoadMapPtr(asm.R1, w.threads.FD()), asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, offKey),
		asm.FnMapLookupElem.Call(), asm.JEq.Imm(asm.R0, 0, unless),
	}
	if expect >= 0 {
		code = append(code, asm.LoadMem(asm.R1, asm.R0, 0, asm.Word), asm.JNE.Imm(asm.R1, int32(expect), unless))
	}
	return append(code,
		asm.StoreImm(asm.R0, 0, becomes, asm.Word),
		asm.StoreImm(asm.RFP, offEv, int64(kind), asm.Word), asm.StoreMem(asm.RFP, offEv+4, thread, asm.Word),
		asm.FnKtimeGetNs.Call(), asm.StoreMem(asm.RFP, offEv+8, asm.R0, asm.DWord),
		asm.StoreMem(asm.RFP, offEv+16, other, asm.Word), asm.StoreImm(asm.RFP, offEv+20, 0, asm.Word),
		asm.LoadMapPtr(asm.R1, w.ring.FD()), asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, offEv),
		asm.Mov.Imm(asm.R3, eventSize), asm.Mov.Imm(asm.R4, 0), asm.FnRingbufOutput.Call(), asm.JEq.Imm(asm.R0, 0, sent),
		asm.StoreImm(asm.RFP, offKey, 0, asm.Word),
		asm.LoadMapPtr(asm.R1, w.lost.FD()), asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, offKey),
		asm.FnMapLookupElem.Call(), asm.JEq.Imm(asm.R0, 0, sent),
		asm.Mov.Imm(asm.R1, 1), asm.AddAtomic.Mem(asm.R0, asm.R1, asm.DWord, 0),
		asm.Mov.Imm(asm.R0, 0).WithSymbol(sent),
	)
}

// add watches a thread.
func (w *watcher) add(tid int) error {
	return w.threads.Put(uint32(tid), watched{Told: toldAwake})
}

// drop watches it no more.
func (w *watcher) drop(tid int) {
	_ = w.threads.Delete(uint32(tid)) // it may have ended, which drops it
}

// tell sets what was told of a thread.
func (w *watcher) tell(tid int, asleep bool) {
	v := watched{Told: toldAwake}
	if asleep {
		v.Told = toldAsleep
	}
	_ = w.threads.Update(uint32(tid), v, ebpf.UpdateExist) // it may have ended
}

// next blocks until something happens.
func (w *watcher) next(r *ringbuf.Record) (e event, err error) {
	if err := w.reader.ReadInto(r); err != nil {
		return e, err
	}
	b := r.RawSample
	if len(b) < eventSize {
		return e, fmt.Errorf("an event of %d bytes", len(b))
	}
	return event{
		happening(binary.NativeEndian.Uint32(b)), int(binary.NativeEndian.Uint32(b[4:])),
		binary.NativeEndian.Uint64(b[8:]), int(binary.NativeEndian.Uint32(b[16:])),
	}, nil
}

// losses returns how many events found no room.
func (w *watcher) losses() (n uint64) {
	_ = w.lost.Lookup(uint32(0), &n) // an array has this element
	return n
}

func (w *watcher) close() error {
	var errs []error
	if w.reader != nil {
		errs = append(errs, w.reader.Close())
	}
	for _, l := range w.links {
		errs = append(errs, l.Close())
	}
	for _, m := range []*ebpf.Map{w.threads, w.ring, w.lost} {
		if m != nil {
			errs = append(errs, m.Close())
		}
	}
	return errors.Join(errs...)
}
