//go:build amd64

package engine

import (
	"bytes"
	"encoding/binary"
	"slices"

	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/arch"
)

// A system call site that has trapped often is replaced by a jump to a
// trampoline of its own, which says which site it is and goes to callEntry
// (run_amd64.s):
//
//	ff 24 25 disp32    jmp *disp32
//
// disp32 is an entry of a table below 2 GiB. Both lie in this process's own
// memory, never in the program's: on the second platform the jump faults on
// reading the table, and the fault is taken for the system call that it is.
//
// Whoever comes to the middle of the seven bytes faults, too, and the engine
// does what the bytes that stood there did (mend.go): the third byte of each
// entry's address is 0x06, no instruction in 64-bit mode; and an operand that
// is an instruction of the site begins with 0xe5 (in, which is privileged).

// shape tells which instructions a site consists of.
type shape uint8

const (
	// movEAX is mov $nr,%eax ; syscall: five bytes and two, all replaced.
	movEAX shape = iota + 1
	// movRAX is mov $nr,%rax ; syscall: seven bytes and two, of which the
	// first instruction is replaced.
	movRAX
	// compare is syscall ; cmp $imm32,%rax: two bytes and six, of which seven
	// are replaced.
	compare
)

const (
	jumpLen    = 7
	syscallLen = arch.SyscallWidth
	compareLen = 6
	beforeSite = 8 // bytes before the syscall instruction that findSite wants
	siteWindow = beforeSite + syscallLen + compareLen
)

// Where the table and the trampolines lie.
const (
	maxSites       = 8192
	tableLow       = 0x5f06_0000 // to 0x5f06_ffff
	trampolinesLow = 0x5f07_0000
	trampolineSize = 16
	sitesEnd       = trampolinesLow + maxSites*trampolineSize
)

const noInstruction = 0x06

// site is a patched system call site. Sites with the same fields share a trampoline.
type site struct {
	shape shape
	// next is the address after the syscall instruction.
	next hostarch.Addr
	// operand is the number of the system call, or what compare compares with.
	operand int32
}

// start is the address of the first byte replaced.
func (s site) start() hostarch.Addr {
	switch s.shape {
	case movEAX:
		return s.next - jumpLen
	case movRAX:
		return s.next - syscallLen - jumpLen
	default:
		return s.next - syscallLen
	}
}

// middle is the offset of the byte replaced that starts another instruction, 0 for none.
func (s site) middle() int {
	switch s.shape {
	case movEAX:
		return 5
	case compare:
		return 2
	default:
		return 0
	}
}

// findSite tells what kind of site the syscall instruction in the middle of
// code belongs to. nr is the number that it was called with.
func findSite(code *[siteWindow]byte, next hostarch.Addr, nr uint64) (site, bool) {
	const rtSigreturn = 15
	mid := code[beforeSite : beforeSite+syscallLen]
	if mid[0] != 0x0f || mid[1] != 0x05 {
		return site{}, false
	}
	imm := int32(binary.LittleEndian.Uint32(code[beforeSite-4:]))
	switch {
	case nr != uint64(uint32(imm)) || imm < 0:
	case bytes.HasPrefix(code[beforeSite-7:], []byte{0x48, 0xc7, 0xc0}):
		// Unwinders know a signal's frame by the bytes of its return.
		if nr != rtSigreturn {
			return site{movRAX, next, imm}, true
		}
	case code[beforeSite-5] == 0xb8 && !isPrefix(code[beforeSite-6]) && !isOperand([3]byte(code[beforeSite-8:])):
		return site{movEAX, next, imm}, true
	}
	if after := code[beforeSite+syscallLen:]; after[0] == 0x48 && after[1] == 0x3d {
		return site{compare, next, int32(binary.LittleEndian.Uint32(after[2:]))}, true
	}
	return site{}, false
}

// isPrefix tells whether b before 0xb8 may make another instruction of it. It
// may as well be the end of an unrelated one: then the site stays unpatched.
func isPrefix(b byte) bool { return b&0xf0 == 0x40 || b == 0x66 }

// isOperand tells whether b before 0xb8 makes it the displacement of an
// instruction with an immediate operand, such as movl $imm,-0x48(%rsp).
func isOperand(b [3]byte) bool {
	return b[1]&0xc7 == 0x44 && bytes.IndexByte([]byte{0x69, 0x81, 0xc7, 0xf7}, b[0]) >= 0
}

// jump is the code that replaces the site's, with the entry of the table.
func (s site) jump(entry int) [jumpLen]byte {
	code := [jumpLen]byte{0xff, 0x24, 0x25}
	if s.shape == compare {
		code[2] = 0xe5 // the same instruction
	}
	binary.LittleEndian.PutUint32(code[3:], uint32(tableLow+8*entry))
	return code
}

// decodeJump returns the entry of the table that code jumps through.
func decodeJump(code [jumpLen]byte) (entry int, ok bool) {
	if code[0] != 0xff || code[1] != 0x24 || code[2] != 0x25 && code[2] != 0xe5 {
		return 0, false
	}
	offset := int(binary.LittleEndian.Uint32(code[3:])) - tableLow
	return offset / 8, offset >= 0 && offset < 8*maxSites && offset%8 == 0
}

// trampoline is the code of the site's entry, which ends at callEntry's address.
func (s site) trampoline(entry int, callEntry uintptr) []byte {
	var code []byte
	if s.shape != compare {
		code = binary.LittleEndian.AppendUint32([]byte{0xb8}, uint32(s.operand)) // mov $nr,%eax
	}
	code = binary.LittleEndian.AppendUint32(append(code, 0x41, 0xbb), uint32(leftByCall+entry))     // mov $result,%r11d
	at := trampolinesLow + entry*trampolineSize + len(code) + 5                                     // end of the jump
	return binary.LittleEndian.AppendUint32(append(code, 0xe9), uint32(int64(callEntry)-int64(at))) // jmp callEntry
}

// inTrampoline returns the entry whose trampoline contains the address.
func inTrampoline(addr uint64) (entry int, ok bool) {
	return (int(addr) - trampolinesLow) / trampolineSize, addr >= trampolinesLow && addr < sitesEnd
}

// edit is one step of patching: bytes at an offset from the site's start.
type edit struct {
	offset int
	code   []byte
}

// edits returns the steps in which code is written over a site whose other
// threads may be executing it. All processors must have passed a serializing
// instruction between one step and the next. At any time a thread executes the
// old instructions, the new one, or faults, and mends to one of the two.
func (s site) edits(code [jumpLen]byte) [][]edit {
	first := []edit{{0, []byte{noInstruction}}}
	rest := []edit{{1, code[1:]}}
	if m := s.middle(); m > 0 {
		first = append(first, edit{m, code[m : m+1]})
		rest = []edit{{1, code[1:m]}, {m + 1, code[m+1:]}}
	}
	rest = slices.DeleteFunc(rest, func(e edit) bool { return len(e.code) == 0 })
	return [][]edit{first, rest, {{0, code[:1]}}}
}

// comparedFlags returns flags after cmp $operand,%rax (Intel SDM vol. 2, CMP).
func comparedFlags(flags, rax uint64, operand int32) uint64 {
	const cf, pf, af, zf, sf, of = 1 << 0, 1 << 2, 1 << 4, 1 << 6, 1 << 7, 1 << 11
	with := uint64(int64(operand))
	diff := rax - with
	flags &^= cf | pf | af | zf | sf | of
	set := func(condition bool, flag uint64) {
		if condition {
			flags |= flag
		}
	}
	parity := byte(diff)
	parity ^= parity >> 4
	parity ^= parity >> 2
	parity ^= parity >> 1
	set(rax < with, cf)
	set(parity&1 == 0, pf)
	set((rax^with^diff)&0x10 != 0, af)
	set(diff == 0, zf)
	set(diff>>63 != 0, sf)
	set((rax^with)&(rax^diff)>>63 != 0, of)
	return flags
}
