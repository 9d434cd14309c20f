package shortcut

import (
	"fmt"
	"reflect"
	"unsafe"

	"gvisor.dev/gvisor/pkg/sentry/kernel"
)

// taskFields is a task with what only the Sentry's kernel package can see of it.
//
// Invariants: findFields has found the fields, with the sizes that are used
// here. All methods are called by the task's own goroutine, the only one that
// writes gostate and gostateTime, and while its last Switch is under way, so that
// the kernel package does not write them meanwhile. Others read them, by one load
// each: amd64 and arm64 write aligned words as a whole.
type taskFields struct {
	*kernel.Task
	interrupts chan struct{}
	state      *uint32
	time       *int64
}

// Offsets of fields of kernel.Task.
var interruptChan, gostate, gostateTime uintptr

// findFields finds the fields of kernel.Task.
func findFields() error {
	task := reflect.TypeFor[kernel.Task]()
	for _, f := range []struct {
		name   string
		size   uintptr
		kind   reflect.Kind
		offset *uintptr
	}{
		{"interruptChan", unsafe.Sizeof(uintptr(0)), reflect.Chan, &interruptChan},
		{"gostate", 4, reflect.Struct, &gostate},
		{"gostateTime", 8, reflect.Struct, &gostateTime},
	} {
		field, ok := task.FieldByName(f.name)
		if !ok || field.Type.Size() != f.size || field.Type.Kind() != f.kind {
			return fmt.Errorf("kernel.Task of this version of gVisor has no field %s of %d bytes", f.name, f.size)
		}
		*f.offset = field.Offset
	}
	return nil
}

// fieldsOf returns a task with its fields.
func fieldsOf(t *kernel.Task) taskFields {
	base := unsafe.Pointer(t)
	return taskFields{
		Task:       t,
		interrupts: *(*chan struct{})(unsafe.Add(base, interruptChan)),
		state:      (*uint32)(unsafe.Add(base, gostate)),
		time:       (*int64)(unsafe.Add(base, gostateTime)),
	}
}

// interrupted tells whether the task loop has something to see to.
func (t *taskFields) interrupted() bool { return len(t.interrupts) != 0 }

// leaveProgram and enterProgram say who has the processor. The kernel's clock
// comes first: who finds the task in the kernel for long reports it as stuck.
func (t *taskFields) leaveProgram() { t.become(kernel.TaskGoroutineRunningSys) }
func (t *taskFields) enterProgram() { t.become(kernel.TaskGoroutineRunningApp) }

func (t *taskFields) become(s kernel.TaskGoroutineState) {
	*t.time = t.Kernel().CPUClockNow().Nanoseconds()
	*t.state = uint32(s)
}

// setRestart makes err the result of the system call, and has the task loop
// restart the call or fail it, as signals want it.
func (t *taskFields) setRestart(err error) { _ = doSyscallError(t.Task, err) }

// doSyscallError is the task loop's own. It returns the loop's next state.
//
//go:linkname doSyscallError gvisor.dev/gvisor/pkg/sentry/kernel.(*Task).doSyscallError
func doSyscallError(t *kernel.Task, err error) interface{ execute(*kernel.Task) }
