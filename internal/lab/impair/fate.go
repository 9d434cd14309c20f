package impair

import (
	"math/rand/v2"
	"time"
)

// etherHeaderLen is what corruption leaves alone, so that the frame arrives.
const etherHeaderLen = 14

// Fate is what happens to one frame.
type Fate struct {
	Lost       bool
	Duplicated bool
	Held       bool
	CorruptBit int // counted from the frame's first bit; -1: none
	Jitter     time.Duration
}

// dice draws fates without allocating.
type dice struct {
	pcg  rand.PCG
	rand *rand.Rand
}

func newDice() *dice {
	d := &dice{}
	d.rand = rand.New(&d.pcg)
	return d
}

// fate decides about the frame with a number and a length in bytes. Each
// question has a draw of its own, asked or not, so that changing one probability
// leaves the other answers as they were.
func (x *dice) fate(d Direction, seed, number uint64, size int) Fate {
	x.pcg.Seed(seed, number)
	f := Fate{CorruptBit: -1}
	f.Lost = x.rand.Float64() < d.Loss
	f.Duplicated = x.rand.Float64() < d.Duplicate
	f.Held = x.rand.Float64() < d.Reorder
	corrupt, bit := x.rand.Float64() < d.Corrupt, x.rand.Float64()
	if body := (size - etherHeaderLen) * 8; corrupt && body > 0 {
		f.CorruptBit = etherHeaderLen*8 + int(bit*float64(body))
	}
	f.Jitter = time.Duration(x.rand.Float64() * float64(d.Jitter))
	return f
}

// FateOf tells what a Line with this direction and seed does to a frame.
func FateOf(d Direction, seed, number uint64, size int) Fate {
	return newDice().fate(d, seed, number, size)
}
