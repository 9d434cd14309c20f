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

// plainMoves is 1 if the processor tells which components are in use and has
// them where state.h expects them.
var plainMoves uint64

// copiesHidden tells whether the processor has protection keys, by which
// the kernel makes patched text unreadable.
var copiesHidden bool

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
	copiesHidden = fs.HasFeature(cpuid.X86FeatureOSPKE)
	xmask = fs.ValidXCR0Mask() & fpu.SupportedXFeatureStates
	plainMoves = 0
	if canMovePlainly(fs) {
		plainMoves = 1
	}
	return nil
}

// canMovePlainly asks the processor (Intel SDM vol. 2, CPUID leaf 0DH).
func canMovePlainly(fs cpuid.FeatureSet) bool {
	const leaf, xgetbv1 = 0xd, 1 << 2
	if fs.Function.Query(cpuid.In{Eax: leaf, Ecx: 1}).Eax&xgetbv1 == 0 {
		return false
	}
	const avx = 2
	if xmask&(1<<avx) == 0 {
		return false
	}
	for component, offset := range map[uint32]uint32{avx: 576, 5: 1088, 7: 1664} {
		if xmask&(1<<component) == 0 {
			continue
		}
		if fs.Function.Query(cpuid.In{Eax: leaf, Ecx: component}).Ebx != offset {
			return false
		}
	}
	return true
}

// pointAt gives g the addresses of a thread's registers. ac must stay alive
// and be left alone until the program has been left.
func pointAt(g *guest, ac *arch.Context64) {
	state := ac.FloatingPointData().Slice()
	g.regs = uintptr(unsafe.Pointer(&ac.Regs.PtraceRegs))
	g.fp = uintptr(unsafe.Pointer(&state[0]))
	g.fpSize = uintptr(len(state))
}

// showUnused writes the initial x87 state where the bits of an XSAVE area say
// that it has it: callEntry does not, and a tracer reads the bytes alone.
func showUnused(state []byte) {
	const bits, mxcsr, registers, registersEnd = 512, 24, 32, 160 // Intel SDM vol. 1, 13.4
	if len(state) <= bits || state[bits]&1 != 0 {
		return
	}
	clear(state[:mxcsr])
	state[0], state[1] = 0x7f, 0x03
	clear(state[registers:registersEnd])
}
