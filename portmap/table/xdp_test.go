package table

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Where lookupProgram finds its question in the "frame", and puts its answer.
const (
	atAddr, atProto, atPort, atAnswer, frameLen = 0, 16, 18, 24, 32
	xdpPass                                     = 2
)

// Where the program keeps things on its stack.
const onStackIndex, onStackWord = -4, -16

// lookupProgram is an XDP program that does what View.Lookup does, by the
// package's documentation: its callers' frames tell whether both agree.
func lookupProgram(m *Maps) asm.Instructions {
	prog := asm.Instructions{
		asm.LoadMem(asm.R6, asm.R1, 0, asm.Word), // data
		asm.LoadMem(asm.R2, asm.R1, 4, asm.Word), // data_end
		asm.Mov.Reg(asm.R3, asm.R6), asm.Add.Imm(asm.R3, frameLen),
		asm.JGT.Reg(asm.R3, asm.R2, "exit"),
		asm.LoadMem(asm.R8, asm.R6, atAddr, asm.DWord), asm.LoadMem(asm.R9, asm.R6, atAddr+8, asm.DWord),
		asm.Mov.Reg(asm.R7, asm.R8), asm.LoadImm(asm.R1, int64(m.HashSeed), asm.DWord), asm.Xor.Reg(asm.R7, asm.R1),
	}
	prog = append(prog, mixInstructions(asm.R7)...)
	prog = append(prog, asm.Xor.Reg(asm.R7, asm.R9))
	prog = append(prog, mixInstructions(asm.R7)...)
	for i := range ProbeWindow {
		next := fmt.Sprintf("probe%d", i+1)
		prog = append(prog,
			asm.Mov.Reg(asm.R1, asm.R7).WithSymbol(fmt.Sprintf("probe%d", i)),
			asm.Add.Imm(asm.R1, int32(i)), asm.And.Imm(asm.R1, int32(m.Geometry.Slots-1)), asm.Add.Imm(asm.R1, 1))
		prog = append(prog, mapLookup(m.Slots)...)
		prog = append(prog,
			asm.LoadMem(asm.R1, asm.R0, 16, asm.DWord),
			asm.JEq.Imm(asm.R1, 0, "answer"), // never used
			asm.Mov.Reg(asm.R2, asm.R1), asm.RSh.Imm(asm.R2, 28), asm.And.Imm(asm.R2, 0xf),
			asm.JEq.Imm(asm.R2, int32(Free), next),
			asm.LoadMem(asm.R3, asm.R0, 0, asm.DWord), asm.JNE.Reg(asm.R3, asm.R8, next),
			asm.LoadMem(asm.R3, asm.R0, 8, asm.DWord), asm.JNE.Reg(asm.R3, asm.R9, next),
			asm.LoadMem(asm.R3, asm.R0, 16, asm.DWord), asm.JNE.Reg(asm.R3, asm.R1, "exit"),
			asm.Ja.Label("found"))
	}
	prog = append(prog,
		asm.Mov.Imm(asm.R1, 0).WithSymbol(fmt.Sprintf("probe%d", ProbeWindow)),
		asm.Ja.Label("answer"),
		asm.JNE.Imm(asm.R2, int32(Shared), "answer").WithSymbol("found"),
		asm.And.Imm(asm.R1, MaxOwner), asm.LSh.Imm(asm.R1, 17),
		asm.LoadMem(asm.R2, asm.R6, atProto, asm.Byte), asm.LSh.Imm(asm.R2, 16), asm.Add.Reg(asm.R1, asm.R2),
		asm.LoadMem(asm.R2, asm.R6, atPort, asm.Half), asm.HostTo(asm.BE, asm.R2, asm.Half), asm.Add.Reg(asm.R1, asm.R2))
	prog = append(prog, mapLookup(m.Ports)...)
	return append(prog,
		asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord),
		asm.StoreMem(asm.R6, atAnswer, asm.R1, asm.DWord).WithSymbol("answer"),
		asm.Mov.Imm(asm.R0, xdpPass), asm.Return(),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("exit"), asm.Return())
}

// mapLookup makes R0 the entry of R1; it goes to exit if there is none.
func mapLookup(m *ebpf.Map) asm.Instructions {
	return asm.Instructions{
		asm.StoreMem(asm.RFP, onStackIndex, asm.R1, asm.Word),
		asm.LoadMapPtr(asm.R1, m.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, onStackIndex),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "exit"),
	}
}

func mixInstructions(r asm.Register) asm.Instructions {
	step := func(shift int32, factor uint64) asm.Instructions {
		return asm.Instructions{
			asm.Mov.Reg(asm.R1, r), asm.RSh.Imm(asm.R1, shift), asm.Xor.Reg(r, asm.R1),
			asm.LoadImm(asm.R1, int64(factor), asm.DWord), asm.Mul.Reg(r, asm.R1),
		}
	}
	return append(append(step(30, mixA), step(27, mixB)...), step(31, mixA)[:3]...)
}

// newMaps makes maps; tests need root.
func newMaps(t testing.TB, g Geometry) *Maps {
	m, err := CreateMaps(g)
	require.NoError(t, err)
	t.Cleanup(func() { _ = m.Close() })
	return m
}

func loadLookup(t testing.TB, m *Maps) *ebpf.Program {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "Apache-2.0", Instructions: lookupProgram(m)})
	require.NoError(t, err)
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// ask runs the program on one question.
func ask(t require.TestingT, p *ebpf.Program, a netip.Addr, proto Proto, port uint16) Word {
	frame := make([]byte, frameLen)
	addr := a.As16()
	copy(frame[atAddr:], addr[:])
	frame[atProto] = byte(proto)
	binary.BigEndian.PutUint16(frame[atPort:], port)
	out := make([]byte, frameLen)
	verdict, err := p.Run(&ebpf.RunOptions{Data: frame, DataOut: out})
	require.NoError(t, err)
	require.Equal(t, uint32(xdpPass), verdict)
	return Word(binary.NativeEndian.Uint64(out[atAnswer:]))
}

// TestXDPReadsTheSameWords writes random tables, and asks an XDP program and a
// View the same questions.
func TestXDPReadsTheSameWords(t *testing.T) {
	maps := newMaps(t, small)
	w, err := NewWriter(small, maps)
	require.NoError(t, err)
	defer w.Close()
	v := viewOf(t, w)
	prog := loadLookup(t, maps)
	all := append(colliding(small, ProbeWindow), netip.MustParseAddr("198.18.0.1"), netip.MustParseAddr("198.19.255.254"))
	port := rapid.SampledFrom([]uint16{0, 1, 80, 255, 256, 32768, 65535})
	found := map[Kind]int{}
	rapid.Check(t, func(t *rapid.T) {
		for range rapid.IntRange(1, 20).Draw(t, "changes") {
			c := Change{Index: PortIndex(rapid.Uint32Range(0, 1).Draw(t, "shared"), Proto(rapid.IntRange(0, 1).Draw(t, "proto")), port.Draw(t, "port"))}
			c.Word = NewWord(Port, Mode(rapid.IntRange(0, 3).Draw(t, "mode")), rapid.Uint32Range(1, MaxOwner).Draw(t, "owner"), rapid.Uint32().Draw(t, "gen"))
			if rapid.Bool().Draw(t, "slot") {
				c = slotChange(t, w.table, all)
			}
			w.Apply([]Change{c})
		}
		for range 20 {
			a, proto, p := rapid.SampledFrom(all).Draw(t, "addr"), Proto(rapid.IntRange(0, 1).Draw(t, "proto")), port.Draw(t, "port")
			want := v.Lookup(KeyOf(a), proto, p)
			require.Equal(t, want, ask(t, prog, a, proto, p))
			found[want.Kind()]++
		}
	})
	t.Log(found)
	for _, k := range []Kind{Free, Port, Dedicated} {
		require.NotZero(t, found[k], k)
	}
}

// slotChange puts an address into a free slot of its window, or takes it out.
func slotChange(t *rapid.T, table *words, all []netip.Addr) Change {
	k := KeyOf(rapid.SampledFrom(all).Draw(t, "address"))
	kind := rapid.SampledFrom([]Kind{Shared, Dedicated, Dedicated}).Draw(t, "kind")
	owner := rapid.Uint32Range(0, 1).Draw(t, "index")
	if kind == Dedicated {
		owner = rapid.Uint32Range(1, MaxOwner).Draw(t, "owner")
	}
	for i := range uint32(ProbeWindow) {
		index := table.Probe(k, i)
		s := table.slot(index)
		w := Word(s[2])
		if w.Kind() != Free && Key(s[:2]) == k {
			return Change{Slot: true, Index: index, Key: k, Word: w.Next(Free, 0, 0)}
		}
	}
	for i := range uint32(ProbeWindow) {
		index := table.Probe(k, i)
		if w := Word(table.slot(index)[2]); w.Kind() == Free {
			return Change{Slot: true, Index: index, Key: k, Word: w.Next(kind, Server, owner)}
		}
	}
	return Change{Index: 0}
}

func BenchmarkXDPLookup(b *testing.B) {
	maps := newMaps(b, Geometry{Shared: 1, Slots: 4096, HashSeed: 9})
	w, err := NewWriter(maps.Geometry, maps)
	require.NoError(b, err)
	defer w.Close()
	a := netip.MustParseAddr("198.18.0.1")
	w.Apply([]Change{
		{Slot: true, Index: maps.Probe(KeyOf(a), 0), Key: KeyOf(a), Word: NewWord(Shared, Server, 0, 1)},
		{Index: 80, Word: NewWord(Port, Server, 5, 1)},
	})
	prog := loadLookup(b, maps)
	require.Equal(b, uint32(5), ask(b, prog, a, TCP, 80).Owner())
	frame := make([]byte, frameLen)
	addr := a.As16()
	copy(frame, addr[:])
	binary.BigEndian.PutUint16(frame[atPort:], 80)
	_, err = prog.Run(&ebpf.RunOptions{Data: frame, Repeat: uint32(b.N)})
	require.NoError(b, err)
}
