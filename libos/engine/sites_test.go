//go:build amd64

package engine

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"testing"

	"github.com/stretchr/testify/require"
	"gvisor.dev/gvisor/pkg/hostarch"
	"pgregory.net/rapid"
)

// at puts a syscall instruction between two pieces of code.
func at(before, after []byte) *[siteWindow]byte {
	var w [siteWindow]byte
	copy(w[beforeSite-len(before):], before)
	copy(w[beforeSite:], []byte{0x0f, 0x05})
	copy(w[beforeSite+syscallLen:], after)
	return &w
}

func TestFindSite(t *testing.T) {
	const next = 0x401009
	for name, c := range map[string]struct {
		code *[siteWindow]byte
		nr   uint64
		want site
	}{
		"mov $39,%eax":          {at([]byte{0xc3, 0xb8, 39, 0, 0, 0}, nil), 39, site{movEAX, next, 39}},
		"mov $39,%rax":          {at([]byte{0x48, 0xc7, 0xc0, 39, 0, 0, 0}, nil), 39, site{movRAX, next, 39}},
		"cmp $-4095,%rax":       {at(nil, []byte{0x48, 0x3d, 0x01, 0xf0, 0xff, 0xff}), 39, site{compare, next, -4095}},
		"both":                  {at([]byte{0xc3, 0xb8, 39, 0, 0, 0}, []byte{0x48, 0x3d, 0, 0xf0, 0xff, 0xff}), 39, site{movEAX, next, 39}},
		"rt_sigreturn":          {at([]byte{0x48, 0xc7, 0xc0, 15, 0, 0, 0}, nil), 15, site{movRAX, next, 15}},
		"mov $0,%r8d":           {at([]byte{0x41, 0xb8, 0, 0, 0, 0}, nil), 0, site{}},
		"movl $39,-0x48(%rsp)":  {at([]byte{0xc7, 0x44, 0x24, 0xb8, 39, 0, 0, 0}, nil), 39, site{}},
		"mov $39,%ax":           {at([]byte{0x66, 0xb8, 39, 0}, nil), 39, site{}},
		"another number":        {at([]byte{0xc3, 0xb8, 39, 0, 0, 0}, nil), 40, site{}},
		"a negative number":     {at([]byte{0xc3, 0xb8, 0xff, 0xff, 0xff, 0xff}, nil), 0xffffffff, site{}},
		"cmp $-4095,%eax":       {at(nil, []byte{0x3d, 0x01, 0xf0, 0xff, 0xff}), 39, site{}},
		"nothing known":         {at([]byte{0x90, 0x90}, []byte{0x90}), 39, site{}},
		"no syscall, but patch": {&[siteWindow]byte{3: 0xff, 0x24, 0x25, 0, 0, 6, 0x5f}, 0, site{}},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := findSite(c.code, next, c.nr)
			require.Equal(t, c.want, got)
			require.Equal(t, c.want != site{}, ok)
		})
	}
}

// FuzzFindSite: what is taken for a site is one, whatever surrounds it.
func FuzzFindSite(f *testing.F) {
	f.Add([]byte{0xc3, 0x90, 0x90, 0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xc3}, uint64(39))
	f.Add([]byte{0xc3, 0x48, 0xc7, 0xc0, 39, 0, 0, 0, 0x0f, 0x05, 0xc3}, uint64(39))
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0x0f, 0x05, 0x48, 0x3d, 0x01, 0xf0, 0xff, 0xff}, uint64(1))
	f.Fuzz(func(t *testing.T, bytes []byte, nr uint64) {
		var code [siteWindow]byte
		copy(code[:], bytes)
		const next = hostarch.Addr(0x40100a)
		s, ok := findSite(&code, next, nr)
		if !ok {
			require.Zero(t, s)
			return
		}
		imm := binary.LittleEndian.AppendUint32(nil, uint32(s.operand))
		want := map[shape][]byte{
			movEAX:  append(append([]byte{0xb8}, imm...), 0x0f, 0x05),
			movRAX:  append(append([]byte{0x48, 0xc7, 0xc0}, imm...), 0x0f, 0x05),
			compare: append([]byte{0x0f, 0x05, 0x48, 0x3d}, imm...),
		}[s.shape]
		require.NotEmpty(t, want)
		first := int(s.start() - (next - syscallLen - beforeSite))
		require.Equal(t, want, code[first:first+len(want)])
		require.Equal(t, next, s.next)
		require.True(t, s.shape == compare || uint64(s.operand) == nr, "another call would be made")
	})
}

func anySite(t *rapid.T) site {
	return site{
		shape:   rapid.SampledFrom([]shape{movEAX, movRAX, compare}).Draw(t, "shape"),
		next:    hostarch.Addr(rapid.Uint64Range(0x1000, maxUserAddress-1).Draw(t, "next")),
		operand: rapid.Int32Range(0, 1<<20).Draw(t, "operand"),
	}
}

// Instructions of one byte that fault always, and prefixes, after which the
// next byte decides.
var (
	faulting = []byte{
		0x06, 0x07, 0x0e, 0x16, 0x17, 0x1e, 0x1f, 0x27, 0x2f, 0x37, 0x3f, 0x60, 0x61, 0x82, 0x9a, 0xce, 0xd4, 0xea, // none in 64-bit mode
		0x6c, 0x6d, 0x6e, 0x6f, 0xe4, 0xe5, 0xe6, 0xe7, 0xec, 0xed, 0xee, 0xef, 0xf4, 0xfa, 0xfb, // privileged
	}
	prefixes = []byte{
		0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3,
		0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x4b, 0x4c, 0x4d, 0x4e, 0x4f,
	}
)

// TestJump: whoever comes to a byte of a site from the third on faults. No two
// entries of the table overlap.
func TestJump(t *testing.T) {
	taken := make(map[uint32]int)
	for entry := range maxSites {
		code := site{}.jump(entry)
		require.Equal(t, []byte{0xff, 0x24, 0xe5}, code[:3])
		for i := 2; i < jumpLen; i++ {
			at := code[i:]
			for len(at) > 0 && bytes.IndexByte(prefixes, at[0]) >= 0 {
				at = at[1:]
			}
			require.NotEmpty(t, at, "prefixes alone: byte %d of entry %d", i, entry)
			require.Contains(t, faulting, at[0], "byte %d of entry %d", i, entry)
		}
		addr := binary.LittleEndian.Uint32(code[3:])
		require.Equal(t, tableAddr(entry), addr)
		require.True(t, addr >= tableLow && addr+8 <= trampolinesLow && addr%8 == 0, "%#x", addr)
		other, both := taken[addr]
		require.False(t, both, "entries %d and %d", entry, other)
		taken[addr] = entry
	}
}

// TestOnePage: a site is patched only if its page alone changes.
func TestOnePage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := anySite(t)
		pages := map[hostarch.Addr]bool{}
		for i := range hostarch.Addr(jumpLen) {
			pages[(s.start() + i).RoundDown()] = true
		}
		require.Equal(t, len(pages) == 1, s.inOnePage())
	})
}

// TestTrampoline executes nothing: its code is decoded by hand.
func TestTrampoline(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, entry := anySite(t), rapid.IntRange(0, maxSites-1).Draw(t, "entry")
		const callEntry, foreignGS = 0x60123456, 0x60120000
		code := s.trampoline(entry, callEntry, foreignGS)
		require.LessOrEqual(t, len(code), trampolineSize)
		addr := uint64(trampolinesLow + entry*trampolineSize)
		for i := range code {
			e, ok := inTrampoline(addr + uint64(i))
			require.True(t, ok)
			require.Equal(t, entry, e)
		}
		end := addr + uint64(len(code))
		if s.shape != compare {
			require.Equal(t, byte(0xb8), code[0])
			require.Equal(t, uint32(s.operand), binary.LittleEndian.Uint32(code[1:]))
			code = code[5:]
		}
		code = code[len(code)-18:]
		require.Equal(t, []byte{0x41, 0xbb}, code[:2])
		require.Equal(t, uint32(leftByCall+entry), binary.LittleEndian.Uint32(code[2:]))
		require.Equal(t, []byte{0xe3, 5}, code[6:8])
		for at, target := range map[int]uint64{8: foreignGS, 13: callEntry} {
			require.Equal(t, byte(0xe9), code[at])
			next := end - uint64(len(code)-at-5)
			require.Equal(t, target, next+uint64(int64(int32(binary.LittleEndian.Uint32(code[at+1:])))))
		}
	})
}

// TestComparedFlags takes the flags for what conditional jumps make of them.
func TestComparedFlags(t *testing.T) {
	const cf, pf, af, zf, sf, of = 1 << 0, 1 << 2, 1 << 4, 1 << 6, 1 << 7, 1 << 11
	rapid.Check(t, func(t *rapid.T) {
		rax := rapid.OneOf(rapid.Uint64(), rapid.SampledFrom([]uint64{0, 1, 1 << 63, 1<<63 - 1, ^uint64(0), ^uint64(0) - 4095, ^uint64(0) - 4094})).Draw(t, "rax")
		operand := rapid.OneOf(rapid.Int32(), rapid.SampledFrom([]int32{0, -1, -4095, -4096, 1 << 30})).Draw(t, "operand")
		flags := rapid.Uint64().Draw(t, "flags")
		got := comparedFlags(flags, rax, operand)
		has := func(flag uint64) bool { return got&flag != 0 }
		with := int64(operand)
		require.Equal(t, rax < uint64(with), has(cf), "jb")
		require.Equal(t, rax == uint64(with), has(zf), "je")
		require.Equal(t, int64(rax) < with, has(sf) != has(of), "jl")
		require.Equal(t, int64(rax-uint64(with)) < 0, has(sf), "js")
		require.Equal(t, bits.OnesCount8(uint8(rax-uint64(with)))%2 == 0, has(pf), "jp")
		require.Equal(t, rax&15 < uint64(with)&15, has(af), "the adjust flag")
		const all = cf | pf | af | zf | sf | of
		require.Equal(t, flags&^all, got&^all)
	})
}

// TestEntriesAreShared: address spaces with the same site share its entry,
// which is free again after the last.
func TestEntriesAreShared(t *testing.T) {
	tr := newTestTrampolines()
	first, ok := tr.take(site{movEAX, 0x1000, 1})
	require.True(t, ok)
	again, _ := tr.take(site{movEAX, 0x1000, 1})
	require.Equal(t, first, again)
	other, _ := tr.take(site{compare, 0x1000, 1})
	require.NotEqual(t, first, other)

	tr.drop([]int{first})
	_, ok = tr.site(first)
	require.True(t, ok)
	tr.drop([]int{again})
	_, ok = tr.site(first)
	require.False(t, ok)

	for i := range maxSites - 1 {
		_, ok := tr.take(site{movEAX, hostarch.Addr(0x2000 + i), 1})
		require.True(t, ok)
	}
	_, ok = tr.take(site{movEAX, 0x1000, 1})
	require.False(t, ok, "the table is full")
}

// TestTrappedOnce: of all traps of a site exactly one asks for a patch, until
// another site has taken its place.
func TestTrappedOnce(t *testing.T) {
	var p patches
	asked := 0
	for range 1000 {
		if p.trapped(0x401007) {
			asked++
		}
	}
	require.Equal(t, 1, asked)
}
