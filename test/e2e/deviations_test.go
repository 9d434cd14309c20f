package e2e

import (
	"os"
	"strings"
)

// Reasons that several rows of deviations share.
const (
	// The Sentry's own, whatever the engine.
	whyBusCode  = "the Sentry makes SIGBUS of SIGSEGV and keeps the code of the latter"
	whyDetails  = "the Sentry leaves trapno, err and cr2 of signal frames 0 (gvisor.dev/issue/159)"
	whyPKey     = "the Sentry has no protection keys"
	whyAMX      = "the Sentry knows no AMX state: it refuses what a processor that has it could grant"
	whyInt80    = "the Sentry has no 32-bit system calls, and only the in-process engine makes 64-bit ones of those by int 0x80"
	whyArchGS   = "the Sentry refuses ARCH_SET_GS and ARCH_GET_GS"
	whyStepCall = "the Sentry does not stop a single step behind a system call, but behind the instruction after it"

	// Of a program and a libOS in one address space.
	whyHostMemory = "the libOS's own memory is there: readable, and never the program's to map (hazard 9 of the design)"
	whyGSShown    = "GS points to the thread's area until the program has a GS base of its own"
	whyPKRU       = "a handler starts with the initial PKRU, and PKRU is no part of the state that is kept"

	whyReadFirst = "what a Unix socket has, less than 512 bytes, is taken from it before it is stored: if it cannot be, it is lost"

	// Of patched call sites.
	whyPatchSeen   = "a program that reads its own text sees patched call sites"
	whyNoKeys      = "without protection keys (ospke in /proc/cpuinfo) a program that reads its own text sees patched call sites"
	whyPatchCopied = "a copy of a patched call site jumps back to behind the original"
	whyPatchMoved  = "a patched call site knows its own address: moved or partly overwritten it leads astray"
	whyPatchHides  = "the page of a patched call site is a private copy: what is written to its file later is not seen"

	// Of systrap alone.
	whyPatchMiddle = "systrap takes a jump to the syscall instruction of a patched site for one to its start"
	whySystrapGS   = "systrap's own code uses GS"
	whySystrapTF   = "systrap's own code traps when the program has set the trap flag"
)

// details is what whyDetails makes of a line.
var details = []string{
	"trapno=14", "trapno=0", "trapno=13", "trapno=0", "err=0x4 ", "err=0 ", "err=0x5 ", "err=0 ", "err=0x6 ", "err=0 ", "err=0x7 ", "err=0 ",
	"err=0x14 ", "err=0 ", "err=0x15 ", "err=0 ",
	"cr2=(nil)", "cr2=-", "cr2=0x10", "cr2=-", "cr2=base+4101", "cr2=-", "cr2=base+8192", "cr2=-", "cr2=base+12287", "cr2=-",
	"cr2=base+12288", "cr2=-", "cr2=base+8", "cr2=-", "cr2=base+3", "cr2=-", "cr2=0xffff800000000000", "cr2=-",
	"cr2=0xffffffff81000000", "cr2=-", "cr2=0x7ffffffff000", "cr2=-", "cr2=0xfffffffffffff000", "cr2=-",
}

// The bus errors of whyBusCode.
var busCodes = []string{"SIGBUS code 2", "SIGBUS code 1"}

const int80Refused = "getpid: 0\ngetppid: 0\nwrite: -38\nbad: -38\nunknown: -38\n"

// deviations are the cases of testdata/conform in which an engine differs from
// Linux, with the reason.
var deviations = map[string]map[string]*deviation{
	"file_mappings":     {"inproc": {why: whyBusCode, replace: busCodes}, "systrap": {why: whyBusCode, replace: busCodes}},
	"memory_details":    {"inproc": {why: whyDetails, replace: details}, "systrap": {why: whyDetails, replace: details}},
	"protection_keys":   {"inproc": {why: whyPKey, varies: true}, "systrap": {why: whyPKey, varies: true}},
	"amx_permission":    {"inproc": {why: whyAMX, varies: true}, "systrap": {why: whyAMX, varies: true}},
	"int80":             {"systrap": {why: whyInt80, instead: int80Refused}},
	"int80_registers":   {"systrap": {why: whyInt80, varies: true}},
	"int80_interrupted": {"systrap": {why: whyInt80, varies: true}},
	"traced_int80":      {"systrap": {why: whyInt80, varies: true}},
	"int80_exit":        {"systrap": {why: whyInt80}},
	"gs_base":           {"inproc": {why: whyArchGS, instead: noGS}, "systrap": {why: whyArchGS, instead: noGS}},
	"gs_base_at_start":  {"inproc": {why: whyGSShown, varies: true}, "systrap": {why: whySystrapGS, varies: true}},
	"pkru":              {"inproc": {why: whyPKRU, varies: true}, "systrap": {why: "systrap starts programs with PKRU 0", varies: true}},
	"single_step": {
		"inproc":  {why: whyStepCall + "; on the second platform a patched site is one step", varies: true},
		"systrap": {why: whyStepCall + "; and its patches are stepped through", varies: true},
	},

	"host_addresses_read": {"inproc": {why: whyHostMemory, replace: []string{
		"0x60001000: SIGSEGV code 1 addr 0x60001000 rip -", "0x60001000: no fault", "0xc000000000: SIGSEGV code 1 addr 0xc000000000 rip -", "0xc000000000: no fault",
	}}},
	"host_addresses_write":         {"inproc": {why: whyHostMemory, replace: []string{"code 1", "code 2"}}},
	"host_addresses_system_calls":  {"inproc": {why: whyHostMemory, replace: []string{"ENOMEM", "EACCES"}}},
	"fixed_mappings_over_the_host": {"inproc": {why: whyHostMemory, replace: []string{"mapped: no fault", "elsewhere", "touch: no fault", "touch: SIGSEGV code 2 addr base+0 rip -", "touch text: no fault", "touch text: SIGSEGV code 2 addr base+4096 rip -"}}},
	"fixed_mappings_high":          {"inproc": {why: "programs' addresses end at 0x550000000000, below the host's own mappings", replace: []string{"mapped: no fault", "elsewhere"}}},
	"failed_reads":                 {"inproc": {why: whyReadFirst, replace: []string{"socket: -1 Bad address, 6 left", "socket: -1 Bad address, 1 left"}}},
	"gs_selector_loaded":           {"inproc": {why: whyGSShown, varies: true}, "systrap": {why: whySystrapGS, code: 139}},

	"sysenter":                  {"inproc": {why: "it returns to the lower half of an address, which now and then is the libOS's code", varies: true}},
	"gs_base_written":           {"systrap": {why: whySystrapGS, code: 139}},
	"gs_base_written_back":      {"systrap": {why: whySystrapGS, hangs: true}},
	"gs_bases_of_nothing":       {"systrap": {why: whySystrapGS, code: 139}},
	"gs_base_written_and_fault": {"systrap": {why: whySystrapGS, code: 139}},
	"gs_selector_of_data":       {"systrap": {why: whySystrapGS, code: 139}},
	"step_in_process":           {"systrap": {why: whySystrapTF, varies: true}},
	"trap_flag":                 {"systrap": {why: whySystrapTF, varies: true}},
	"unknown_numbers":           {"systrap": {why: "systrap's Sentry takes all 64 bits of the number", replace: []string{"68: getgid,", "68: ENOSYS,"}}},
	"clobbers":                  {"systrap": {why: "systrap's patched sites do not set rcx and r11", varies: true}},

	"fixed_mappings": {"systrap": {why: "systrap's lowest address is higher than Linux's", replace: []string{"0x10000: mapped: no fault", "0x10000: elsewhere"}}},

	"code_read_back":                  {"inproc": unlessKeys(patchSeen), "systrap": {why: whyPatchSeen, varies: true}},
	"code_read_back_by_system_calls":  {"systrap": {why: whyPatchSeen, varies: true}},
	"code_read_while_it_runs":         {"inproc": unlessKeys(&deviation{why: whyNoKeys, varies: true}), "systrap": {why: whyPatchSeen, varies: true}},
	"own_text":                        {"inproc": unlessKeys(&deviation{why: whyNoKeys, varies: true}), "systrap": {why: whyPatchSeen, varies: true}},
	"breakpoints":                     {"systrap": {why: whyPatchSeen, varies: true}},
	"copied_code":                     {"inproc": unlessKeys(patchCopied), "systrap": {why: whyPatchCopied, varies: true}},
	"moved_code":                      {"systrap": {why: whyPatchMoved, varies: true}},
	"rewritten_number_in_text":        {"systrap": {why: whyPatchMoved, varies: true}},
	"writing_text_from_outside":       {"systrap": {why: whyPatchMoved, varies: true}},
	"pokes":                           {"systrap": {why: whyPatchMoved, varies: true}},
	"rewritten_number":                {"systrap": {why: whyPatchMoved, varies: true}},
	"jump_into_the_number":            {"inproc": {why: "the second byte of a patched site is an instruction of its own, which cannot be undone", code: 139}, "systrap": {why: whyPatchMoved, varies: true}},
	"jump_into_instructions":          {"systrap": {why: whyPatchMoved, varies: true}},
	"jump_to_the_syscall_instruction": {"systrap": {why: whyPatchMiddle, varies: true}},
	"jump_first_then_fall_through":    {"systrap": {why: whyPatchMiddle, varies: true}},
	"code_mapped_twice_private":       {"systrap": {why: whyPatchHides, varies: true}},
	"code_mapped_twice":               {"systrap": {why: "systrap patches shared mappings, too: the file changes", varies: true}},
	"code_in_files":                   {"systrap": {why: "systrap patches shared mappings, too: the file changes", varies: true}},
}

const noGS = "set: -1\nget: -1 other\nthrough it: 0\n"

// The shapes of call sites that the in-process engine patches are the first four.
var (
	patchSeen = &deviation{why: whyNoKeys, replace: []string{
		"mov-eax: the same", "mov-eax: changed", "syscall-cmp: the same", "syscall-cmp: changed",
		"mov-eax-cmp: the same", "mov-eax-cmp: changed", "mov-rax: the same", "mov-rax: changed",
	}}
	patchCopied = &deviation{why: whyNoKeys, replace: []string{
		"mov-eax: 1", "mov-eax: 0", "syscall-cmp: 1", "syscall-cmp: 0", "mov-eax-cmp: 1", "mov-eax-cmp: 0", "mov-rax: 1", "mov-rax: 0",
	}}
)

// unlessKeys returns d on a machine without protection keys, by which the
// in-process engine learns that a program reads patched text.
func unlessKeys(d *deviation) *deviation {
	if hasKeys() {
		return nil
	}
	return d
}

func hasKeys() bool {
	info, _ := os.ReadFile("/proc/cpuinfo")
	return strings.Contains(string(info), " ospke")
}
