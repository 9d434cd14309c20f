//go:build amd64

package engine

import (
	"bytes"
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/arch"
)

// A system call site that has trapped often is replaced by a jump to a
// trampoline of its own, which says which site it is and goes to callEntry
// (run_amd64.s):
//
//	ff 24 e5 disp32    jmp *disp32
//
// disp32 is an entry of a table below 2 GiB. Both lie in this process's own
// memory, never in the program's.
//
// Whoever comes to the third to seventh byte faults, too, and the engine does
// what the bytes that stood there did (mend.go): each of these, at the
// beginning of an instruction, makes it one that is privileged or none in
// 64-bit mode (Intel SDM vol. 2, appendix A). The table's addresses are chosen
// so. The second byte cannot be: a jump there goes astray.

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
	// int80 is int $0x80, which is never replaced.
	int80
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
	tableLow       = 0x6f06_0000 // see tableAddr
	trampolinesLow = 0x6ff0_0000
	trampolineSize = 48
	sitesEnd       = trampolinesLow + maxSites*trampolineSize
)

// The bytes of a table's address, from the lowest; the highest is 0x6f (outs).
// Those of noInstruction are none in 64-bit mode, those of privileged are that;
// a prefix makes one with the byte after it. An entry is aligned: a program may
// have alignment checked.
const (
	noInstruction = "\x06\x07\x0e\x16\x17\x1e\x1f\x27\x2f\x37\x3f\x60\x61\x82\x9a\xce\xd4\xea"
	privileged    = "\x6c\x6d\x6e\x6f\xe4\xe5\xe6\xe7\xec\xed\xee\xef" // ins, outs, in, out
	segments      = "\x26\x2e\x36\x3e\x64\x65\x66\x67"                 // and sizes of operands and addresses
	rexes         = "\x40\x41\x42\x43\x44\x45\x46\x47\x48\x49\x4a\x4b\x4c\x4d\x4e\x4f"

	tableFirst  = "\x40\x48\x60\xf0"
	tableSecond = noInstruction + privileged + segments + rexes + "\xf4\xfa\xfb\xf0\xf2\xf3" // hlt, cli, sti, lock, repeat
	tableThird  = noInstruction + privileged + segments
)

// tableAddr returns where the table has an entry.
func tableAddr(entry int) uint32 {
	first, entry := tableFirst[entry%len(tableFirst)], entry/len(tableFirst)
	second, entry := tableSecond[entry%len(tableSecond)], entry/len(tableSecond)
	return tableLow&0xff00_0000 | uint32(tableThird[entry])<<16 | uint32(second)<<8 | uint32(first)
}

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

// inOnePage tells whether all bytes that are replaced lie in one page.
func (s site) inOnePage() bool { return s.start().RoundDown() == (s.start() + jumpLen - 1).RoundDown() }

// findSite tells what kind of site the syscall instruction in the middle of
// code belongs to. nr is the number that it was called with.
func findSite(code *[siteWindow]byte, next hostarch.Addr, nr uint64) (site, bool) {
	mid := code[beforeSite : beforeSite+syscallLen]
	if mid[0] != 0x0f || mid[1] != 0x05 {
		return site{}, false
	}
	imm := int32(binary.LittleEndian.Uint32(code[beforeSite-4:]))
	switch {
	case nr != uint64(uint32(imm)) || imm < 0:
	case bytes.HasPrefix(code[beforeSite-7:], []byte{0x48, 0xc7, 0xc0}):
		return site{movRAX, next, imm}, true
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

// jump is the code that replaces a site's, with the entry of the table.
func (site) jump(entry int) [jumpLen]byte {
	code := [jumpLen]byte{0xff, 0x24, 0xe5}
	binary.LittleEndian.PutUint32(code[3:], tableAddr(entry))
	return code
}

// trampoline is the code of the site's entry, which ends at callEntry's address,
// or at foreignGS's if GS is not the thread's area. It changes no flag, and
// nothing but RCX and R11, which are a system call's to change.
func (s site) trampoline(entry int, callEntry, foreignGS uintptr) []byte {
	var code []byte
	jump := func(to uintptr) {
		end := trampolinesLow + entry*trampolineSize + len(code) + 5
		code = binary.LittleEndian.AppendUint32(append(code, 0xe9), uint32(int64(to)-int64(end)))
	}
	if s.shape != compare {
		code = binary.LittleEndian.AppendUint32([]byte{0xb8}, uint32(s.operand)) // mov $nr,%eax
	}
	code = append(code, 0xf3, 0x49, 0x0f, 0xae, 0xc3)                                              // rdfsbase %r11
	code = binary.LittleEndian.AppendUint32(append(code, 0x65, 0x48, 0x8b, 0x0c, 0x25), areaOwner) // mov %gs:areaOwner,%rcx
	magic := uint32(areaMagic)
	code = binary.LittleEndian.AppendUint32(append(code, 0x4a, 0x8d, 0x8c, 0x19), -magic)       // lea -areaMagic(%rcx,%r11),%rcx
	code = binary.LittleEndian.AppendUint32(append(code, 0x41, 0xbb), uint32(leftByCall+entry)) // mov $result,%r11d
	code = append(code, 0xe3, 5)                                                                // jrcxz over the jump
	jump(foreignGS)
	jump(callEntry)
	return code
}

// inTrampoline returns the entry whose trampoline contains the address.
func inTrampoline(addr uint64) (entry int, ok bool) {
	return (int(addr) - trampolinesLow) / trampolineSize, addr >= trampolinesLow && addr < sitesEnd
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
