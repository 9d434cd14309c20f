package table

import "fmt"

// Word is one entry of the table. Bits:
//
//	 0-23  owner: the instance's number; of a Shared address its index
//	24-27  mode
//	28-31  kind
//	32-63  generation: raised by one, modulo 2^32, with each store to the entry
//
// The lower 32 bits of a free entry are 0.
type Word uint64

// MaxOwner is the largest number that a Word's owner field holds.
const MaxOwner = 1<<24 - 1

// Mode says where frames to an endpoint go by themselves. Whether those of its owner
// go to a device of the owner's instead, who steers them decides (direct/steer).
type Mode uint8

// The modes.
const (
	Drop   Mode = iota // nowhere
	Server             // to the network server's socket
	Direct             // to the instance's own device
	Host               // to the host's kernel
	modes
)

// Kind says what an entry stands for.
type Kind uint8

// The kinds.
const (
	Free      Kind = iota
	Port           // a port of a shared address, owned by one instance
	Shared         // an address whose ports are owned one by one
	Dedicated      // an address that is one instance's, with all ports and protocols
	kinds
)

// NewWord makes an entry. The owner is at most MaxOwner; mode and kind are of
// the constants above.
func NewWord(kind Kind, mode Mode, owner, generation uint32) Word {
	return Word(generation)<<32 | Word(kind&0xf)<<28 | Word(mode&0xf)<<24 | Word(owner&MaxOwner)
}

// Owner is the number of the instance that owns the entry, 0 if none does; of
// a Shared address it is the address's index.
func (w Word) Owner() uint32 { return uint32(w) & MaxOwner }

// Mode says where frames to the entry go.
func (w Word) Mode() Mode { return Mode(w >> 24 & 0xf) }

// Kind says what the entry stands for.
func (w Word) Kind() Kind { return Kind(w >> 28 & 0xf) }

// Generation tells stores to the entry apart: who has kept something that
// rests on an entry compares the whole word to see whether it still holds.
func (w Word) Generation() uint32 { return uint32(w >> 32) }

// Valid tells whether the bits are of a form that a writer makes.
func (w Word) Valid() bool {
	switch w.Kind() {
	case Free:
		return uint32(w) == 0
	case Port, Dedicated:
		return w.Owner() != 0 && w.Mode() < modes
	case Shared:
		return w.Owner() < MaxShared && w.Mode() < modes
	}
	return false
}

// Next is the word that follows w in its entry.
func (w Word) Next(kind Kind, mode Mode, owner uint32) Word {
	return NewWord(kind, mode, owner, w.Generation()+1)
}

// String is for people.
func (w Word) String() string {
	if w.Kind() == Free {
		return fmt.Sprintf("free gen=%d", w.Generation())
	}
	return fmt.Sprintf("%v owner=%d mode=%v gen=%d", w.Kind(), w.Owner(), w.Mode(), w.Generation())
}

var modeNames = [modes]string{"drop", "server", "direct", "host"}

// String is the mode's name.
func (m Mode) String() string {
	if m < modes {
		return modeNames[m]
	}
	return fmt.Sprintf("mode(%d)", uint8(m))
}

// Valid tells whether m is one of the modes.
func (m Mode) Valid() bool { return m < modes }

var kindNames = [kinds]string{"free", "port", "shared", "dedicated"}

// String is the kind's name.
func (k Kind) String() string {
	if k < kinds {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}
