package boundary

import (
	"fmt"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/bpf"
	"gvisor.dev/gvisor/pkg/seccomp"
)

// Violation is what a host call that is not allowed leads to.
type Violation string

const (
	// Kill ends the process with SIGSYS. The kernel's audit log names the call.
	Kill Violation = "kill"
	// Trap makes the Go runtime print where the call was made, and end the
	// process. A hostile program could make it go on, without the call.
	Trap Violation = "trap"
	// Off: there is no boundary, for debugging. Capabilities stay, too.
	Off Violation = "off"
)

var actions = map[Violation]linux.BPFAction{Kill: linux.SECCOMP_RET_KILL_PROCESS, Trap: linux.SECCOMP_RET_TRAP}

// Filter is a compiled list of host calls.
type Filter struct {
	instructions []bpf.Instruction
	calls        int
}

// Compile makes the filter of what n needs.
func Compile(n Needs, v Violation) (*Filter, error) {
	action, ok := actions[v]
	if !ok {
		return nil, fmt.Errorf("boundary: no such reaction to a violation: %q; accepted: %s, %s", v, Kill, Trap)
	}
	calls := n.calls()
	return &Filter{program(calls, action), len(calls)}, nil
}

// Calls returns how many host calls the filter allows, some of them with some
// arguments only.
func (f *Filter) Calls() int { return f.calls }

// Install puts the filter, and no_new_privs, on all threads of the process
// (seccomp(2), SECCOMP_FILTER_FLAG_TSYNC), and makes the process one that
// others of the same user cannot trace or look into.
func (f *Filter) Install() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("boundary: making the process not dumpable: %w", err)
	}
	if err := seccomp.SetFilter(f.instructions); err != nil {
		return fmt.Errorf("boundary: installing the seccomp filter: %w; the kernel needs CONFIG_SECCOMP_FILTER", err)
	}
	return nil
}

// Offsets in struct seccomp_data (seccomp(2)), little endian.
const (
	offsetNumber = 0
	offsetArch   = 4
	offsetArgs   = 16
)

// program is the list as classic BPF. Its length does not matter: the kernel
// runs it for the few calls whose arguments it looks at, which come first.
func program(calls []call, otherwise linux.BPFAction) []bpf.Instruction {
	p := []bpf.Instruction{load(offsetArch), bpf.Jump(bpf.Jmp|bpf.Jeq|bpf.K, architecture, 1, 0), ret(otherwise), load(offsetNumber)}
	for _, c := range calls {
		if c.values != nil {
			test := c.test(otherwise)
			p = append(p, bpf.Jump(bpf.Jmp|bpf.Jeq|bpf.K, uint32(c.number), 0, uint8(len(test))))
			p = append(p, test...)
		}
	}
	for _, c := range calls {
		if c.values == nil {
			p = append(p, bpf.Jump(bpf.Jmp|bpf.Jeq|bpf.K, uint32(c.number), 0, 1), ret(linux.SECCOMP_RET_ALLOW))
		}
	}
	return append(p, ret(otherwise))
}

// test is the part of the program for one call with an argument.
func (c call) test(otherwise linux.BPFAction) []bpf.Instruction {
	p := []bpf.Instruction{load(offsetArgs + 8*uint32(c.arg))}
	for _, v := range c.values {
		p = append(p, bpf.Jump(bpf.Jmp|bpf.Jeq|bpf.K, v, 0, 1), ret(linux.SECCOMP_RET_ALLOW))
	}
	return append(p, ret(otherwise))
}

func load(offset uint32) bpf.Instruction         { return bpf.Stmt(bpf.Ld|bpf.W|bpf.Abs, offset) }
func ret(action linux.BPFAction) bpf.Instruction { return bpf.Stmt(bpf.Ret|bpf.K, uint32(action)) }
