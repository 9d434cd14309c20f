//go:build amd64

package engine

import (
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/cpuid"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/arch/fpu"
)

// xmask are the components of the extended state that belong to programs.
var xmask uint64

// initExtendedState finds out what the processor offers.
func initExtendedState() error {
	// AT_HWCAP2 and its bit, arch/x86/include/uapi/asm/hwcap2.h.
	const atHWCAP2, hwcap2FSGSBASE = 26, 1 << 1
	aux, err := unix.Auxv()
	if err != nil {
		return fmt.Errorf("reading the auxiliary vector: %w", err)
	}
	if !slices.ContainsFunc(aux, func(v [2]uintptr) bool { return v[0] == atHWCAP2 && v[1]&hwcap2FSGSBASE != 0 }) {
		return errors.New("this machine does not let user code set FS and GS (FSGSBASE)")
	}
	fs := cpuid.HostFeatureSet()
	if !fs.UseXsave() {
		return errors.New("this machine has no XSAVE")
	}
	if !fs.UseXsaveopt() {
		return errors.New("this machine has no XSAVEOPT")
	}
	xmask = fs.ValidXCR0Mask() & fpu.SupportedXFeatureStates
	return nil
}

// pointAt gives g the addresses of a thread's registers. ac must stay alive
// and be left alone until the program has been left.
func pointAt(g *guest, ac *arch.Context64) {
	state := ac.FloatingPointData().Slice()
	g.regs = uintptr(unsafe.Pointer(&ac.Regs.PtraceRegs))
	g.fp = uintptr(unsafe.Pointer(&state[0]))
	g.fpSize = uintptr(len(state))
}
