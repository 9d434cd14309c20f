package table

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// newWords makes a table in private memory.
func newWords(g Geometry) *words {
	w := &words{g, make([]uint64, (g.Slots+1)*slotWords), make([]uint64, g.Ports())}
	w.putHeader()
	return w
}

var small = Geometry{Shared: 2, Slots: 64, HashSeed: 0x1234567890abcdef}

func TestWordKeepsItsParts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		kind := Kind(rapid.IntRange(0, int(kinds)-1).Draw(t, "kind"))
		mode := Mode(rapid.IntRange(0, int(modes)-1).Draw(t, "mode"))
		owner := rapid.Uint32Range(0, MaxOwner).Draw(t, "owner")
		gen := rapid.Uint32().Draw(t, "generation")
		w := NewWord(kind, mode, owner, gen)
		require.Equal(t, []any{kind, mode, owner, gen}, []any{w.Kind(), w.Mode(), w.Owner(), w.Generation()})
		next := w.Next(kind, mode, owner)
		require.Equal(t, gen+1, next.Generation())
		require.Equal(t, uint32(w), uint32(next))
	})
}

func TestWordValid(t *testing.T) {
	for _, w := range []Word{
		0, NewWord(Free, 0, 0, 7), NewWord(Port, Drop, 1, 0), NewWord(Port, Host, MaxOwner, 9),
		NewWord(Dedicated, Direct, 5, 1), NewWord(Shared, Server, 0, 1), NewWord(Shared, Drop, MaxShared-1, 1),
	} {
		require.True(t, w.Valid(), w)
	}
	for _, w := range []Word{
		NewWord(Free, Server, 0, 1), NewWord(Free, 0, 1, 1), NewWord(Port, Server, 0, 1), NewWord(Port, modes, 1, 1),
		NewWord(Dedicated, Server, 0, 1), NewWord(Shared, Server, MaxShared, 1), NewWord(kinds, 0, 1, 1), NewWord(0xf, 0, 1, 1),
	} {
		require.False(t, w.Valid(), w)
	}
}

func TestNames(t *testing.T) {
	require.Equal(t, "port owner=7 mode=direct gen=3", NewWord(Port, Direct, 7, 3).String())
	require.Equal(t, "free gen=3", NewWord(Free, 0, 0, 3).String())
	require.Equal(t, "mode(9) kind(8) proto(4)", Mode(9).String()+" "+Kind(8).String()+" "+Proto(4).String())
}

func TestKeysAreAddresses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, _ := netip.AddrFromSlice(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "address"))
		require.Equal(t, a.Unmap(), KeyOf(a).Addr())
		require.Equal(t, KeyOf(a), KeyOf(a.Unmap()))
		b, four := a.As16(), [4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "IPv4"))
		require.Equal(t, KeyOf(a), Key16(&b))
		v4 := netip.AddrFrom4(four)
		require.Equal(t, v4, Key4(&four).Addr())
		require.Equal(t, Key4(&four), KeyOf(netip.AddrFrom16(v4.As16())))
	})
}

func TestHeader(t *testing.T) {
	got, err := parseHeader(small.header())
	require.NoError(t, err)
	require.Equal(t, small, got)
	for i, bit := range []int{0, 32} { // magic, version
		h := small.header()
		h[0] ^= 1 << bit
		_, err := parseHeader(h)
		require.ErrorIs(t, err, ErrGeometry, i)
	}
	for _, g := range []Geometry{{0, 64, 0}, {65, 64, 0}, {1, 0, 0}, {1, 16, 0}, {1, 65, 0}, {1, 1 << 21, 0}} {
		_, err := parseHeader(g.header())
		require.ErrorIs(t, err, ErrGeometry, g)
	}
}

// colliding lists addresses that all begin their search at one slot.
func colliding(g Geometry, n int) []netip.Addr {
	var found []netip.Addr
	for i := uint32(0); len(found) < n; i++ {
		b := [16]byte{0: 0xfd}
		binary.BigEndian.PutUint32(b[12:], i)
		if a := netip.AddrFrom16(b); g.Probe(KeyOf(a), 0) == 5 {
			found = append(found, a)
		}
	}
	return found
}

func TestAddressesThatCollide(t *testing.T) {
	w := newWords(small)
	all := colliding(small, ProbeWindow+1)
	at := func(i int) *Change {
		return &Change{Slot: true, Index: small.Probe(KeyOf(all[i]), uint32(i)), Key: KeyOf(all[i]), Word: NewWord(Dedicated, Server, uint32(i)+1, 1)}
	}
	for i := range ProbeWindow {
		w.apply(at(i))
	}
	for i := range ProbeWindow {
		require.Equal(t, uint32(i)+1, w.lookup(KeyOf(all[i]), UDP, 5).Owner())
	}
	require.Zero(t, w.lookup(KeyOf(all[ProbeWindow]), UDP, 5), "beyond the window")

	// A freed slot in between does not hide those behind it.
	gone := at(3)
	gone.Word = gone.Word.Next(Free, 0, 0)
	w.apply(gone)
	require.Zero(t, w.lookup(KeyOf(all[3]), UDP, 5))
	require.Equal(t, uint32(5), w.lookup(KeyOf(all[4]), UDP, 5).Owner())
	require.Zero(t, w.lookup(KeyOf(netip.MustParseAddr("198.18.0.1")), UDP, 5))
}

// TestOneWriterManyReaders: readers see only words that were written, and
// never go back in time.
func TestOneWriterManyReaders(t *testing.T) {
	w := newWords(small)
	shared := netip.MustParseAddr("198.18.0.1")
	w.apply(&Change{Slot: true, Index: small.Probe(KeyOf(shared), 0), Key: KeyOf(shared), Word: NewWord(Shared, Server, 1, 1)})
	last := make([]uint32, 3)
	whileWriting(t, len(last), 100_000, func(gen uint32) {
		w.apply(&Change{Index: PortIndex(1, UDP, 65535), Word: stamp(gen)})
	}, func(r int) bool {
		p := w.lookup(KeyOf(shared), UDP, 65535)
		ok := p == stamp(p.Generation()) && p.Generation() >= last[r]
		last[r] = p.Generation()
		return ok
	})
}

// TestAddressesTakeTurns: one slot is now one address's, now another's, and no
// reader takes one for the other.
func TestAddressesTakeTurns(t *testing.T) {
	w := newWords(small)
	pair := colliding(small, 2)
	keys := []Key{KeyOf(pair[0]), KeyOf(pair[1])}
	slot := small.Probe(keys[0], 0)
	whileWriting(t, 2, 1_000_000, func(gen uint32) {
		turn := gen / 2 % 2
		c := Change{Slot: true, Index: slot, Key: keys[turn], Word: NewWord(Free, 0, 0, gen)}
		if gen%2 == 1 {
			c.Word = NewWord(Dedicated, Server, turn+1, gen)
		}
		w.apply(&c)
	}, func(r int) bool {
		got := w.address(keys[r])
		return got.Kind() == Free || got.Owner() == uint32(r)+1
	})
}

// whileWriting calls write with 1, 2, 3, … until each of some goroutines has
// called read that often with its number. read tells whether all was well.
func whileWriting(t *testing.T, readers int, enough int32, write func(uint32), read func(int) bool) {
	var waiting atomic.Int32
	waiting.Store(int32(readers))
	var wg sync.WaitGroup
	for r := range readers {
		wg.Go(func() {
			for n := int32(0); n < enough || waiting.Load() > 0; n++ {
				if n == enough {
					waiting.Add(-1)
				}
				if !read(r) {
					t.Errorf("reader %d, read %d: no word of the writer's", r, n)
					waiting.Store(0)
					return
				}
			}
		})
	}
	gen := uint32(0)
	for waiting.Load() > 0 {
		gen++
		write(gen)
	}
	wg.Wait()
	t.Logf("%d stores", gen)
}

// stamp is a word whose halves depend on each other, so that a torn one shows.
func stamp(gen uint32) Word {
	if gen == 0 {
		return 0
	}
	return NewWord(Port, Mode(gen%uint32(modes)), gen*2654435761%MaxOwner+1, gen)
}

// FuzzLookup looks endpoints up in memory that no monitor has written.
func FuzzLookup(f *testing.F) {
	f.Add(toBytes(newWords(Geometry{Shared: 1, Slots: 32}).slots), []byte("0123456789abcdef"), uint8(0), uint16(80))
	f.Add(slices.Repeat([]byte{0xff}, 33*slotSize), slices.Repeat([]byte{0xff}, 16), uint8(255), uint16(65535))
	w := newWords(Geometry{Shared: 1, Slots: 32})
	f.Fuzz(func(t *testing.T, mem, addr []byte, proto uint8, port uint16) {
		clear(w.slots)
		for i := range min(len(mem)/8, len(w.slots)) {
			w.slots[i] = binary.NativeEndian.Uint64(mem[i*8:])
		}
		if g, err := parseHeader([slotWords]uint64(w.slots)); err == nil {
			require.NoError(t, g.Check())
		}
		a, ok := netip.AddrFromSlice(addr)
		if !ok {
			return
		}
		got := w.lookup(KeyOf(a), Proto(proto), port)
		require.NotEqual(t, Shared, got.Kind())
	})
}

func toBytes(words []uint64) []byte {
	var b []byte
	for _, w := range words {
		b = binary.NativeEndian.AppendUint64(b, w)
	}
	return b
}

func BenchmarkLookup(b *testing.B) {
	w := newWords(Geometry{Shared: 2, Slots: 4096, HashSeed: 1})
	shared, dedicated := netip.MustParseAddr("198.18.0.1"), netip.MustParseAddr("198.19.0.1")
	put := func(a netip.Addr, word Word) {
		w.apply(&Change{Slot: true, Index: w.Probe(KeyOf(a), 0), Key: KeyOf(a), Word: word})
	}
	put(shared, NewWord(Shared, Server, 1, 1))
	put(dedicated, NewWord(Dedicated, Server, 9, 1))
	for p := range uint32(65536) {
		w.apply(&Change{Index: PortIndex(1, TCP, uint16(p)), Word: NewWord(Port, Server, 7, 1)})
	}
	for name, a := range map[string][4]byte{"shared": shared.As4(), "dedicated": dedicated.As4(), "unknown": {198, 18, 9, 9}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var sum uint32
			port := uint16(0)
			for b.Loop() {
				port += 4099 // another cache line each time
				sum += w.lookup(Key4(&a), TCP, port).Owner()
			}
			if (sum == 0) != (name == "unknown") {
				b.Fatal(sum)
			}
		})
	}
}

func BenchmarkApply(b *testing.B) {
	w := newWords(small)
	c := Change{Index: 80, Word: NewWord(Port, Server, 7, 1)}
	b.ReportAllocs()
	for b.Loop() {
		w.apply(&c)
	}
}
