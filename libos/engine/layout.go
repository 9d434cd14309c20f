//go:build amd64

package engine

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"

	"gvisor.dev/gvisor/pkg/hostarch"
)

// maxUserAddress bounds the programs' addresses. The host kernel puts this
// process's own mappings, stacks and vdso near the top of the 47-bit space,
// far above.
const maxUserAddress = 0x5500_0000_0000

// minHostText is the lowest address that the host binary may be linked at:
// below, at 0x400000, is where programs that are not position independent belong.
const minHostText = 0x6000_0000

// The Go heap's arenas are placed one after the other from heapBase up, as far
// as heapReserve bytes. At a random base, as Go chooses otherwise, it could lie
// where a program has been loaded already.
const (
	heapBase    = 0xc0_0000_0000
	heapReserve = 64 << 30
)

// Bounds of the host binary's text, from which system calls are always allowed.
var hostTextLow, hostTextHigh uintptr

// hostRanges are the parts of the programs' addresses that this process uses
// itself. No program may have a mapping there.
var hostRanges []hostarch.AddrRange

// findHostRanges reads this process's mappings.
func findHostRanges() error {
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return err
	}
	defer maps.Close()
	for s := bufio.NewScanner(maps); s.Scan(); {
		var start, end uint64
		var perms string
		if n, err := fmt.Sscanf(s.Text(), "%x-%x %s", &start, &end, &perms); n != 3 || err != nil {
			return fmt.Errorf("unexpected line in /proc/self/maps: %q", s.Text())
		}
		if start < minHostText {
			return errors.New("the host binary lies where programs belong: link it with -ldflags '-T 0x60001000'")
		}
		if start >= maxUserAddress {
			continue
		}
		switch {
		case start < 4<<30:
			addHostRange(start, end)
			if perms == "r-xp" {
				hostTextLow, hostTextHigh = uintptr(start), uintptr(end)
			}
		case start < heapBase || end > heapBase+heapReserve:
			return fmt.Errorf("the host binary has memory at %#x, where programs belong: build it with GOEXPERIMENT=norandomizedheapbase64", start)
		default:
			addHostRange(heapBase, heapBase+heapReserve)
		}
	}
	if hostTextLow == 0 {
		return errors.New("the host binary's text was not found below 4 GiB")
	}
	if overlapsHost(hostarch.AddrRange{Start: tableLow, End: sitesEnd}) {
		return fmt.Errorf("the host binary reaches to %#x, where its trampolines belong: it is too large", tableLow)
	}
	hostRanges = append(hostRanges, hostarch.AddrRange{Start: tableLow, End: sitesEnd})
	slices.SortFunc(hostRanges, func(a, b hostarch.AddrRange) int { return cmp.Compare(a.Start, b.Start) })
	return nil
}

// addHostRange adds a range, merged with the one before if they touch.
func addHostRange(start, end uint64) {
	r := hostarch.AddrRange{Start: hostarch.Addr(start), End: min(hostarch.Addr(end), maxUserAddress)}
	if n := len(hostRanges); n > 0 && hostRanges[n-1].End >= r.Start {
		hostRanges[n-1].End = max(hostRanges[n-1].End, r.End)
		return
	}
	hostRanges = append(hostRanges, r)
}

// overlapsHost tells whether r touches a range of the host.
func overlapsHost(r hostarch.AddrRange) bool {
	for _, h := range hostRanges {
		if h.Overlaps(r) {
			return true
		}
	}
	return false
}

// withoutHost calls f with the parts of r that are not the host's, in order.
func withoutHost(r hostarch.AddrRange, f func(hostarch.AddrRange)) {
	for _, h := range hostRanges {
		if h.End <= r.Start || h.Start >= r.End {
			continue
		}
		if r.Start < h.Start {
			f(hostarch.AddrRange{Start: r.Start, End: h.Start})
		}
		r.Start = min(h.End, r.End)
	}
	if r.Length() > 0 {
		f(r)
	}
}
